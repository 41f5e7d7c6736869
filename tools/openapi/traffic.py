"""The traffic between a driver and its emulator while the driver's own contract runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from crmbridge.conformance.contract import DriverContract
from crmbridge.conformance.run import Report, contract_for, run_contract_class
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.emulation import Emulator, InProcessTransport

__all__ = ["Exchange", "RecordingTransport", "contracts_of", "record"]


@dataclass
class Exchange:
    """One request and its answer. ``status`` 0: none came. ``is_fault``: the emulator was told to answer wrongly."""

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 0
    answer: bytes = b""
    answer_kind: str = ""
    is_fault: bool = False

    def mark(self) -> tuple[Any, ...]:
        """Equal for exchanges that are judged alike."""
        query = tuple((name, tuple(values)) for name, values in self.query.items())
        kind = self.headers.get("content-type", "")
        sent = self.method, self.path, query, tuple(self.headers), kind, self.body
        return *sent, self.status, self.answer, self.answer_kind, self.is_fault


class RecordingTransport:
    """In-process, and each exchange is handed to ``keep``."""

    def __init__(self, emulator: Emulator, keep: Callable[[Exchange], None]) -> None:
        self.emulator = emulator
        self.keep = keep
        self._inner = InProcessTransport(emulator)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send once and note it. Raises TransportFailure as the emulator does."""
        body = request.encoded_body()
        split = urlsplit(request.full_url())
        prefix = urlsplit(self.emulator.base_url).path.rstrip("/")
        path = (
            split.path.removeprefix(prefix) if prefix and split.path.startswith(prefix + "/") else split.path
        )
        exchange = Exchange(
            method=request.method,
            path=path or "/",
            query=parse_qs(split.query, keep_blank_values=True),
            headers={name.lower(): text for name, text in request.headers.items()},
            body=body,
        )
        before = self._hits()
        try:
            response = await self._inner.send(request)
            exchange.status, exchange.answer = response.status, response.body
            exchange.answer_kind = response.header("content-type").partition(";")[0].strip()
            return response
        except TransportFailure:
            exchange.is_fault = True
            raise
        finally:
            exchange.is_fault = exchange.is_fault or self._hits() != before
            self.keep(exchange)

    def _hits(self) -> int:
        return sum(fault.hits for fault in self.emulator.faults.hit)


def contracts_of(target: str) -> list[type[Any]]:
    """The contract of a driver and its variants beside it. Raises NotConfigured for an unknown driver."""
    first = contract_for(target)
    beside = (
        vars(import_module(first.__module__)).values()
        if first.__module__ != "crmbridge.conformance.run"
        else ()
    )
    variants = [
        one
        for one in beside
        if isinstance(one, type)
        and issubclass(one, DriverContract)
        and getattr(one, "driver", None) is first.driver
        and one is not first
    ]
    return [first, *variants]


async def record(contract: type[Any], keep: Callable[[Exchange], None]) -> Report:
    """Runs all cases of one contract, its exchanges going to ``keep``."""

    def transport(self: Any, emulator: Emulator) -> RecordingTransport:
        return RecordingTransport(emulator, keep)

    recorded: Any = type(f"Recorded{contract.__name__}", (contract,), {"transport": transport})
    recorded.cases = contract.cases  # tests that a contract states itself are not found again in a subclass
    return await run_contract_class(recorded)
