"""What cannot be told is parked, with an incident that says why, and never sent again. What waits for a day is told."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.integration.delivery_fakes import FAST, FakeConnection, Fault, House, build, customer

from crmbridge.conformance import DriverContract
from crmbridge.conformance.harness import Bench
from crmbridge.conformance.run import contract_for
from crmbridge.core.errors import AuthError, CrmError, Unavailable
from crmbridge.core.manifest import LookUp
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.db.pool import Database
from crmbridge.drivers import DRIVERS
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.connections.model import Intent, Sent
from crmbridge.services.connections.routing import Routing
from crmbridge.services.delivery.model import TargetState

pytestmark = pytest.mark.postgres


def without_means(slug: str) -> list[dict[str, str]]:
    """Settings under which a driver may have nothing to look a write up by, beside those of its contract."""
    if slug == "mindbody":
        return [{}, {"staff_username": ""}]
    if slug == "rest_api":
        document = msgspec.json.decode(contract_for(slug).emulator().settings()["manifest"])  # type: ignore[misc]
        for form in document["objects"].values():
            form["idempotency"] = {"kind": "none"}
        return [{}, {"manifest": msgspec.json.encode(document).decode()}]
    return [{}]


def blind_writes() -> list[Any]:
    """Every writing operation of every driver that is declared to have no means."""
    found = []
    for slug in sorted(DRIVERS):
        contract = contract_for(slug)
        for settings in without_means(slug):
            given = contract.emulator().settings() if contract.emulator is not None else {}
            manifest = contract.driver.manifest_for({**given, **contract.settings, **settings})
            found += [
                pytest.param(slug, settings, obj, operation, id=f"{slug}-{obj.value}-{operation.value}")
                for obj in manifest.objects
                for operation in Operation
                if operation.is_write
                and manifest.supports(obj, operation).is_usable
                and manifest.look_up(obj, operation) is LookUp.NONE
            ]
    return found


class DriverConnection(FakeConnection):
    """A connection whose calls go to a real driver before its emulator. It sends one write, made before."""

    def __init__(self, fake: FakeConnection, bench: Bench, write: Write) -> None:
        super().__init__(fake.id, fake.tenant, fake.provider, bench.driver.manifest)
        self.bench, self.write = bench, write
        self.sent = self.looked = 0
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def map(self, intent: Intent, *, target_id: UUID, links: dict[str, str]) -> Write:
        return msgspec.structs.replace(self.write, target_id=str(target_id))

    async def send(self, writes: Sequence[Write], *, actor: str, request_id: str = "") -> Sent:
        self.sent += 1
        results = [await self.bench.open().write_one(write) for write in writes]
        return Sent(results=results, entry=self._entry(actor, len(writes)))

    async def find_written(self, write: Write, *, actor: str) -> tuple[WriteResult, AuditEntry]:
        self.looked += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        return await self.bench.open().find_written(write), self._entry(actor, 1)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    built = await build(database)
    yield built
    await built.delivery.close()
    await built.audit.close()


async def connect(house: House, bench: Bench, write: Write) -> DriverConnection:
    connection = DriverConnection(house.connection, bench, write)
    house.connections.open_ones[house.tenant.id, "primary"] = connection
    return connection


async def why_parked(house: House) -> str:
    incidents = await house.incidents.list_open(house.tenant.id)
    assert [incident.kind for incident in incidents] == ["write_parked"]
    return str(incidents[0].details["why"])


def contract_of(slug: str) -> DriverContract:
    contract = contract_for(slug)()
    assert isinstance(contract, DriverContract)
    return contract


def test_blind_writes_when_listed_then_known_ones_are_among_them() -> None:
    found = {param.id for param in blind_writes()}
    assert {"athenahealth-appointment-update", "mindbody-lead-create", "rest_api-note-create"} <= found


@pytest.mark.parametrize(("slug", "settings", "obj", "operation"), blind_writes())
async def test_unknown_when_the_driver_has_no_means_then_parked_and_never_sent_again(
    house: House, slug: str, settings: dict[str, str], obj: Object, operation: Operation
) -> None:
    contract = contract_of(slug)
    bench = await contract.make(settings=settings)
    write = await contract.some_write(bench, obj, operation)
    connection = await connect(house, bench, write)
    bench.emulator.faults.add("cut_after", only="writes")
    accepted = await house.accept(Intent(object=obj, operation=operation, remote_id=write.remote_id))
    await house.settle(20)
    written = bench.emulator.written
    assert await house.state(accepted) is TargetState.PARKED
    await house.drain()
    assert (connection.sent, connection.looked, bench.emulator.written) == (1, 1, written)
    assert "nothing by which" in await why_parked(house)


async def test_unknown_when_two_records_fit_then_parked_and_never_sent_again(house: House) -> None:
    contract = contract_of("rest_api")
    bench = await contract.make()
    write = await bench.write(Operation.UPSERT, Object.LEAD, match=("email",))
    connection = await connect(house, bench, write)
    bench.emulator.faults.add("cut_after", only="writes")
    connection.meanwhile = lambda: bench.create(Object.LEAD)  # somebody enters the same person
    accepted = await house.accept(Intent(object=Object.LEAD, operation=Operation.UPSERT))
    await house.settle(20)
    assert await house.state(accepted) is TargetState.PARKED
    assert (connection.sent, connection.looked) == (1, 1)
    assert "cannot tell" in await why_parked(house)


async def test_unknown_when_the_field_of_the_mark_is_missing_then_parked_and_the_incident_says_so(
    house: House,
) -> None:
    contract = contract_of("salesforce")
    bench = await contract.make(is_prepared=False)
    proof = await bench.driver.test_connection()
    bench.access.facts.update(proof.facts)  # nobody has made the field, and it was not prepared
    write = await bench.write(Operation.CREATE, Object.LEAD)
    connection = await connect(house, bench, write)
    bench.emulator.faults.add("cut_after", only="writes")
    accepted = await house.accept(Intent(object=Object.LEAD, operation=Operation.CREATE))
    await house.settle(20)
    assert await house.state(accepted) is TargetState.PARKED
    assert connection.sent == 1
    assert contract.manifest().objects[Object.LEAD].doubts[Operation.CREATE] in await why_parked(house)


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("down", outcome=Outcome.UNKNOWN),
        AuthError("no", subcode="expired"),
        Unavailable("busy", retry_safe=True),
    ],
    ids=["down", "expired", "busy"],
)
async def test_unknown_when_look_ups_fail_for_long_then_parked_and_never_sent_again(
    database: Database, failure: CrmError
) -> None:
    house = await build(database, limits=msgspec.structs.replace(FAST, look_up_seconds=0.3))
    house.provider.faults.append(Fault("cut_after"))
    house.provider.look_up_faults = deque([failure] * 1000)
    accepted = await house.accept(customer())
    await house.settle(20)
    assert await house.state(accepted) is TargetState.PARKED
    assert len(house.provider.calls("send")) == 1
    assert len(house.provider.calls("look_up")) >= 3
    assert failure.full_code in await why_parked(house)
    await house.delivery.close()


async def test_unknown_when_look_ups_fail_for_less_then_still_looked_up(house: House) -> None:
    house.provider.faults.append(Fault("cut_after"))
    house.provider.look_up_faults = deque([Unavailable("down", outcome=Outcome.UNKNOWN)] * 6)
    accepted = await house.accept(customer())
    await house.settle(20)
    assert await house.state(accepted) is TargetState.APPLIED
    assert len(house.provider.calls("send")) == 1 and len(house.provider.calls("look_up")) == 7


async def test_unknown_when_the_lane_was_paused_for_long_then_one_failing_look_up_parks_nothing(
    house: House,
) -> None:
    house.provider.faults.append(Fault("cut_after"))
    house.provider.look_up_faults.append(Unavailable("down", outcome=Outcome.UNKNOWN))
    accepted = await house.accept(customer())
    await house.drain()
    await house.fetch("update write_targets set sent_at = sent_at - interval '9 days'")
    await house.settle(20)
    assert await house.state(accepted) is TargetState.APPLIED


# -- a day behind ----------------------------------------------------------------------------------------------


class Owner:
    """What routing tells of its changes."""

    def mapping_changed(self, tenant_id: UUID) -> None:
        """Nothing is kept here."""


async def test_overdue_when_the_connection_is_paused_then_the_incident_says_who_and_how_to_resume(
    house: House,
) -> None:
    routing = Routing(Owner(), db=house.db, audit=house.audit, fresh_seconds=1.0)  # type: ignore[arg-type]
    house.connections.pause_of = routing.pause_of  # type: ignore[method-assign]
    await routing.pause(house.tenant, "primary", actor="operator:ada", reason="The CRM is being moved.")
    await house.accept(customer())
    await house.fetch("update lanes set next_due = now() - interval '25 hours'")
    assert await house.delivery.note_overdue() == 1
    incident = (await house.incidents.list_open(house.tenant.id))[0]
    details = incident.details
    assert incident.kind == "crm_sync_failure" and "'primary' is paused since 2" in incident.title
    assert incident.title.endswith("by operator:ada")
    assert details["is_paused"] and details["paused_by"] == "operator:ada"
    assert details["pause_reason"] == "The CRM is being moved." and details["paused_at"]
    assert "crmbridge connections resume acme primary" in details["fix"]
    assert "/api/tenants/acme/connections/primary/resume" in details["fix"]
    assert "credential" not in details["fix"]

    # Resumed, and still behind: now it is the CRM. Then it catches up.
    await routing.resume(house.tenant, "primary", actor="operator:ada")
    await house.fetch("update lanes set next_due = now() - interval '25 hours'")
    await house.delivery.note_overdue()
    again = (await house.incidents.list_open(house.tenant.id))[0]
    assert again.id == incident.id and not again.details["is_paused"] and "paused" not in again.title
    await house.settle(20)
    await house.delivery.note_overdue()
    assert await house.incidents.list_open(house.tenant.id) == []


async def test_overdue_when_nobody_knows_who_paused_then_since_when_and_how_to_resume(house: House) -> None:
    await house.fetch("update connections set paused_at = '2026-11-20T10:30:00Z'")
    await house.fetch("update lanes set is_paused = true, next_due = now() - interval '25 hours'")
    await house.delivery.note_overdue()
    incident = (await house.incidents.list_open(house.tenant.id))[0]
    assert incident.title.endswith("the connection 'primary' is paused since 2026-11-20 10:30 UTC")
    assert "paused_by" not in incident.details and "resume acme primary" in incident.details["fix"]
