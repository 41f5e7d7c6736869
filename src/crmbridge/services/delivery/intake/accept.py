"""Acceptance: everything about a write that can be said before its transaction. Bad input is refused here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from crmbridge.core.errors import CrmError, FieldError, Fix, Unavailable, Unsupported, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.connection import Connection
from crmbridge.services.connections.model import Intent
from crmbridge.services.connections.routing import Route
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery.addressing import Kept, addressed, records_named, twin_key
from crmbridge.services.delivery.intake import store
from crmbridge.services.delivery.intake.store import PreparedTarget, PreparedWrite, Twin
from crmbridge.services.delivery.intake.subjects import fingerprint, link_hash, order_key, subjects_of
from crmbridge.services.delivery.lane.outcome import describe_error
from crmbridge.services.delivery.model import Accepted, TargetState, TargetView
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.keys import TenantKeys, write_aad
from crmbridge.services.vault.service import Vault

__all__ = ["Acceptance", "Origin", "fresh"]

MAX_KEY_CHARACTERS = 200
_LINK_KINDS = ("write_id", "remote_id", "email", "phone")
_NEEDS_KEY = (Operation.CREATE, Operation.UPSERT)
_NOT_TAKEN = "was not taken by this connection; redrive it first, then this one"
# Nothing comes of these without a person.
_ENDED = (TargetState.DEAD_LETTER, TargetState.DISCARDED, TargetState.CANCELLED)


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, through what, and how urgent it is: ``priority`` 0 is live, 1 an import."""

    actor: str
    source: str = "api"
    priority: int = 0
    import_id: UUID | None = None
    request_id: str = ""


class Acceptance:
    """Checks an intent against key, support, slots and mapping; hashes and seals it."""

    def __init__(self, db: Database, vault: Vault, connections: Connections) -> None:
        self._db = db
        self._vault = vault
        self._connections = connections

    async def prepare(
        self,
        tenant: Tenant,
        intent: Intent,
        key: str,
        origin: Origin,
        connections: Sequence[str] = (),
    ) -> PreparedWrite:
        """Everything but the transaction. Raises ValidationError (each field named), Unsupported, NotConfigured.

        Without ``connections`` the routes say where it goes: the primary decides whether the write is accepted, and
        what another one can never take is a dead letter from the start. Each connection named must take it.
        """
        check_key(intent, key)
        routes: Sequence[Route] = ()
        if not connections:
            routes = await self._connections.routing.of(tenant.id, intent.object)
        names = connections or (routes[0].connection,)
        opened = [(name, await self._connections.open(tenant.id, name=name)) for name in names]
        keys = await self._vault.keys(tenant.id)
        write_id = new_id()
        targets = [await self._target(tenant, keys, connection, name, intent) for name, connection in opened]
        kept = intent
        if len(routes) > 1:
            kept = Kept(**{name: getattr(intent, name) for name in Intent.__struct_fields__})
            kept.home = str(routes[0].connection_id)
            targets += [await self._also(tenant, keys, route, kept) for route in routes[1:]]
        return PreparedWrite(
            write_id=write_id,
            tenant_id=tenant.id,
            key_hash=keys.hash("idempotency_key", key) if key else None,
            fingerprint=fingerprint(keys, intent, connections),
            object=intent.object.value,
            operation=intent.operation.value,
            sealed=keys.seal(msgspec.json.encode(kept), write_aad(tenant.id, write_id)),
            priority=origin.priority,
            source=origin.source,
            import_id=origin.import_id,
            actor=origin.actor,
            request_id=origin.request_id,
            targets=targets,
            subjects=subjects_of(keys, intent, vertical=tenant.vertical, region=tenant.region),
        )

    async def _target(
        self, tenant: Tenant, keys: TenantKeys, connection: Connection, name: str, intent: Intent
    ) -> PreparedTarget:
        connection.check(intent.object, intent.operation)
        check_links(connection, intent)
        target_id = new_id()
        write = connection.map(intent, target_id=target_id, links={})
        depends_on, linked = await self._dependencies(tenant, keys, connection.id, intent)
        _require(linked)
        return PreparedTarget(
            id=target_id,
            connection_id=connection.id,
            connection=name,
            order_key=order_key(keys, intent, region=tenant.region),
            depends_on=depends_on,
            write=None if intent.links else write,
        )

    async def _also(self, tenant: Tenant, keys: TenantKeys, route: Route, kept: Kept) -> PreparedTarget:
        """The target of a connection that is not the primary. Nothing that is wrong with it refuses the write."""
        target = PreparedTarget(
            id=new_id(),
            connection_id=route.connection_id,
            connection=route.connection,
            order_key=order_key(keys, kept, region=tenant.region),
        )
        try:
            twins = await self._twins(tenant, route, kept)
            depends_on, linked = await self._dependencies(tenant, keys, route.connection_id, kept)
            target.depends_on = sorted({*depends_on, *(twin.write_id for twin in twins)})
            connection = await self._openable(tenant, route)
            if connection is None:
                return target
            connection.check(kept.object, kept.operation)
            _require(linked, _ENDED, _NOT_TAKEN)
            if any(twin.state in _ENDED for twin in twins):
                problem = FieldError("remote_id", f"the write that made the record {_NOT_TAKEN}")
                raise _invalid("The record is not there yet.", [problem])
            if all(twin.state is TargetState.APPLIED for twin in twins):
                known = {str(twin.write_id): twin.remote_id for twin in twins}
                own = addressed(kept, route.connection_id, known)
                target.order_key = order_key(keys, own, region=tenant.region)
                check_links(connection, own)
                connection.map(own, target_id=target.id, links={})
        except (Unsupported, ValidationError) as error:
            target.error = describe_error(error)
        return target

    async def _openable(self, tenant: Tenant, route: Route) -> Connection | None:
        """None: its target waits (for a credential, say), and whoever drains the lane finds out what for."""
        try:
            return await self._connections.open(tenant.id, name=route.connection)
        except Unavailable:
            raise
        except CrmError:
            return None

    async def _twins(self, tenant: Tenant, route: Route, kept: Kept) -> list[Twin]:
        """The records that an intent names by home's ids, as this connection has them. What is not there is no twin."""
        named = records_named(kept)
        if not named:
            return []
        async with self._db.tenant(tenant.id) as conn:
            found = await store.twins(conn, UUID(kept.home), route.connection_id, named)
        kept.twins[str(route.connection_id)] = {
            twin_key(*record): str(twin.write_id) for record, twin in found.items()
        }
        return list(found.values())

    async def _dependencies(
        self, tenant: Tenant, keys: TenantKeys, connection_id: UUID, intent: Intent
    ) -> tuple[list[UUID], dict[str, TargetState | None]]:
        """Writes that must be applied first: those linked by id, and creates under way of a person linked by name.

        Also how each write linked by id stands on this connection, by the link's name; None when it is not there.
        """
        named = {name: UUID(link["write_id"]) for name, link in intent.links.items() if link.get("write_id")}
        persons = [
            (name, kind, link[kind])
            for name, link in intent.links.items()
            for kind in ("email", "phone")
            if link.get(kind)
        ]
        if not named and not persons:
            return [], {}
        found = set(named.values())
        async with self._db.tenant(tenant.id) as conn:
            there = await store.on_connection(conn, connection_id, list(named.values())) if named else {}
            for name, kind, text in persons:
                digest = link_hash(keys, kind, text, tenant.region)
                found.update(await store.pending_about(conn, tenant.id, digest, connection_id, name))
        return sorted(found), {name: there.get(write_id) for name, write_id in named.items()}


