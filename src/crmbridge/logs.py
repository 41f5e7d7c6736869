"""Logs: one line per event, as JSON or for a terminal, with secrets dropped and personal data masked.

Masking is the second line of defence: what is secret or personal should not be handed to a logger at all. It works
by shape, so it knows e-mail addresses, phone numbers, tokens and URLs, but no names of people.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from typing import Any, TextIO

import msgspec
import structlog

from crmbridge.core.errors import CrmError
from crmbridge.core.secret import Secret

__all__ = [
    "add_trace",
    "bind_request",
    "configure_logs",
    "describe_exception",
    "get_logger",
    "mask",
    "mask_tree",
    "redact_event",
]

MAX_TEXT_CHARACTERS = 8000
MAX_DEPTH = 6
MAX_CHAIN = 5
_TELLING = (CrmError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)

_SECRET_NAMES = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|api_?key|master_?key|private_?key|^dsn$|database_url", re.I
)
_PERSONAL_NAMES = frozenset(
    {
        *(
            "email",
            "e_mail",
            "phone",
            "mobile",
            "first_name",
            "last_name",
            "full_name",
            "street",
            "postal_code",
        ),
        *("birth_date", "birthday", "body", "message_text", "transcript"),
    }
)
# Names whose values are ours and look like tokens: trace ids and the like.
_PLAIN_NAMES = frozenset(
    {"request_id", "trace_id", "span_id", "audit_id", "version", "timestamp", "level", "logger"}
)
_PLAIN_ID = re.compile(r"[0-9A-Za-z_.:+-]{1,64}")

_KEEP = (
    r"(?<![\w-])(?P<keep>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![\w-])"
    r"|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?![\w-])"
    r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w.-]))"
)
_URL = r"(?P<url>\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s\"'<>]+)"
_KEYLIKE = (
    r"(?P<token>\b(?:crmb_(?:live|test)_|whsec_|sk_live_|sk_test_|pat-[a-z]{2}\d-|xox[a-z]-|gh[a-z]_)[\w.+/=-]+"
    r"|\b(?:Bearer|Basic)\s+[\w.+/=~-]{6,}|\beyJ[\w-]{6,}\.[\w.-]+)"
)
_EMAIL = r"(?P<email>[^\s@<>\"',;:()\[\]{}=/]{0,64}@[^\s@<>\"',;:()\[\]{}=/?]{1,255})"
_E164 = r"(?P<phone>\+\d[\d ().-]{5,20}\d)"
_GUESSES = r"|(?P<long>[A-Za-z0-9_+=-]{32,})|(?<![\w.])(?P<digits>\(?\d[\d ().-]{5,20}\d)(?!\w)"
_SURE = re.compile("|".join((_KEEP, _URL, _KEYLIKE, _EMAIL, _E164)))
_ALL = re.compile("|".join((_KEEP, _URL, _KEYLIKE, _EMAIL, _E164)) + _GUESSES)
_URL_PARTS = re.compile(r"([^:]+://)([^/?#@]*@)?([^?#]*)([?#].*)?", re.S)
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def mask(text: str, *, guess: bool = True) -> str:
    """``text`` with e-mail addresses, phone numbers, tokens and URL queries replaced by ``[email]`` and so on.

    ``guess`` also replaces what only looks like a phone number (7 digits and more) or a key (32 characters and more,
    letters and digits). UUIDs, dates and IPv4 addresses stay. Longer texts are cut at 8,000 characters.
    """
    if not guess and text.isalnum():
        return text
    if len(text) > MAX_TEXT_CHARACTERS:
        text = text[:MAX_TEXT_CHARACTERS] + " (cut)"
    return (_ALL if guess else _SURE).sub(lambda match: _replace(match, guess), text)


def _replace(match: re.Match[str], guess: bool) -> str:
    kind, found = match.lastgroup, match[0]
    if kind == "url":
        return _mask_url(found, guess)
    if kind == "long":
        has_both = any(char.isdigit() for char in found) and any(char.isalpha() for char in found)
        return "[token]" if has_both or found.isdigit() else found
    if kind == "digits":
        count = sum(char.isdigit() for char in found)
        is_plain = found.isdigit()
        return "[phone]" if count >= (9 if is_plain else 7) else found
    return found if kind == "keep" else f"[{kind}]"


def _mask_url(url: str, guess: bool) -> str:
    parts = _URL_PARTS.fullmatch(url)
    if parts is None:
        return "[url]"
    scheme, user, rest, query = parts.groups()
    pattern = _ALL if guess else _SURE
    rest = pattern.sub(lambda match: _replace(match, guess) if match.lastgroup != "url" else "[url]", rest)
    return f"{scheme}{'[token]@' if user else ''}{rest}{'?[query]' if query else ''}"


def mask_tree(value: Any, *, guess: bool = True, depth: int = 0) -> Any:
    """A JSON tree of ``value`` with every text masked. Secrets become ``***``, unknown objects their type's name."""
    if value is None or isinstance(value, bool | int | float):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, str):
        return mask(value.translate(_CONTROL), guess=guess)
    if isinstance(value, Secret):
        return "***"
    if depth >= MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return dict(_mask_named(str(name), item, guess, depth + 1) for name, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return [mask_tree(item, guess=guess, depth=depth + 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return mask(f"{type(value).__name__}: {value}".translate(_CONTROL), guess=guess)
    if type(value).__module__ in ("uuid", "datetime", "decimal", "pathlib"):
        return mask(str(value), guess=guess)
    return f"<{type(value).__name__}>"


def _mask_named(name: str, value: Any, guess: bool, depth: int) -> tuple[str, Any]:
    shown, instead = _judge_name(name, guess)
    if instead and isinstance(value, str) and value:
        return shown, instead
    return shown, mask_tree(value, guess=guess, depth=depth)


@lru_cache(maxsize=2048)
def _judge_name(name: str, guess: bool) -> tuple[str, str]:
    """The name as it may be shown, and what to show instead of a text under it (empty: the masked text)."""
    shown = mask(name.translate(_CONTROL), guess=guess)
    if _SECRET_NAMES.search(name):
        return shown, "***"
    return shown, "[personal]" if name.lower() in _PERSONAL_NAMES else ""


def redact_event(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """The structlog processor: every value of the event masked. Runs after tracebacks became text."""
    redacted: dict[str, Any] = {}
    for name, value in event.items():
        if name in ("exception", "stack"):
            redacted[name] = "\n".join(
                mask(line) for line in str(value)[: 4 * MAX_TEXT_CHARACTERS].splitlines()
            )
        elif name in _PLAIN_NAMES and isinstance(value, str) and _PLAIN_ID.fullmatch(value):
            redacted[name] = value
        else:
            shown, masked = _mask_named(name, value, True, 0)
            redacted[shown] = masked
    return redacted


def add_trace(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: the ids of the current span, where the process traces."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"], event["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return event


def describe_exception(exc_info: Any) -> str:
    """A traceback without local variables, and without the messages that may repeat what somebody sent: those of
    ``ValueError``, of the database and the like. Our own errors, whose texts hold no content, and the interpreter's
    complaints about our code keep theirs."""
    error: BaseException | None = exc_info[1]
    parts: list[str] = []
    while error is not None and len(parts) < MAX_CHAIN:
        frames = "".join(traceback.format_tb(error.__traceback__))
        told = str(error) if isinstance(error, _TELLING) else "message withheld"
        code = getattr(error, "sqlstate", None) or ""
        name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        parts.append(f"Traceback (most recent call last):\n{frames}{name}: {code}{' ' if code else ''}{told}")
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich came of:\n\n".join(parts)


def configure_logs(format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers to ``stream`` (standard error), one way for all.

    ``format`` is ``json``, ``console`` or ``auto`` (console on a terminal). Calling it again replaces the set-up.
    """
    out = stream or sys.stderr
    is_console = format == "console" or (format == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The default of the console renderer shows local variables of every frame: secrets and people among them.
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(describe_exception),
                redact_event,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if getattr(each, "is_crmbridge", False)]:
        root.removeHandler(old)
    handler.is_crmbridge = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _to_json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event).decode()


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for one module; call it with a short event and named values: ``log.info("drained", writes=3)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bind_request(request_id: str, **values: Any) -> Iterator[None]:
    """Every event logged inside, tasks started inside included, carries ``request_id`` and ``values``."""
    with structlog.contextvars.bound_contextvars(request_id=request_id, **values):
        yield
