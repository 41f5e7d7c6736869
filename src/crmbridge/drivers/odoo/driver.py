"""Odoo (CRM, Contacts, Calendar), own servers and odoo.com.

JSON-2 API on servers from 19.0, JSON-RPC before. Creates and updates go through ``load``, the method behind
Odoo's CSV import: with an external id of our own it is a true upsert, so that a repeated create cannot double.
Pages: https://www.odoo.com/documentation/19.0/developer/reference/external_api.html,
https://www.odoo.com/documentation/18.0/developer/reference/external_rpc_api.html (read 2026-11-22); behaviour
observed on an Odoo 19.0 server, see NOTES.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from crmbridge.core.driver import Access, CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    NotConfigured,
    NotFound,
    ValidationError,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Budget,
    BudgetKind,
    Manifest,
    Verification,
)
from crmbridge.core.operations import DeleteLevel, Operation
from crmbridge.core.records import FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.drivers.odoo import domains, recency, schema
from crmbridge.drivers.odoo.credential import SETTINGS
from crmbridge.drivers.odoo.loading import MOST_ROWS
from crmbridge.drivers.odoo.objects import OBJECTS
from crmbridge.drivers.odoo.reading import Reader
from crmbridge.drivers.odoo.rpc import OdooRpc
from crmbridge.drivers.odoo.writing import Writer

__all__ = ["MANIFEST", "Odoo"]

MANIFEST = Manifest(
    slug="odoo",
    display_name="Odoo",
    api_version="JSON-2 (19.0), JSON-RPC (14.0 to 18.0)",
    pages=(
        "https://www.odoo.com/documentation/19.0/developer/reference/external_api.html",
        "https://www.odoo.com/documentation/18.0/developer/reference/external_rpc_api.html",
    ),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.BEARER, secret="api_key", user="username"),  # noqa: S106 - the name of a setting
    settings=SETTINGS,
    base_url="{url}",
    objects=OBJECTS,
    budgets=(
        Budget(
            kind=BudgetKind.CONCURRENT,
            limit=4,
            source="observed: 2 workers reset 4 of 40 simultaneous connections (accept queue of 8 each)",
        ),
    ),
    verification=Verification.LIVE,
    verification_note="Odoo 19.0 server; JSON-RPC of 14.0 by emulator, the same calls on 19.0 live",
    timeout_seconds=120,
    strict_ids=r"[1-9][0-9]{0,9}",
    setup_help="In Odoo, sign in as the user, open Preferences > Security and make an API key.",
)

APPS = {"res.partner": "Contacts", "crm.lead": "CRM", "calendar.event": "Calendar"}
RIGHTS = ("read", "create", "write", "unlink")
KEY_WARNING_DAYS = 14


class Odoo(CrmDriver):
    """One database as one user."""

    MANIFEST: ClassVar[Manifest] = MANIFEST

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.rpc = OdooRpc(access)
        self.reader = Reader(self.rpc, access, self.manifest)
        self.writer = Writer(self.reader, access)

    def _usable(self, obj: Object, operation: Operation) -> None:
        if not self.manifest.supports(obj, operation).is_usable:
            raise refuse(self.manifest, obj, operation)

    async def test_connection(self) -> Proof:
        """Version, key, database; rights per model; the fields to read; keys about to end."""
        uid = await self.rpc.sign_in()
        missing = await self._missing_rights()
        closed = {
            right.partition(":")[0]
            for right in missing
            if not right.endswith((" create", " write", " unlink"))
        }
        models = sorted({*APPS, "mail.message"} - closed)
        schemas = [await self.reader.readable(model) for model in models]
        return Proof(
            account=f"{self.rpc.database}, user {uid}",
            facts={
                "server_version": self.rpc.version,
                "api": "json2" if self.rpc.is_json2 else "jsonrpc",
                "uid": str(uid),
                **{f"fields.{model}": " ".join(names) for model, names in zip(models, schemas, strict=True)},
            },
            missing_rights=missing,
            warnings=await self._key_warnings(),
        )

    async def _missing_rights(self) -> list[str]:
        async def missing(model: str) -> list[str]:
            try:
                return [f"{model}: {right}" for right in RIGHTS if not await self._may(model, right)]
            except NotConfigured as error:
                if error.fields:
                    raise
                return [f"{model}: the {APPS[model]} app is not installed"]

        found = await asyncio.gather(*(missing(model) for model in APPS))
        return [right for rights in found for right in rights]

    async def _may(self, model: str, right: str) -> bool:
        if self.rpc.is_json2:
            return bool(await self.rpc.call(model, "has_access", purpose="connect", operation=right))
        return bool(
            await self.rpc.call(
                model, "check_access_rights", purpose="connect", operation=right, raise_exception=False
            )
        )

    async def _key_warnings(self) -> list[str]:
        try:
            keys = await self.rpc.call(
                "res.users.apikeys", "search_read", purpose="connect", domain=[], fields=["expiration_date"]
            )
        except (AuthError, ValidationError, NotConfigured):
            return []  # closed to this user, or a version whose keys do not end
        soon = (datetime.now(UTC) + timedelta(days=KEY_WARNING_DAYS)).strftime(recency.FORMAT)
        ends = sorted(str(key["expiration_date"]) for key in keys if key.get("expiration_date"))
        if not ends or ends[0] > soon:
            return []
        return [f"An API key of this user ends on {ends[0][:10]}; make a new one and connect it before."]

    async def describe(self, obj: Object) -> list[FieldFact]:
        self._usable(obj, Operation.DESCRIBE)
        return schema.facts_of(obj, await self.reader.schema(self.manifest.objects[obj].native))

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        terms = [domains.term("phone", phone)] if phone else []
        terms += [domains.term("email", email)] if email else []
        if not terms:
            return []
        domain = ["|", *terms[0], *terms[1]] if len(terms) == 2 else terms[0]
        found = await self.reader.read(
            Object.CUSTOMER, domain, "write_date desc, id desc", 20, purpose="lookup"
        )
        address = email.strip().lower()

        def hits(record: Record) -> int:
            native = record.native
            by_phone = bool(phone) and phone in (native.get("phone_sanitized"), native.get("phone"))
            return by_phone + (bool(address) and native.get("email_normalized") == address)

        return sorted(found, key=hits, reverse=True)

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        self._usable(obj, Operation.SEARCH)
        domain = domains.matching(obj, filter.equals)
        if filter.text:
            domain += domains.text_in(self.manifest.objects[obj].native, filter.text)
        if cursor:
            domain.append(["id", "<", domains.number(cursor, "search", "cursor")])
        limit = max(1, min(filter.limit, MOST_ROWS))
        found = await self.reader.read(obj, domain, "id desc", limit + 1, purpose="search")
        more = len(found) > limit
        return Page(records=found[:limit], next_cursor=found[limit - 1].remote_id if more else "")

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        self._usable(obj, Operation.GET)
        domain = [["id", "=", domains.number(remote_id, "get")]]
        found = await self.reader.read(obj, domain, "id", 1, purpose="get", archived=True)
        if not found:
            raise NotFound("The record is not there, or no longer.", provider="odoo", operation="get")
        return found[0]

    # Archived records are listed too (a lost lead is an archived one); see recency.py for the cursor.
    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        self._usable(obj, Operation.LIST)
        domain = domains.kind_of(obj)
        if since:
            domain.append(["write_date", ">=", domains.since(since)])
        last, given = recency.parse(cursor)
        if last:
            domain += [["write_date", "<", recency.second_after(last)], ["id", "not in", sorted(given)]]
        limit = max(1, min(limit, MOST_ROWS))
        order = "write_date desc, id desc"
        found = await self.reader.read(obj, domain, order, limit + 1, purpose="list", archived=True)
        if len(found) <= limit:
            return Page(records=found)
        stamps = [(str(record.native["write_date"]), int(record.remote_id)) for record in found[:limit]]
        return Page(records=found[:limit], next_cursor=recency.cursor(last, given, stamps))

    async def create_record(self, write: Write) -> WriteResult:
        return await self._single(write)

    async def update_record(self, write: Write) -> WriteResult:
        return await self._single(write)

    async def upsert_record(self, write: Write) -> WriteResult:
        return await self._single(write)

    async def _single(self, write: Write) -> WriteResult:
        self._usable(write.object, write.operation)
        result = (await self.writer.write([write]))[0]
        if result.error is not None:
            raise result.error
        return result

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self._usable(obj, Operation.DELETE)
        return await self.writer.delete_one(obj, remote_id, Operation.DELETE)

    # Nothing but unlink will do here: an archived person is still there.
    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        self._usable(obj, Operation.ERASE)
        return await self.writer.delete_one(obj, remote_id, Operation.ERASE)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        if len(writes) < 2:
            return [await self.write_one(write) for write in writes]
        self._usable(writes[0].object, writes[0].operation)
        if writes[0].operation not in (Operation.DELETE, Operation.ERASE):
            return await self.writer.write(writes)
        done = await self.writer.delete_all(writes)
        return done if done is not None else [await self.write_one(write) for write in writes]

    async def find_written(self, write: Write) -> WriteResult:
        """Exact and without lag; all writes set absolute values, so sending one again changes nothing."""
        return await self.writer.find(write)

    def record_url(self, obj: Object, remote_id: str) -> str:
        return self.reader.record_url(obj, remote_id)

    def preview(self, write: Write) -> Any:
        """The row that ``load`` would get, with names where tags will be ids, or what ``unlink`` would."""
        self._usable(write.object, write.operation)
        model = self.manifest.objects[write.object].native
        if write.operation in (Operation.DELETE, Operation.ERASE):
            return {"model": model, "method": "unlink", "ids": [write.remote_id]}
        return {"model": model, "method": "load", "row": self.writer.planned(write)}
