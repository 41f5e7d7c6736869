"""What one accept pays for being counted and, without a tracer, for not being traced. Microseconds, one core."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from crmbridge import metrics, tracing
from crmbridge.api.authentication import bind_request, request_id_of

ROUNDS, NUMBER = 15, 10_000
# Writes that share a commit with 32 clients (benchmarks.accept).
SHARED = 16


def microseconds(work: Callable[[], object]) -> float:
    """The best of several rounds."""
    return min(timeit.repeat(work, number=NUMBER, repeat=ROUNDS)) / NUMBER * 1e6


def _counted() -> None:
    metrics.note_accepted("lead", "create", "api", 0.004)


def _flushed() -> None:
    metrics.note_flush(16, 0.004)


def _not_traced() -> None:
    tracing.is_on()
    tracing.is_on()
    with tracing.span("flush", is_root=True, links=(), writes=16):
        pass


_SCOPE = {
    "state": {"request_id": "0123456789abcdef"},
    "headers": [(f"header-{number}".encode(), b"value") for number in range(8)],
}


def _bound() -> None:
    bind_request(_SCOPE)


def _bound_before() -> None:
    from structlog.contextvars import bind_contextvars

    bind_contextvars(request_id=request_id_of(_SCOPE))


def main() -> None:
    """Print the figures; a flush is shared by the writes of its commit."""
    looked = max(0.0, microseconds(_bound) - microseconds(_bound_before))
    parts = {
        "counter and histogram": microseconds(_counted),
        "flush, if alone": microseconds(_flushed),
        "no tracer": microseconds(_not_traced),
        "looking for traceparent": looked,
    }
    for name, value in parts.items():
        print(f"  {name:24} {value:6.2f} us")
    alone = sum(parts.values())
    shared = alone - parts["flush, if alone"] * (1 - 1 / SHARED)
    print(f"  {'per accept, alone':24} {alone:6.2f} us")
    print(f"  {f'per accept, {SHARED} a flush':24} {shared:6.2f} us   goal: less than 5")


if __name__ == "__main__":
    main()