def _require(
    linked: Mapping[str, TargetState | None], ended: Collection[TargetState] = (), why_ended: str = ""
) -> None:
    """Raises ValidationError for a linked write that is not there, or stands in one of ``ended``."""
    errors = [
        FieldError(
            f"links.{name}.write_id",
            "is no write of this tenant on this connection" if state is None else why_ended,
        )
        for name, state in linked.items()
        if state is None or state in ended
    ]
    if errors:
        raise _invalid("A linked write is not there.", errors)


def check_key(intent: Intent, key: str) -> None:
    """Raises ValidationError for a write without a usable idempotency key."""
    problem = ""
    if not intent.operation.is_write:
        raise _invalid(
            "This is not a write.",
            [
                FieldError(
                    "operation",
                    f"{intent.operation.value} changes nothing; use create, update, upsert or delete",
                )
            ],
        )
    if not key and intent.operation in _NEEDS_KEY:
        problem = f"is required for {intent.operation.value}: 1 to {MAX_KEY_CHARACTERS} characters, new for each write"
    elif len(key) > MAX_KEY_CHARACTERS:
        problem = f"has {len(key)} characters; at most {MAX_KEY_CHARACTERS} are allowed"
    if problem:
        raise ValidationError(
            "The idempotency_key is missing or too long.",
            operation=intent.operation.value,
            fields=(FieldError("idempotency_key", problem),),
            fix=Fix(
                "send_key",
                "Send the header Idempotency-Key (or idempotency_key in the body), the same one when you repeat.",
            ),
        )


def check_links(connection: Connection, intent: Intent) -> None:
    """Raises ValidationError for a link that names nothing, more than one thing, or what cannot be looked up."""
    errors = []
    for name, link in intent.links.items():
        kinds = [kind for kind in _LINK_KINDS if link.get(kind)]
        field = f"links.{name}"
        if len(kinds) != 1 or set(link) - set(_LINK_KINDS):
            errors.append(FieldError(field, f"names one of {', '.join(_LINK_KINDS)}"))
        elif kinds[0] == "write_id" and not _is_id(link["write_id"]):
            errors.append(FieldError(f"{field}.write_id", "is not a write id"))
        elif kinds[0] == "remote_id" and not re.fullmatch(connection.manifest.strict_ids, link["remote_id"]):
            errors.append(
                FieldError(f"{field}.remote_id", f"is not an id of {connection.manifest.display_name}")
            )
        elif kinds[0] in ("email", "phone") and (
            name != Object.CUSTOMER.value
            or not connection.supports(Object.CUSTOMER, Operation.LOOKUP).is_usable
        ):
            errors.append(
                FieldError(f"{field}.{kinds[0]}", "cannot be looked up here; use remote_id or write_id")
            )
    if errors:
        raise _invalid("The links cannot be followed.", errors)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _invalid(message: str, errors: list[FieldError]) -> ValidationError:
    return ValidationError(message, fields=tuple(errors))


def fresh(item: PreparedWrite) -> Accepted:
    """The answer to an accept whose write is new, as it stands after its commit."""
    return Accepted(
        write_id=item.write_id,
        targets=[
            TargetView(
                id=target.id,
                connection_id=target.connection_id,
                connection=target.connection,
                state=TargetState.DEAD_LETTER if target.error else TargetState.ACCEPTED,
                outcome=Outcome.NOT_APPLIED.value if target.error else None,
                error=target.error,
            )
            for target in item.targets
        ],
    )
