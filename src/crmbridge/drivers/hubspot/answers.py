"""Answers to writes, typed: only what is needed is decoded."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["BATCH", "MARKED", "ROW"]


class Row(msgspec.Struct, rename="camel"):
    """One written record; the rest of it is passed over."""

    id: str
    object_write_trace_id: str | None = None


class Answer(msgspec.Struct):
    """The answer of a batch. ``errors`` is read at every status: versions differ in whether 207 announces it."""

    results: list[Row]
    errors: list[dict[str, Any]] = []


class Marks(msgspec.Struct):
    """The only property read back when trace ids are not echoed."""

    crmbridge_mark: str | None = None


class MarkedRow(msgspec.Struct):
    """A written record by its mark."""

    id: str
    properties: Marks = msgspec.field(default_factory=Marks)


class MarkedAnswer(msgspec.Struct):
    """The same answer, read for marks."""

    results: list[MarkedRow]


ROW = msgspec.json.Decoder(Row)
BATCH = msgspec.json.Decoder(Answer)
MARKED = msgspec.json.Decoder(MarkedAnswer)
