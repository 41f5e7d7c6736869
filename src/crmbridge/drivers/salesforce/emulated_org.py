"""The state of an emulated org: objects, fields, switches, records as they are shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.salesforce.emulated_bulk import Jobs
from crmbridge.drivers.salesforce.emulated_oauth import OAuthPages
from crmbridge.drivers.salesforce.emulated_records import RecordRefused, Records, stamp
from crmbridge.drivers.salesforce.emulated_schema import PREFIXES, STOCK, custom_field, fields_of, id_for
from crmbridge.emulation import Refusal, Row, Table

__all__ = ["BASE", "Org"]

BASE = "/services/data/{version}"
MARK = "crmbridge_mark__c"
_STATUSES = {
    "NOT_FOUND": 404,
    "ENTITY_IS_DELETED": 404,
    "INVALID_SESSION_ID": 401,
    "REQUEST_LIMIT_EXCEEDED": 403,
    "INSUFFICIENT_ACCESS_OR_READONLY": 403,
}


class Org(OAuthPages):
    """What every part of the emulator uses. Its switches are described in ``emulator``."""

    def seed(self) -> None:
        super().seed()
        self.quotas = []
        self.daily_limit, self.daily_used = 100_000, 0
        self.hidden: set[tuple[str, str]] = set()
        self.denied: set[str] = set()
        self.locked: dict[str, int] = {}
        self.validation_rules: list[tuple[str, Callable[[dict[str, Any]], bool], str]] = []
        self.duplicate_rule = ""
        self.misspells = self.spoils_requests = True
        self.governor_rows = 0
        self.may_hard_delete = False
        self.not_in_bulk = {"Note"}
        self.bulk_looks = 2
        self.stops_bulk_after: int | None = None
        self.fields = {kind: fields_of(kind) for kind in STOCK}
        self.indexed: dict[str, list[str]] = {kind: [] for kind in STOCK}
        self.cursors: dict[str, tuple[float, str, list[dict[str, Any]]]] = {}
        self.records = Records(self)
        self.jobs = Jobs(self)
        for kind in ("Contact", "Lead", "Opportunity", "Case", "Event", "Task"):
            self.add_field(kind, custom_field(MARK, length=80, externalId=True, unique=True, idLookup=True))

    def add_field(self, kind: str, field: dict[str, Any]) -> None:
        """A field as an administrator makes it; with ``unique`` its values are kept apart."""
        self.fields[kind][field["name"]] = field
        if field["unique"]:
            self.indexed[kind].append(field["name"])
            self.table(kind).index(field["name"], lambda value: str(value).casefold())

    def kind_of(self, record_id: str) -> str:
        """The object whose ids begin so. Raises RecordRefused."""
        for kind, prefix in PREFIXES.items():
            if record_id.startswith(prefix):
                return kind
        raise RecordRefused("MALFORMED_ID", "bad id")

    def remove_field(self, kind: str, name: str) -> None:
        """The field is gone."""
        self.fields[kind].pop(name, None)
        self.indexed[kind] = [one for one in self.indexed[kind] if one != name]

    def table(self, kind: str) -> Table[str]:
        """The rows of one object. Raises Refusal."""
        if kind not in PREFIXES:
            raise Refusal(self.refused("NOT_FOUND", "The requested resource does not exist"))
        return self.store.named(kind, lambda count: id_for(kind, count))

    def visible(self, kind: str) -> dict[str, dict[str, Any]]:
        """The fields that the user may see. Raises Refusal."""
        self.table(kind)
        if not self.hidden:
            return self.fields[kind]
        return {name: one for name, one in self.fields[kind].items() if (kind, name) not in self.hidden}

    def refused(self, code: str, message: str, status: int = 0, **more: Any) -> HttpResponse:
        """Salesforce's error body: an array."""
        return self.answer(
            [{"message": message, "errorCode": code, **more}], status or _STATUSES.get(code, 400)
        )

    def refused_record(self, error: RecordRefused) -> Refusal:
        """The answer to one refused record."""
        return Refusal(self.answer([error.in_body()], _STATUSES.get(error.code, 400)))

    def shown(self, kind: str, row: Row[str], names: list[str], version: str) -> dict[str, Any]:
        """A record as it is answered; fields without a value are null."""
        url = f"/services/data/{version}/sobjects/{kind}/{row.id}"
        tree: dict[str, Any] = {"attributes": {"type": kind, "url": url}}
        for name in names:
            if "." not in name:
                tree[self._spelt(kind, name)] = self._read(kind, row, name)
        return tree

    def _spelt(self, kind: str, name: str) -> str:
        if name in self.fields[kind]:
            return name
        return next((one for one in self.fields[kind] if one.lower() == name.lower()), name)

    def _read(self, kind: str, row: Row[str], name: str) -> Any:
        first, _, rest = name.partition(".")
        if rest:
            spec = self.fields[kind].get(f"{first}Id")
            other = row.fields.get(f"{first}Id") if spec else None
            for target in spec["referenceTo"] if spec and other else ():
                if target in PREFIXES and (found := self.table(target).get(str(other))) is not None:
                    return self._read(target, found, rest)
            return None
        name = self._spelt(kind, name)
        kept: dict[str, Any] = {"Id": row.id, "IsDeleted": row.is_archived, "CreatedById": self.user_id}
        kept |= {"CreatedDate": row.created_at, "LastModifiedById": self.user_id}
        kept |= dict.fromkeys(("LastModifiedDate", "SystemModstamp"), row.updated_at)
        value = kept.get(name, row.fields.get(name))
        return stamp(value) if isinstance(value, datetime) else value
