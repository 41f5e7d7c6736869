"""Canonical objects, records, pages, and writes as a driver sees them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from crmbridge.core.operations import Operation, Outcome

__all__ = [
    "Change",
    "FieldFact",
    "Filter",
    "Object",
    "Page",
    "Record",
    "RelatedWrite",
    "Write",
    "WriteResult",
]


class Object(StrEnum):
    """The seven canonical objects."""

    CUSTOMER = "customer"
    LEAD = "lead"
    DEAL = "deal"
    APPOINTMENT = "appointment"
    CASE = "case"
    NOTE = "note"
    ACTIVITY = "activity"


class Record(msgspec.Struct, kw_only=True):
    """One record of the CRM.

    A driver fills ``native`` (the provider's fields by path) and the connection fills ``fields``
    (slot name without the object: ``email``) through the reverse mapping. Ids are always texts.
    ``updated_at`` is RFC 3339 UTC, or empty when the provider does not tell.
    """

    object: Object
    remote_id: str
    native: dict[str, Any] = msgspec.field(default_factory=dict)
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    updated_at: str = ""
    url: str = ""
    is_archived: bool = False


class Page(msgspec.Struct, kw_only=True):
    """One page of records. ``next_cursor`` is opaque; empty on the last page."""

    records: list[Record]
    next_cursor: str = ""


class Filter(msgspec.Struct, kw_only=True, frozen=True):
    """A search: every pair of ``equals`` must hold (provider paths after mapping), ``text`` is free text.

    ``limit`` is the wished page size (1 to 200); providers may answer fewer.
    """

    equals: dict[str, Any] = msgspec.field(default_factory=dict)
    text: str = ""
    limit: int = 50


class RelatedWrite(msgspec.Struct, kw_only=True):
    """Fields that the mapping sends to another native object (a lead's budget on a deal, say)."""

    native_object: str
    fields: dict[str, Any]


class Write(msgspec.Struct, kw_only=True):
    """One target of a write, mapped, as a driver receives it.

    ``target_id`` is stable over all tries: the mark by which :meth:`CrmDriver.find_written` finds it again.
    ``fields`` are native, nested by path. ``match`` (upsert) holds native path → value.
    ``links`` names related records by canonical object → remote id, already resolved.
    """

    target_id: str
    operation: Operation
    object: Object
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    related: list[RelatedWrite] = msgspec.field(default_factory=list)
    remote_id: str = ""
    match: dict[str, Any] = msgspec.field(default_factory=dict)
    links: dict[str, str] = msgspec.field(default_factory=dict)
    idempotency_key: str = ""


class WriteResult(msgspec.Struct, kw_only=True):
    """What became of one write. ``error`` is set unless the outcome is ``applied``.

    ``delete_level`` is set for deletes. ``was_created`` tells an upsert's side, if the provider does.
    """

    outcome: Outcome
    remote_id: str = ""
    url: str = ""
    was_created: bool | None = None
    delete_level: str = ""
    error: Exception | None = None
    related_ids: dict[str, str] = msgspec.field(default_factory=dict)


class FieldFact(msgspec.Struct, kw_only=True):
    """One field of the live schema, from introspection. ``type`` is a slot type (see core.verticals)."""

    path: str
    label: str = ""
    type: str = "text"
    native_type: str = ""
    is_required: bool = False
    is_read_only: bool = False
    is_custom: bool = False
    options: list[str] = msgspec.field(default_factory=list)
    max_length: int | None = None


class Change(msgspec.Struct, kw_only=True):
    """One entry of a change feed: a record that is new, changed, or gone."""

    object: Object
    remote_id: str
    is_deleted: bool = False
    changed_at: str = ""
    record: Record | None = None
