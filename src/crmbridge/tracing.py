"""Traces by OpenTelemetry. Off unless the setting ``traces`` is on; then :func:`span` costs a look at a variable.

Spans carry words of ours only: drivers, operations, objects, outcomes, codes, counts. No URL, no query, no id of a
tenant or record, no message of an exception: any of them may hold a person or a key.

W3C Trace Context (https://www.w3.org/TR/trace-context/): ``traceparent`` of a request is taken over. Without a
tracer its trace id still goes into the logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from crmbridge.core.errors import CrmError, Fix, NotConfigured

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer, TracerProvider

__all__ = ["ATTRIBUTES", "Span", "is_on", "link", "span", "start", "stop", "trace_id_in"]

# Every attribute that a span of ours may have; what is not named here is not recorded.
ATTRIBUTES = frozenset(
    {"driver", "object", "operation", "outcome", "code", "kind", "result", "writes", "requests", "records"}
    | {"http.request.method", "http.response.status_code", "http.route"}
)
# Enough to find the requests behind a group commit; a span with hundreds of links is refused by some collectors.
MOST_LINKS = 32
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)

_tracer: Tracer | None = None
_owned: Any = None


class Span:
    """``with span(...) as it: it.set(outcome="applied")``. This one does nothing: there is no tracer."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def set(self, **attributes: str | int) -> None:
        """Add attributes by the names of ``ATTRIBUTES``, dots written as double underscores."""

    def fail(self, code: str) -> None:
        """The work went wrong; ``code`` is one of our error codes or the name of an exception's class."""


_IDLE = Span()


class _LiveSpan(Span):
    __slots__ = ("_open", "_options", "_span")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._open: Any = None
        self._span: Any = None

    def __enter__(self) -> Span:
        assert _tracer is not None
        self._open = _tracer.start_as_current_span(
            **self._options, record_exception=False, set_status_on_exception=False
        )
        self._span = self._open.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error.code if isinstance(error, CrmError) else type(error).__name__)
        self._open.__exit__(None, None, None)

    def set(self, **attributes: str | int) -> None:
        for name, value in _named(attributes).items():
            self._span.set_attribute(name, value)

    def fail(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, code))
        self.set(code=code)


def span(
    name: str,
    *,
    headers: dict[str, str] | None = None,
    links: Sequence[Link | None] = (),
    is_root: bool = False,
    **attributes: str | int,
) -> Span:
    """A span around a ``with`` block. ``headers`` of a request (lower-case names) bring its parent and make it a
    server span; ``links`` are what :func:`link` answered; ``is_root``: work for several callers, no child of any.
    """
    if _tracer is None:
        return _IDLE
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    options: dict[str, Any] = {"name": name, "attributes": _named(attributes)}
    if headers is not None:
        options["context"] = TraceContextTextMapPropagator().extract(headers, Context())
        options["kind"] = SpanKind.SERVER
    elif is_root:
        options["context"] = Context()
        options["links"] = [one for one in links if one is not None][:MOST_LINKS]
    return _LiveSpan(options)


def link() -> Link | None:
    """The current span, to be linked from another one. None without a tracer."""
    if _tracer is None:
        return None
    from opentelemetry.trace import Link, get_current_span

    context = get_current_span().get_span_context()
    return Link(context) if context.is_valid else None


def is_on() -> bool:
    """Whether there is a tracer."""
    return _tracer is not None


def trace_id_in(traceparent: bytes) -> str:
    """The trace id of a ``traceparent`` header, 32 hexadecimal digits; empty when the header is none or malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) < 200 else None
    return found[1].decode() if found else ""


def start(provider: TracerProvider | None = None) -> None:
    """Trace from now on: to ``provider``, or by OTLP over HTTP as the ``OTEL_*`` variables say.

    The standard's variables are read by the SDK: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER`` and the
    like. A provider that the process got elsewhere (``opentelemetry-instrument``) is used as it is.
    Raises NotConfigured when the SDK is not installed.
    """
    global _tracer, _owned
    from opentelemetry import trace

    if provider is None:
        there = trace.get_tracer_provider()
        provider = _owned = _made() if isinstance(there, trace.ProxyTracerProvider) else None
        provider = provider or there
    _tracer = provider.get_tracer("crmbridge")


def stop() -> None:
    """No more spans; those that wait are sent."""
    global _tracer, _owned
    _tracer = None
    if _owned is not None:
        _owned.shutdown()
        _owned = None


def _made() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found, unused-ignore]
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise NotConfigured(
            "CRMBRIDGE_TRACES is on, and the OpenTelemetry SDK is not installed.",
            fix=Fix("install_extra", "Install crmbridge[otel], or unset CRMBRIDGE_TRACES."),
        ) from None
    # Resource.create puts OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES over what is given here.
    provider = TracerProvider(resource=Resource.create({"service.name": "crmbridge"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return {
        name if "." in name else f"crmbridge.{name}": value
        for name, value in named.items()
        if name in ATTRIBUTES
    }
