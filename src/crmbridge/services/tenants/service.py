"""Adding and finding tenants; making, revoking and checking API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zoneinfo
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from time import monotonic
from typing import Generic, TypeVar
from uuid import UUID

import asyncpg

from crmbridge.core.errors import Conflict, FieldError, Fix, NotFound, ValidationError
from crmbridge.core.ids import new_id
from crmbridge.core.verticals import Vertical
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditEntry, AuditLog
from crmbridge.services.tenants import store
from crmbridge.services.tenants.model import SCOPES, ApiKey, Gate, KeyRefused, Principal, Tenant

__all__ = ["TOKEN_PREFIX", "Tenants", "no_such_tenant"]

TOKEN_PREFIX = "crmb_live_"  # noqa: S105 - what a token begins with, no token
CACHE_SECONDS = 5.0
# Nothing older than that is used again, so this need only hold what is asked for in that time.
CACHED_ENTRIES = 2_000
# Which tenant a slug was, some 200 bytes each: with it, what a call needs of the tenant is read by one statement.
REMEMBERED_NAMES = 20_000
# How long a gate that was closed in another process still counts as open here. Seconds.
GATE_SECONDS = 2.0
LIST_LIMIT = 1000

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TOKEN = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{43}")
_SHOWN_CHARACTERS = len(TOKEN_PREFIX) + 4

Value = TypeVar("Value")
TenantKeyMaker = Callable[[asyncpg.Connection, UUID], Awaitable[None]]


class _Recent(Generic[Value]):
    """A bounded map whose entries are believed for a few seconds, counted from the moment when they were asked for."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._entries: OrderedDict[UUID | bytes, tuple[float, Value]] = OrderedDict()

    def get(self, key: UUID | bytes) -> Value | None:
        held = self._entries.get(key)
        return held[1] if held is not None and held[0] + self._seconds > monotonic() else None

    def put(self, key: UUID | bytes, value: Value, began: float | None = None) -> None:
        """Without ``began``, the moment when it was asked for, it is how things stand now. What is newer stays."""
        moment = monotonic() if began is None else began
        held = self._entries.get(key)
        if held is not None and held[0] > moment:
            return
        self._entries[key] = (moment, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def drop_if(self, test: Callable[[Value], bool]) -> None:
        for key in [key for key, (_, value) in self._entries.items() if test(value)]:
            del self._entries[key]


class Tenants:
    """Tenants and API keys. What was read is believed for at most ``cache_seconds`` (5), so a key revoked in another
    process still works that long; in this process it stops at once.
    """

    def __init__(
        self,
        db: Database,
        audit: AuditLog,
        vault_keys: TenantKeyMaker,
        *,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._db = db
        self._audit = audit
        self._vault_keys = vault_keys
        self._tenants: _Recent[Tenant] = _Recent(cache_seconds, CACHED_ENTRIES)
        self._principals: _Recent[Principal] = _Recent(cache_seconds, CACHED_ENTRIES)
        self._gates: _Recent[Gate] = _Recent(min(cache_seconds, GATE_SECONDS), CACHED_ENTRIES)
        self._revoked_at = 0.0
        self._ids: dict[str, UUID] = {}
        # Reads a tenant of a known id, and teaches us on the way: whoever opens connections does it for both at once.
        self.reread: Callable[[UUID], Awaitable[Tenant | None]] = self._reread

    # ------------------------------------------------------------------ tenants

    async def add(
        self,
        slug: str,
        name: str,
        vertical: Vertical | str = Vertical.GENERAL,
        region: str = "",
        time_zone: str = "UTC",
        actor: str = "system",
        *,
        unknown_slots: str = "refuse",
    ) -> Tenant:
        """Create a tenant with its keys, in one transaction.

        Raises ValidationError naming every wrong field, or Conflict when the slug is taken.
        """
        slug, name, region, time_zone = slug.strip(), name.strip(), region.strip().upper(), time_zone.strip()
        _check_tenant(slug, name, vertical, region, time_zone, unknown_slots)
        tenant_id = new_id()
        async with self._db.tenant(tenant_id) as conn:
            tenant = await store.insert(
                conn, tenant_id, slug, name, Vertical(vertical).value, region, time_zone, unknown_slots
            )
            if tenant is None:
                raise Conflict(
                    f"There is a tenant with the slug {slug!r} already.",
                    fix=Fix("choose_other", "Choose another slug, or use the tenant that is there."),
                    fields=(FieldError("slug", "taken"),),
                )
            await self._vault_keys(conn, tenant_id)
            details = {
                "slug": slug,
                "vertical": tenant.vertical.value,
                "region": region,
                "time_zone": time_zone,
            }
            await self._audit.write(
                conn,
                AuditEntry(tenant_id, actor, "tenant.created", subject_id=str(tenant_id), details=details),
            )
        return tenant

    async def get(self, id_or_slug: UUID | str) -> Tenant:
        """By id or slug. Raises NotFound; a closed tenant is found, with ``closed_at`` set."""
        tenant_id = id_or_slug if isinstance(id_or_slug, UUID) else self._ids.get(id_or_slug)
        tenant = None
        if tenant_id is not None:
            tenant = self.known(tenant_id) or await self.reread(tenant_id)
        if isinstance(id_or_slug, str) and (tenant is None or not _is_named(tenant, id_or_slug)):
            tenant = await self._find(id_or_slug)
        if tenant is None:
            raise no_such_tenant()
        return tenant

    def known(self, tenant_id: UUID) -> Tenant | None:
        """What was read of it within the last seconds; None when it must be read."""
        return self._tenants.get(tenant_id)

    def learn(self, tenant: Tenant, gate: Gate, began: float) -> None:
        """Both as they were read by a statement that was sent at ``began`` (monotonic)."""
        self._tenants.put(tenant.id, tenant, began)
        self._gates.put(tenant.id, gate, began)

    async def _reread(self, tenant_id: UUID) -> Tenant | None:
        began = monotonic()
        tenant = await self._db.peek(lambda conn: store.select(conn, tenant_id))
        if tenant is not None:
            self._tenants.put(tenant_id, tenant, began)
        return tenant

    async def _find(self, text: str) -> Tenant | None:
        """By an id or a slug of which nothing is remembered."""
        key, began, tenant = _as_uuid(text), monotonic(), None
        if isinstance(key, UUID):
            tenant = await self._db.peek(lambda conn: store.select(conn, key))
        # A slug may look like an id.
        if tenant is None and _SLUG.fullmatch(text):
            tenant = await self._db.peek(lambda conn: store.select_by_slug(conn, text))
        if tenant is not None:
            self._tenants.put(tenant.id, tenant, began)
            self._remember(text, tenant.id)
        return tenant

    async def remember_names(self) -> None:
        """Which id each slug has, of 10,000 tenants at most, for a process that will be asked by slugs.

        Nobody relies on it: whatever reads a tenant by its id reads its slug too.
        """
        for slug, tenant_id in await self._db.peek(lambda conn: store.names(conn, REMEMBERED_NAMES // 2)):
            self._remember(slug, tenant_id)

    def _remember(self, text: str, tenant_id: UUID) -> None:
        if len(self._ids) >= REMEMBERED_NAMES:
            self._ids.clear()
        self._ids[text] = tenant_id

    async def list(
        self, *, after_slug: str = "", with_closed: bool = False, limit: int = LIST_LIMIT
    ) -> list[Tenant]:
        """In order of slug, at most ``limit`` (1 to 1000); the last slug is the next ``after_slug``."""
        if not 1 <= limit <= LIST_LIMIT:
            _raise([FieldError("limit", f"limit must be from 1 to {LIST_LIMIT}, got {limit}.")])
        async with self._db.system() as conn:
            return await store.select_all(conn, after_slug, with_closed, limit)

    # ------------------------------------------------------------------ the gate for health data

    async def gate(self, tenant_id: UUID) -> Gate:
        """What is recorded for this tenant; believed for two seconds."""
        held = self._gates.get(tenant_id)
        if held is None:
            began = monotonic()
            held = await self._db.alone(
                tenant_id, lambda conn, setting: store.read_gate(conn, tenant_id, setting)
            )
            self._gates.put(tenant_id, held, began)
        return held

    async def record_gate(self, tenant: Tenant, gate: Gate, actor: str) -> Gate:
        """Record the BAA and the review, or one of them; opens a gate that was closed. Names stay out of the audit log.

        Raises ValidationError for a date in the future or a text over 200 characters.
        """
        _check_gate(gate)
        async with self._db.tenant(tenant.id) as conn:
            saved = await store.save_gate(conn, tenant.id, gate, actor)
            if saved is None:
                _raise(
                    [FieldError("baa_signed_on", "baa_signed_on and reviewed_on must not be after today.")]
                )
                raise AssertionError
            await self._tell_gate(conn, tenant, saved, "gate.recorded", actor)
        self._gates.put(tenant.id, saved)
        return saved

    async def close_gate(self, tenant: Tenant, actor: str) -> Gate:
        """Shut the gate: calls stop here at once, in other processes within two seconds."""
        async with self._db.tenant(tenant.id) as conn:
            saved = await store.close_gate(conn, tenant.id, actor)
            await self._tell_gate(conn, tenant, saved, "gate.closed", actor)
        self._gates.put(tenant.id, saved)
        return saved

    async def _tell_gate(
        self, conn: asyncpg.Connection, tenant: Tenant, gate: Gate, action: str, actor: str
    ) -> None:
        details = {
            "baa_reference": gate.baa_reference,
            "baa_signed_on": gate.baa_signed_on,
            "reviewed_on": gate.reviewed_on,
            "missing": gate.missing,
            "is_open": gate.is_open,
        }
        await self._audit.write(
            conn, AuditEntry(tenant.id, actor, action, subject_id=str(tenant.id), details=details)
        )

    # ------------------------------------------------------------------ API keys

    async def create_key(
        self, tenant: Tenant | None, name: str, scopes: Sequence[str], actor: str
    ) -> tuple[ApiKey, str]:
        """A new key of a tenant, or (None) of an operator. The token, 256 random bits, is never told again.

        Raises ValidationError naming the wrong scope.
        """
        name, wanted = name.strip(), sorted(set(scopes))
        _check_key(name, wanted)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        tenant_id = tenant.id if tenant else None
        async with self._db.tenant(tenant_id) if tenant_id else self._db.system() as conn:
            key = await store.insert_key(
                conn, new_id(), tenant_id, name, token[:_SHOWN_CHARACTERS], _hash(token), wanted, actor
            )
            await self._tell(conn, key, "key.created", actor)
        return key, token

    async def list_keys(self, tenant: Tenant | None) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        tenant_id = tenant.id if tenant else None
        async with self._db.tenant(tenant_id) if tenant_id else self._db.system() as conn:
            return await store.select_keys(conn, tenant_id)

    async def revoke_key(self, tenant: Tenant | None, key_id: UUID, actor: str) -> ApiKey:
        """Revoke for good; again is no error. Raises NotFound for another tenant's key as for an unknown one."""
        tenant_id = tenant.id if tenant else None
        async with self._db.tenant(tenant_id) if tenant_id else self._db.system() as conn:
            key = await store.revoke_key(conn, key_id, tenant_id)
            if key is None:
                raise NotFound(
                    "There is no such key.", fix=Fix("check_id", "See the list of keys for its id.")
                )
            await self._tell(conn, key, "key.revoked", actor)
        self._revoked_at = monotonic()
        self._principals.drop_if(lambda principal: principal.key_id == key_id)
        return key

    async def authenticate(self, token: str) -> Principal:
        """Who holds this token. Raises KeyRefused (401), the same whether it is unknown, malformed or revoked."""
        if _TOKEN.fullmatch(token) is None:
            raise _refused()
        key_hash = _hash(token)
        principal = self._principals.get(key_hash)
        if principal is not None:
            return principal
        began = monotonic()
        found = await self._db.peek(lambda conn: store.find_key(conn, key_hash))
        if found is None or not hmac.compare_digest(found.key_hash, key_hash):
            raise _refused()
        if found.revoked_at is not None or found.closed_at is not None:
            raise _refused()
        principal = Principal(
            key_id=found.id,
            tenant_id=found.tenant_id,
            scopes=frozenset(found.scopes),
            actor=f"key:{found.id}",
        )
        if began > self._revoked_at:
            self._principals.put(key_hash, principal, began)
        if found.tenant_id is not None and found.slug is not None:
            self._remember(found.slug, found.tenant_id)
        return principal

    async def _tell(self, conn: asyncpg.Connection, key: ApiKey, action: str, actor: str) -> None:
        details = {"name": key.name, "scopes": list(key.scopes)}
        await self._audit.write(
            conn, AuditEntry(key.tenant_id, actor, action, subject_id=str(key.id), details=details)
        )


def _hash(token: str) -> bytes:
    # 256 random bits need no slow hash and no salt.
    return hashlib.sha256(token.encode()).digest()


def _refused() -> KeyRefused:
    return KeyRefused("The API key is not valid.", subcode="invalid_credentials")


def no_such_tenant() -> NotFound:
    """The answer for an id or a slug that no tenant has."""
    return NotFound("There is no such tenant.", fix=Fix("check_id", "See `crmbridge tenants`."))


def _is_named(tenant: Tenant, text: str) -> bool:
    return tenant.slug == text or tenant.id == _as_uuid(text)


def _as_uuid(id_or_slug: UUID | str) -> UUID | str:
    if isinstance(id_or_slug, str):
        try:
            return UUID(id_or_slug) if len(id_or_slug) == 36 else id_or_slug
        except ValueError:
            return id_or_slug
    return id_or_slug


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _check_tenant(
    slug: str, name: str, vertical: Vertical | str, region: str, time_zone: str, unknown_slots: str
) -> None:
    problems = []
    if _SLUG.fullmatch(slug) is None:
        problems.append(
            FieldError(
                "slug",
                "slug must be 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit (such as 'city-clinic').",
            )
        )
    if not 1 <= len(name) <= 200:
        problems.append(FieldError("name", f"name must have 1 to 200 characters, got {len(name)}."))
    if vertical not in {each.value for each in Vertical}:
        choices = ", ".join(each.value for each in Vertical)
        problems.append(
            FieldError("vertical", f"vertical must be one of {choices}; got {str(vertical)[:40]!r}.")
        )
    if re.fullmatch(r"([A-Z]{2})?", region) is None:
        problems.append(
            FieldError("region", "region must be an ISO 3166 code of two letters (such as 'AE') or empty.")
        )
    if time_zone not in _time_zones():
        problems.append(
            FieldError(
                "time_zone", f"time_zone must be an IANA name such as 'Asia/Dubai'; got {time_zone[:40]!r}."
            )
        )
    if unknown_slots not in ("refuse", "note"):
        problems.append(FieldError("unknown_slots", "unknown_slots must be 'refuse' or 'note'."))
    _raise(problems)


def _check_gate(gate: Gate) -> None:
    texts = {
        "baa_reference": gate.baa_reference,
        "baa_signatory": gate.baa_signatory,
        "reviewer": gate.reviewer,
    }
    _raise(
        [
            FieldError(name, f"{name} must be one line of at most 200 characters.")
            for name, text in texts.items()
            if len(text) > 200 or not text.isprintable()
        ]
    )


def _check_key(name: str, scopes: Sequence[str]) -> None:
    problems = []
    if not 1 <= len(name) <= 200:
        problems.append(FieldError("name", f"name must have 1 to 200 characters, got {len(name)}."))
    unknown = [scope[:40] for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        what = f"unknown: {', '.join(unknown)}" if unknown else "none given"
        problems.append(FieldError("scopes", f"scopes must be some of {', '.join(SCOPES)}; {what}."))
    _raise(problems)


def _raise(problems: Sequence[FieldError]) -> None:
    if problems:
        raise ValidationError(
            " ".join(problem.message for problem in problems),
            fields=tuple(problems),
            fix=Fix("correct_fields", "Correct the named fields and try again."),
        )
