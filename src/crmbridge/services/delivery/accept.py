"""Acceptance: everything about a write that can be said before its transaction. Bad input is refused here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

import msgspec

from crmbridge.core.errors import FieldError, Fix, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.db.pool import Database
from crmbridge.services.connections.connection import Connection
from crmbridge.services.connections.model import Intent
from crmbridge.services.connections.service import Connections
from crmbridge.services.delivery import store
from crmbridge.services.delivery.store import PreparedTarget, PreparedWrite
from crmbridge.services.delivery.subjects import fingerprint, link_hash, order_key, subjects_of
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.keys import TenantKeys, write_aad
from crmbridge.services.vault.service import Vault

__all__ = ["Acceptance", "Origin"]

MAX_KEY_CHARACTERS = 200
_LINK_KINDS = ("write_id", "remote_id", "email", "phone")
_NEEDS_KEY = (Operation.CREATE, Operation.UPSERT)


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
        connections: Sequence[str] = ("primary",),
    ) -> PreparedWrite:
        """Everything but the transaction. Raises ValidationError (each field named), Unsupported, NotConfigured."""
        check_key(intent, key)
        opened = [await self._connections.open(tenant.id, name=name) for name in connections]
        keys = await self._vault.keys(tenant.id)
        write_id = new_id()
        targets = [await self._target(tenant, keys, connection, intent) for connection in opened]
        return PreparedWrite(
            write_id=write_id,
            tenant_id=tenant.id,
            key_hash=keys.hash("idempotency_key", key) if key else None,
            fingerprint=fingerprint(keys, intent),
            object=intent.object.value,
            operation=intent.operation.value,
            sealed=keys.seal(msgspec.json.encode(intent), write_aad(tenant.id, write_id)),
            priority=origin.priority,
            source=origin.source,
            import_id=origin.import_id,
            actor=origin.actor,
            request_id=origin.request_id,
            targets=targets,
            subjects=subjects_of(keys, intent, vertical=tenant.vertical, region=tenant.region),
        )

    async def _target(
        self, tenant: Tenant, keys: TenantKeys, connection: Connection, intent: Intent
    ) -> PreparedTarget:
        connection.check(intent.object, intent.operation)
        check_links(connection, intent)
        target_id = new_id()
        connection.map(intent, target_id=target_id, links={})
        return PreparedTarget(
            id=target_id,
            connection_id=connection.id,
            order_key=order_key(keys, intent, region=tenant.region),
            depends_on=await self._dependencies(tenant, keys, connection, intent),
        )

    async def _dependencies(
        self, tenant: Tenant, keys: TenantKeys, connection: Connection, intent: Intent
    ) -> list[UUID]:
        """Writes that must be applied first: those linked by id, and creates under way of a person linked by name."""
        if not intent.links:
            return []
        named = {name: UUID(link["write_id"]) for name, link in intent.links.items() if link.get("write_id")}
        persons = [
            (name, kind, link[kind])
            for name, link in intent.links.items()
            for kind in ("email", "phone")
            if link.get(kind)
        ]
        if not named and not persons:
            return []
        found = set(named.values())
        async with self._db.tenant(tenant.id) as conn:
            there = await store.on_connection(conn, connection.id, list(named.values())) if named else set()
            for name, kind, text in persons:
                digest = link_hash(keys, kind, text, tenant.region)
                found.update(await store.pending_about(conn, tenant.id, digest, connection.id, name))
        missing = [
            FieldError(f"links.{name}.write_id", "is no write of this tenant on this connection")
            for name, write_id in named.items()
            if write_id not in there
        ]
        if missing:
            raise _invalid("A linked write is not there.", missing)
        return sorted(found)


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
