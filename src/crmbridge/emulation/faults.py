"""Faults on demand: what an emulator is told to do wrong, and to which request."""

from __future__ import annotations

import random
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

__all__ = ["Fault", "FaultKind", "Faults"]


class FaultKind(StrEnum):
    """What goes wrong. ``*_before`` means nothing was committed, ``*_after`` that the effect stands."""

    LATENCY = "latency"
    REFUSED = "refused"
    CUT_BEFORE = "cut_before"
    CUT_AFTER = "cut_after"
    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER = "timeout_after"
    STATUS = "status"
    HTML = "html"
    GARBAGE = "garbage"
    EMPTY = "empty"
    WRONG_SHAPE = "wrong_shape"


class Fault(msgspec.Struct, kw_only=True):
    """One fault and the requests it hits; empty matchers match all.

    ``path`` and ``operation`` are shell patterns (``/crm/*``, ``*.create``). ``only`` is ``writes``,
    ``reads`` or empty. ``skip`` lets that many matching requests pass first; ``times`` 0 means always.
    ``share`` below 1 hits that share of the matching requests, drawn: 0.1 is one in ten.
    ``status``, ``headers`` and ``body`` shape the answer (``body`` UNSET: the provider's own shape).
    ``retry_after`` becomes the header of that name (seconds or an HTTP date).
    ``after_commit`` lets the call take effect before the answer goes wrong.
    """

    kind: FaultKind
    method: str = ""
    path: str = ""
    operation: str = ""
    only: str = ""
    skip: int = 0
    times: int = 1
    share: float = 1.0
    status: int = 500
    retry_after: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: Any = msgspec.UNSET
    latency_seconds: float = 0.0
    after_commit: bool = False
    hits: int = 0

    def matches(self, method: str, path: str, operation: str, is_write: bool) -> bool:
        """Whether this fault is meant for such a request; counts nothing."""
        if self.only and (self.only == "writes") is not is_write:
            return False
        if self.method and self.method != method:
            return False
        if self.path and not fnmatchcase(path, self.path):
            return False
        return not self.operation or fnmatchcase(operation, self.operation)


class Faults:
    """The faults that wait, first in first out. ``seed`` settles what is drawn for those with a ``share``."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311 - draws faults, hides nothing
        self.waiting: list[Fault] = []
        self.hit: list[Fault] = []

    def add(self, kind: FaultKind | str, **matchers: Any) -> Fault:
        """Queues a fault; keywords are the fields of :class:`Fault`. Raises ValueError for a bad one."""
        try:
            fault = msgspec.convert({"kind": str(kind), **matchers}, Fault)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a fault: {error}") from None
        if not 0 < fault.share <= 1:
            raise ValueError(f"not a fault: share is {fault.share}, it must be above 0 and at most 1")
        if unknown := matchers.keys() - set(Fault.__struct_fields__):
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        self.waiting.append(fault)
        return fault

    def take(self, method: str, path: str, operation: str, is_write: bool) -> Fault | None:
        """The first waiting fault for this request, used up by one; None when nothing goes wrong."""
        for fault in self.waiting:
            if not fault.matches(method, path, operation, is_write):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.share < 1 and self._random.random() >= fault.share:
                continue
            fault.hits += 1
            if fault.hits == 1:
                self.hit.append(fault)
            if fault.times and fault.hits >= fault.times:
                self.waiting.remove(fault)
            return fault
        return None

    def clear(self) -> None:
        """Forgets all faults, waiting and past."""
        self.waiting.clear()
        self.hit.clear()
