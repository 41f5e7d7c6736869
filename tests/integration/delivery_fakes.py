"""A provider and connections for delivery's tests: it commits, refuses, cuts, times out and dies on demand."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from crmbridge.core.driver import refuse
from crmbridge.core.errors import CrmError, FieldError, NotConfigured, Unavailable, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.core.manifest import Auth, AuthKind, Budget, BudgetKind, Idempotency, Manifest, ObjectSpec
from crmbridge.core.operations import FULL, Operation, Outcome, Support
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.core.secret import Secret
from crmbridge.db.jobs import NewJob
from crmbridge.db.pool import Database
from crmbridge.db.signals import Signals
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.connections.model import Intent, Sent
from crmbridge.services.connections.routing import Pause, Role, Route
from crmbridge.services.delivery.model import Accepted, Limits, NewWrite, TargetState, WriteView
from crmbridge.services.delivery.service import Delivery
from crmbridge.services.incidents.service import Incidents
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.tenants.service import Tenants
from crmbridge.services.vault.master import EnvKeyProvider
from crmbridge.services.vault.service import Vault

MASTER_KEY = "test:" + "A" * 43 + "="

FAST = Limits(
    lease_seconds=3.0,
    send_seconds=1.0,
    settle_seconds=0.05,
    retry_base_seconds=0.02,
    retry_cap_seconds=0.2,
    turn_seconds=30.0,
    reread_seconds=0.05,
)


def manifest_of(*, batch: int, in_flight: int, lag: float = 0.0) -> Manifest:
    """Customers, leads and notes with everything; notes link to customers; nothing else exists."""
    writes = (Operation.CREATE, Operation.UPDATE, Operation.UPSERT, Operation.DELETE)
    operations = dict.fromkeys((*writes, Operation.LOOKUP), FULL)

    def spec(obj: Object) -> ObjectSpec:
        return ObjectSpec(
            native=obj.value,
            operations=operations,
            batch={Operation.CREATE: batch, Operation.UPDATE: batch, Operation.UPSERT: batch},
            links={Object.CUSTOMER: "customer_id"} if obj is Object.NOTE else {},
            idempotency=Idempotency(search_lag_seconds=lag),
        )

    return Manifest(
        slug="fake",
        display_name="Fake CRM",
        api_version="1",
        pages=(),
        read_on="2026-11-22",
        auth=Auth(kind=AuthKind.NONE),
        objects={obj: spec(obj) for obj in (Object.CUSTOMER, Object.LEAD, Object.NOTE)},
        budgets=(Budget(kind=BudgetKind.CONCURRENT, limit=in_flight),),
        timeout_seconds=0.1,
    )


@dataclass
class Fault:
    """One call that goes wrong. ``how``: cut_before, cut_after, hang, bug, or an error to answer for every write."""

    how: str | CrmError
    times: int = 1


@dataclass
class FakeProvider:
    """Keeps records by mark, logs every call as (kind, marks), and misbehaves as told.

    With a ``path`` the log is a file that several processes share; every line is on disk before an answer.
    """

    path: Path | None = None
    latency: float = 0.0
    faults: deque[Fault] = field(default_factory=deque)
    cannot_tell: bool = False
    look_up_faults: deque[CrmError] = field(default_factory=deque)
    customers: dict[str, str] = field(default_factory=dict)
    log: list[tuple[str, list[str]]] = field(default_factory=list)
    sent: list[Write] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def note(self, kind: str, marks: Sequence[str]) -> None:
        self.log.append((kind, list(marks)))
        if self.path is not None:
            with self.path.open("a") as lines:
                lines.write(json.dumps([kind, list(marks)]) + "\n")
                lines.flush()
                os.fsync(lines.fileno())

    def calls(self, kind: str) -> list[list[str]]:
        """Marks of each call of this kind, by every process."""
        entries = self.log
        if self.path is not None:
            entries = [tuple(json.loads(line)) for line in self.path.read_text().splitlines()]
        return [marks for name, marks in entries if name == kind]

    @property
    def effects(self) -> list[str]:
        """Marks of every write that took effect, in order, a doubled one twice."""
        return [mark for marks in self.calls("effect") for mark in marks]

    async def call(self, writes: Sequence[Write]) -> list[WriteResult]:
        marks = [write.target_id for write in writes]
        self.note("send", marks)
        self.sent += writes
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency)
            fault = self._next_fault()
            if isinstance(fault, CrmError):
                return [WriteResult(outcome=fault.outcome, error=fault) for _ in writes]
            if fault == "cut_before":
                raise Unavailable("cut", outcome=Outcome.UNKNOWN)
            if fault == "bug":
                raise RuntimeError("a driver's mistake")
            results = [self._one(write) for write in writes]
            self.note("effect", [r.remote_id[2:] for r in results if r.outcome is Outcome.APPLIED])
            if fault == "cut_after":
                raise Unavailable("cut", outcome=Outcome.UNKNOWN)
            if fault == "hang":
                await asyncio.sleep(60)
            return results
        finally:
            self.in_flight -= 1

    def _next_fault(self) -> str | CrmError | None:
        if not self.faults:
            return None
        fault = self.faults[0]
        fault.times -= 1
        if fault.times == 0:
            self.faults.popleft()
        return fault.how

    def _one(self, write: Write) -> WriteResult:
        if write.fields.get("last_name") == "poison":
            error = ValidationError("refused", fields=(FieldError("last_name", "is not welcome"),))
            return WriteResult(outcome=Outcome.NOT_APPLIED, error=error)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=f"r-{write.target_id}")

    async def find(self, write: Write) -> WriteResult:
        self.note("look_up", [write.target_id])
        if self.look_up_faults:
            return WriteResult(outcome=Outcome.UNKNOWN, error=self.look_up_faults.popleft())
        if self.cannot_tell:
            return WriteResult(outcome=Outcome.UNKNOWN)
        if write.target_id in self.effects:
            return WriteResult(outcome=Outcome.APPLIED, remote_id=f"r-{write.target_id}")
        return WriteResult(outcome=Outcome.NOT_APPLIED)


class FakeConnection:
    """An open connection over a FakeProvider, without mapping, credential or budget."""

    def __init__(
        self, connection_id: UUID, tenant: Tenant, provider: FakeProvider, manifest: Manifest
    ) -> None:
        self.id = connection_id
        self.tenant = tenant
        self.provider = provider
        self.manifest = manifest

    def supports(self, obj: Object, operation: Operation) -> Support:
        return self.manifest.supports(obj, operation)

    def check(self, obj: Object, operation: Operation) -> None:
        if not self.supports(obj, operation).is_usable:
            raise refuse(self.manifest, obj, operation)

    @property
    def calls_at_once(self) -> int:
        """All of them: there is no other process."""
        return self.manifest.in_flight_limit()

    def step_aside(self) -> None:
        """There is nobody to step aside for."""

    def get_ready(self) -> None:
        """There is no budget to fetch."""

    def batch_size(self, obj: Object, operation: Operation) -> int:
        return self.manifest.batch_size(obj, operation)

    def map(self, intent: Intent, *, target_id: UUID, links: dict[str, str]) -> Write:
        self.check(intent.object, intent.operation)
        if "wrong" in intent.fields:
            raise ValidationError("bad", fields=(FieldError(f"{intent.object.value}.wrong", "is no slot"),))
        return Write(
            target_id=str(target_id),
            operation=intent.operation,
            object=intent.object,
            fields=dict(intent.fields),
            remote_id=intent.remote_id,
            links=links,
        )

    async def lookup(self, *, phone: str = "", email: str = "", actor: str) -> list[Record]:
        self.provider.note("lookup", [phone or email])
        found = self.provider.customers.get(phone or email)
        return [Record(object=Object.CUSTOMER, remote_id=found)] if found else []

    async def send(self, writes: Sequence[Write], *, actor: str, request_id: str = "") -> Sent:
        return Sent(results=await self.provider.call(writes), entry=self._entry(actor, len(writes)))

    async def find_written(self, write: Write, *, actor: str) -> tuple[WriteResult, AuditEntry]:
        return await self.provider.find(write), self._entry(actor, 1)

    def _entry(self, actor: str, count: int) -> AuditEntry:
        return AuditEntry(
            tenant_id=self.tenant.id,
            actor=actor,
            action="crm.call",
            connection_id=self.id,
            details={"records": count},
        )


class FakeConnections:
    """Opens FakeConnections by name or id; ``closed`` makes every opening fail with it."""

    def __init__(self) -> None:
        self.open_ones: dict[tuple[UUID, str], FakeConnection] = {}
        self.closed: CrmError | None = None
        self.also: list[str] = []
        self.routing = self

    async def of(self, tenant_id: UUID, obj: Object) -> tuple[Route, ...]:
        """Everything goes to the primary, and to those named in ``also``."""
        names = [name for name in ("primary", *self.also) if (tenant_id, name) in self.open_ones]
        if not names:
            raise self.closed or NotConfigured("no connection")
        return tuple(
            Route(self.open_ones[tenant_id, name].id, name, Role.ALSO if name in self.also else Role.PRIMARY)
            for name in names
        )

    async def pause_of(self, tenant_id: UUID, connection_id: UUID) -> Pause | None:
        """Nobody has told who paused it."""
        return None

    async def open(
        self, tenant_id: UUID, *, name: str = "primary", connection_id: UUID | None = None
    ) -> FakeConnection:
        if self.closed is not None:
            raise self.closed
        for (owner, known), connection in self.open_ones.items():
            if owner == tenant_id and (
                connection.id == connection_id or (not connection_id and known == name)
            ):
                return connection
        raise NotConfigured("no connection")


class FakeJobs:
    """Remembers what was enqueued; ``drops`` loses everything, as a crash before the enqueue does."""

    def __init__(self) -> None:
        self.queue: list[NewJob] = []
        self.drops = False

    async def enqueue_many(self, kind: str, jobs: Sequence[NewJob]) -> int:
        if not self.drops:
            self.queue += jobs
        return len(jobs)


@dataclass
class House:
    """Delivery on a real database, with everything around it."""

    db: Database
    delivery: Delivery
    jobs: FakeJobs
    audit: AuditLog
    incidents: Incidents
    tenants: Tenants
    connections: FakeConnections
    provider: FakeProvider
    tenant: Tenant
    connection: FakeConnection
    keys: int = 0

    async def accept(self, intent: Intent, **options: Any) -> Accepted:
        """Accept with a new key unless one is given."""
        self.keys += 1
        options.setdefault("idempotency_key", f"key-{self.keys}-{new_id()}")
        return await self.delivery.accept("agent:test", self.tenant, intent, **options)

    async def drain(self) -> None:
        """Drain the lane until nothing is due now."""
        while await self.delivery.drain(self.connection.id):
            pass

    async def settle(self, seconds: float = 5.0) -> None:
        """Drain, retries and look-ups included, until everything is settled."""
        async with asyncio.timeout(seconds):
            while await self.pending():
                await self.drain()
                await asyncio.sleep(0.01)

    async def pending(self) -> int:
        counts = await self.delivery.counts(self.tenant.id)
        return sum(
            counts[state]
            for state in (
                TargetState.ACCEPTED,
                TargetState.SENDING,
                TargetState.RETRYING,
                TargetState.UNKNOWN,
            )
        )

    async def read(self, accepted: Accepted) -> WriteView:
        return await self.delivery.read(self.tenant.id, accepted.write_id)

    async def state(self, accepted: Accepted) -> TargetState:
        return (await self.read(accepted)).targets[0].state

    async def fetch(self, query: str, *values: Any) -> list[dict[str, Any]]:
        async with self.db.tenant(self.tenant.id) as conn:
            return [dict(row) for row in await conn.fetch(query, *values)]

    async def add_connection(
        self, tenant: Tenant, name: str, provider: FakeProvider, manifest: Manifest
    ) -> FakeConnection:
        connection = FakeConnection(new_id(), tenant, provider, manifest)
        async with self.db.tenant(tenant.id) as conn:
            await conn.execute(
                "insert into connections (id, tenant_id, name, driver, created_by) values ($1, $2, $3, 'fake', 'test')",
                connection.id,
                tenant.id,
                name,
            )
            await conn.execute(
                "insert into lanes (connection_id, tenant_id) values ($1, $2)", connection.id, tenant.id
            )
        self.connections.open_ones[tenant.id, name] = connection
        return connection


async def build(
    db: Database,
    *,
    limits: Limits = FAST,
    batch: int = 100,
    in_flight: int = 1,
    lag: float = 0.0,
    path: Path | None = None,
    tenant_id: UUID | None = None,
    connection_id: UUID | None = None,
    signals: Signals | None = None,
) -> House:
    """A house with one tenant and its primary connection: new ones, or those of another process."""
    audit = AuditLog(db)
    incidents = Incidents(db, audit)
    vault = Vault(db, EnvKeyProvider(Secret(MASTER_KEY)))
    tenants = Tenants(db, audit, vault.create_tenant_keys)
    connections, jobs = FakeConnections(), FakeJobs()
    provider = FakeProvider(path=path)
    if tenant_id is None:
        tenant = await tenants.add("acme", "Acme", "general", "AE", "Asia/Dubai", "operator:test")
    else:
        tenant = await tenants.get(tenant_id)
    delivery = Delivery(
        db=db,
        vault=vault,
        connections=connections,  # type: ignore[arg-type]
        audit=audit,
        incidents=incidents,
        jobs=jobs,  # type: ignore[arg-type]
        limits=limits,
        signals=signals,
    )
    manifest = manifest_of(batch=batch, in_flight=in_flight, lag=lag)
    house = House(
        db,
        delivery,
        jobs,
        audit,
        incidents,
        tenants,
        connections,
        provider,
        tenant,
        FakeConnection(connection_id or new_id(), tenant, provider, manifest),
    )
    if connection_id is None:
        house.connection = await house.add_connection(tenant, "primary", provider, manifest)
    else:
        connections.open_ones[tenant.id, "primary"] = house.connection
    return house


def customer(**fields: Any) -> Intent:
    """A create of a customer."""
    return Intent(object=Object.CUSTOMER, operation=Operation.CREATE, fields=fields or {"last_name": "Doe"})


def update(remote_id: str, **fields: Any) -> Intent:
    """An update of a customer."""
    return Intent(object=Object.CUSTOMER, operation=Operation.UPDATE, remote_id=remote_id, fields=fields)


def note(link: dict[str, str], body: str = "hello") -> Intent:
    """A note on a customer."""
    return Intent(
        object=Object.NOTE, operation=Operation.CREATE, fields={"body": body}, links={"customer": link}
    )


async def import_rows(house: House, count: int, *, first: int = 0) -> None:
    """Rows of an import, accepted in one request."""
    items = [
        NewWrite(intent=customer(last_name=f"row {n}"), idempotency_key=f"i-{n}")
        for n in range(first, first + count)
    ]
    await house.delivery.accept_many("agent:test", house.tenant, items)


def sent(house: House) -> list[str]:
    """The last names in the order in which they were sent."""
    return [str(write.fields["last_name"]) for write in house.provider.sent]


async def until_sent(house: House, count: int) -> None:
    async with asyncio.timeout(10):
        while len(house.provider.sent) < count:
            await asyncio.sleep(0.005)
