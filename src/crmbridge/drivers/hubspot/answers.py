"""Answers to writes, typed: only what is needed is decoded."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["BATCH", "LINKED_IDS", "MARKED", "PAIRS", "ROW"]


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


class End(msgspec.Struct):
    """One end of an association."""

    id: str


class Pair(msgspec.Struct, kw_only=True):
    """An association that stands."""

    start: End = msgspec.field(name="from")
    to: End


class Pairs(msgspec.Struct):
    """The answer of a batch of default associations."""

    results: list[Pair] = []
    errors: list[dict[str, Any]] = []


class LinkedId(msgspec.Struct, rename="camel"):
    """The far end of an association: a number in v4, a text by the dated spec."""

    to_object_id: int | str


class Linked(msgspec.Struct):
    """What one record is associated with."""

    to: list[LinkedId] = []


class LinkedAnswer(msgspec.Struct):
    """The answer of a batch read of associations; records without any are left out."""

    results: list[Linked]


ROW = msgspec.json.Decoder(Row)
BATCH = msgspec.json.Decoder(Answer)
MARKED = msgspec.json.Decoder(MarkedAnswer)
PAIRS = msgspec.json.Decoder(Pairs)
LINKED_IDS = msgspec.json.Decoder(LinkedAnswer)
