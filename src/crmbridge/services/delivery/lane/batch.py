"""Batches: due targets opened, linked, mapped, and shaped into what one provider call takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec
import structlog

from crmbridge.core.errors import (
    CrmError,
    FieldError,
    NotFound,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import Manifest
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.connections.model import Intent, Sent
from crmbridge.services.delivery.addressing import Kept, addressed
from crmbridge.services.delivery.lane.store import Row
from crmbridge.services.delivery.model import Limits, TargetState
from crmbridge.services.vault.keys import SealBroken, TenantKeys, write_aad

__all__ = ["Batch", "Lane", "Prepared", "prepare", "shape", "window_of"]

_log = structlog.get_logger("crmbridge.delivery")
# So many rows of an import are opened and mapped at a stretch: the loop has live writes and others to serve.
_STRETCH = 16


# Priorities.
LIVE, IMPORT = 0, 1


class Lane(Protocol):
    """The part of an open connection that a drain uses."""

    @property
    def id(self) -> UUID: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def calls_at_once(self) -> int: ...
    def step_aside(self) -> None: ...
    def batch_size(self, obj: Object, operation: Operation) -> int: ...
    def map(self, intent: Intent, *, target_id: UUID, links: dict[str, str]) -> Write: ...
    async def lookup(self, *, phone: str = "", email: str = "", actor: str) -> list[Record]: ...
    async def send(self, writes: Sequence[Write], *, actor: str, request_id: str = "") -> Sent: ...
    async def find_written(self, write: Write, *, actor: str) -> tuple[WriteResult, AuditEntry]: ...


class Prepared(msgspec.Struct):
    """A target ready to go: ``write`` to be sent, or ``error`` that keeps it from being sent."""

    row: Row
    write: Write | None = None
    error: Exception | None = None


class Batch(msgspec.Struct, kw_only=True, eq=False):
    """Targets of one provider call. ``priority`` is ``LIVE`` or ``IMPORT``.

    ``is_look_up``: one target whose outcome is unknown; nothing is sent. ``marked_at``: the monotonic clock before its
    mark, ``mark_seconds`` how long that took. ``goes_first``: it has waited long enough, and goes before live writes.
    ``has_room``: its call could take more. ``has_waited``: it waited for them.
    """

    object: Object
    operation: Operation
    rows: list[Row]
    priority: int = 0
    is_look_up: bool = False
    marked_at: float = 0.0
    mark_seconds: float = 0.0
    goes_first: bool = False
    has_room: bool = False
    has_waited: bool = False

    @property
    def is_import(self) -> bool:
        """Imports give way to live writes. Whether a look-up is one does not count."""
        return self.priority > 0 and not self.is_look_up


def shape(rows: Sequence[Row], connection: Lane, limits: Limits) -> deque[Batch]:
    """Rows in order → batches by object, operation and priority, in the order in which each group begins.

    A target that failed several times travels alone, so that it cannot take others down with it.
    """
    batches: deque[Batch] = deque()
    open_batches: dict[tuple[str, str, int], Batch] = {}
    for row in rows:
        is_look_up = row.state == TargetState.UNKNOWN.value
        key = (row.object, row.operation, row.priority)
        batch = None if is_look_up or row.attempt_count >= limits.alone_after else open_batches.get(key)
        if batch is None:
            batch = Batch(
                object=Object(row.object),
                operation=Operation(row.operation),
                rows=[],
                priority=min(row.priority, 1),
                is_look_up=is_look_up,
            )
            batches.append(batch)
            if not is_look_up and row.attempt_count < limits.alone_after:
                open_batches[key] = batch
        batch.rows.append(row)
        if key in open_batches and len(batch.rows) >= connection.batch_size(batch.object, batch.operation):
            del open_batches[key]
    for batch in open_batches.values():
        batch.has_room = True
    return batches


async def prepare(
    batch: Batch, connection: Lane, keys: TenantKeys, tenant_id: UUID, *, is_lane_sound: bool, limits: Limits
) -> list[Prepared]:
    """Open, link and map each target. What goes wrong stays with its own target."""
    people: dict[tuple[str, str], str] = {}
    prepared = []
    for place, row in enumerate(batch.rows):
        if batch.priority and place and place % _STRETCH == 0:
            await asyncio.sleep(0)
        item = Prepared(row)
        try:
            # A look-up is made however often the write was tried before.
            if row.attempt_count >= limits.most_attempts and is_lane_sound and not batch.is_look_up:
                raise _given_up(row)
            item.write = await _mapped(row, connection, keys, tenant_id, people)
        except CrmError as error:
            item.error = error
        prepared.append(item)
    return prepared


async def _mapped(
    row: Row, connection: Lane, keys: TenantKeys, tenant_id: UUID, people: dict[tuple[str, str], str]
) -> Write:
    if row.write is not None:
        return row.write
    if row.sealed is None:
        raise NotFound("The content of this write was erased before it was delivered.")
    try:
        kept = msgspec.json.decode(keys.open(row.sealed, write_aad(tenant_id, row.write_id)), type=Kept)
    except SealBroken as error:
        # The fault of this row, not of the lane's configuration.
        raise UnexpectedResponse(error.message, outcome=Outcome.NOT_APPLIED, fix=error.fix) from None
    intent = addressed(kept, connection.id, row.remote_ids)
    links = {name: await _linked(name, link, row, connection, people) for name, link in intent.links.items()}
    return connection.map(intent, target_id=row.id, links=links)


async def _linked(
    name: str, link: dict[str, str], row: Row, connection: Lane, people: dict[tuple[str, str], str]
) -> str:
    """The remote id that a link means."""
    if link.get("remote_id"):
        return link["remote_id"]
    if write_id := link.get("write_id"):
        remote_id = (row.remote_ids or {}).get(str(UUID(write_id)), "")
        if not remote_id:
            raise ValidationError(
                "The write that this one is linked to was given up or left no record.",
                fields=(
                    FieldError(f"links.{name}.write_id", "was discarded, cancelled, or has no remote id"),
                ),
            )
        return remote_id
    kind = "email" if link.get("email") else "phone"
    text = link[kind]
    if (kind, text) not in people:
        found = await connection.lookup(actor=row.actor, **{kind: text})
        people[kind, text] = found[0].remote_id if found else ""
    if not people[kind, text]:
        raise ValidationError(
            f"No {name} with this {kind} is in the CRM.",
            fields=(
                FieldError(f"links.{name}.{kind}", "matches no record; create it first, or link by write_id"),
            ),
        )
    return people[kind, text]


def _given_up(row: Row) -> UnexpectedResponse:
    last = (row.error or {}).get("message", "no reason was kept")
    return UnexpectedResponse(
        f"Given up after {row.attempt_count} attempts while other writes got through. The last one ended with: {last}",
        outcome=Outcome.NOT_APPLIED,
    )


def window_of(manifest: Manifest, limits: Limits) -> int:
    """How many targets are read at once: two full batches, or a few per call in flight. Live writes wait no longer."""
    largest = max((size for spec in manifest.objects.values() for size in spec.batch.values()), default=1)
    return min(limits.window_size, max(2 * largest, 4 * manifest.in_flight_limit()))
