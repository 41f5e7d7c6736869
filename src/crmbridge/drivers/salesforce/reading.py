"""Reader: one record by id, queries, pages of lists and searches, look-ups by e-mail and phone.

Pages: REST API Developer Guide, "Query", "Composite"; read 2026-11-22. Queries travel in the body of a composite
request: a query in a URL would put persons into logs, and URLs end at 16,384 bytes. SOQL sees its own commits at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import msgspec

from crmbridge.core.errors import UnexpectedResponse, ValidationError
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Filter, Object, Page, Record, Write
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.salesforce.messages import row_error
from crmbridge.drivers.salesforce.natives import DATA, NATIVES, Native, refused, same_record
from crmbridge.drivers.salesforce.soql import SOQL, AllOf, AnyOf, Compare, In, Kind, Like, Select, all_of
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.fieldmap import get_path, load_fields
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import country_and_national, to_e164
from crmbridge.toolkit.queries import equal, older_than

__all__ = ["Reader", "comparable", "mapped_names"]

MOST_ROWS = 200
MOST_PAGES = 5
_NEXT = re.compile(r"/services/data/v\d{1,3}\.0/query(?:All)?/[A-Za-z0-9-]{1,100}")
_ID = r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?"
_BY_TIME = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{3}})?Z)\|({_ID})", re.ASCII)
_EXTENSION = re.compile(r"\s*(?:ext|x|#|;)", re.IGNORECASE)
_BY_ID = re.compile(_ID, re.ASCII)


class Reader:
    """Reads for one access."""

    def __init__(self, driver: HttpDriver) -> None:
        self.driver = driver
        self.access = driver.access

    # -- fields --------------------------------------------------------------------------------------------

    def known(self, native: Native) -> dict[str, Kind]:
        """Fields that ``prepare`` found readable, with their kinds; empty before it ran."""
        pairs = (one.partition(":") for one in self.access.facts.get(f"fields.{native.name}", "").split())
        return {name: Kind(kind or "s") for name, _, kind in pairs}

    def kind(self, native: Native, field: str) -> Kind:
        """How values of this field are written in SOQL."""
        return native.kinds.get(field) or self.known(native).get(field, Kind.TEXT)

    def names(self, native: Native) -> tuple[str, ...]:
        """The fields of lists and searches; none = all that the user may see, asked by ``FIELDS(ALL)``."""
        known = self.known(native)
        return tuple(dict.fromkeys(("Id", "SystemModstamp", *known))) if known else ()

    def equal(self, native: Native, pairs: Mapping[str, Any]) -> list[Any]:
        """One condition for each pair; an empty value is null."""
        return equal(pairs, partial(self.kind, native))

    # -- one record ----------------------------------------------------------------------------------------

    async def get(self, obj: Object, remote_id: str, operation: Operation = Operation.GET) -> Record:
        """By id, with all fields that the user may see. Raises NotFound, for deleted ones too."""
        native = NATIVES[obj]
        remote_id = same_record(native, obj, self.driver.check_id(obj, remote_id))
        request = HttpRequest(method="GET", url=f"{DATA}/sobjects/{native.name}/{remote_id}")
        tree = await self.driver.exchange_json(request, operation=operation.value)
        return self.record(obj, tree)

    def record(self, obj: Object, tree: Any) -> Record:
        """A record of Salesforce. Raises UnexpectedResponse for something that has no id."""
        remote_id = self.driver.id_text(tree.get("Id")) if isinstance(tree, dict) else ""
        if not remote_id:
            raise self.driver.unexpected(f"a {obj.value} without Id", Operation.GET, is_write=False)
        native = {name: value for name, value in tree.items() if name != "attributes" and value is not None}
        return Record(
            object=obj,
            remote_id=remote_id,
            native=native,
            updated_at=moment_text(native.get("SystemModstamp") or native.get("LastModifiedDate")),
            url=self.driver.record_url(obj, remote_id),
            is_archived=native.get("IsDeleted") is True,
        )

    # -- queries -------------------------------------------------------------------------------------------

    async def query(
        self, select: Select, operation: str, *, with_deleted: bool = False, pages: int = 1
    ) -> list[dict[str, Any]]:
        """The rows of one query. Raises UnexpectedResponse when there are more than ``pages`` pages."""
        verb = "queryAll" if with_deleted else "query"
        asked = {
            "method": "GET",
            "url": f"{DATA}/{verb}?q={quote(select.text(), safe='')}",
            "referenceId": "rows",
        }
        request = HttpRequest(method="POST", url=f"{DATA}/composite", json={"compositeRequest": [asked]})
        response = await self.driver.exchange(request, operation=operation)
        tree = self._inner(request, response, operation)
        rows = self._rows(tree, operation)
        for _ in range(pages - 1):
            following = tree.get("nextRecordsUrl")
            if tree.get("done") is not False or not isinstance(following, str):
                break
            if not _NEXT.fullmatch(following):
                raise self._odd("a next page at another address", operation)
            tree = await self.driver.exchange_json(
                HttpRequest(method="GET", url=following), operation=operation
            )
            rows += self._rows(tree, operation)
        if tree.get("done") is False and pages > 1:
            raise self._odd("more pages than are read", operation)
        return rows

    def _inner(self, request: HttpRequest, response: HttpResponse, operation: str) -> Any:
        """The body of the one answer inside a composite answer."""
        tree = self.driver.tree_of(response, operation=operation)
        answers = tree.get("compositeResponse") if isinstance(tree, dict) else None
        first = answers[0] if isinstance(answers, list) and answers else None
        status = first.get("httpStatusCode") if isinstance(first, dict) else None
        if not isinstance(first, dict) or not isinstance(status, int):
            raise self._odd("something that is no composite answer", operation)
        if status >= 400:
            hide = self.driver.redactor_for(request)
            raise row_error(first.get("body"), operation=operation, hide=hide, response=response)
        return first.get("body")

    def _rows(self, tree: Any, operation: str) -> list[dict[str, Any]]:
        rows = tree.get("records") if isinstance(tree, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._odd("something that is no list of records", operation)
        return list(rows)

    @staticmethod
    def _odd(what: str, operation: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            f"Salesforce answered {what}.",
            provider="salesforce",
            operation=operation,
            outcome=Outcome.NOT_APPLIED,
            retry_safe=True,
        )

    # -- pages ---------------------------------------------------------------------------------------------

    async def recent(self, obj: Object, since: str, cursor: str, limit: int) -> Page:
        """Newest change first. A cursor is ``<SystemModstamp>|<id>`` of the last record: no offset that shifts."""
        native = NATIVES[obj]
        conditions: list[Any] = []
        if since:
            conditions.append(Compare("SystemModstamp", ">=", SOQL.moment(since), Kind.DATETIME))
        if cursor:
            found = _BY_TIME.fullmatch(cursor)
            if found is None:
                raise _bad_cursor()
            conditions.append(older_than("SystemModstamp", found[1], "Id", found[2]))
        size = max(1, min(limit, MOST_ROWS))
        rows = await self._page(native, conditions, ("SystemModstamp", "Id"), size, "list")
        records = [self.record(obj, row) for row in rows]
        last = _stamp(rows[-1].get("SystemModstamp")) if len(rows) == size else ""
        return Page(records=records, next_cursor=f"{last}|{records[-1].remote_id}" if last else "")

    async def search(self, obj: Object, filter: Filter, cursor: str) -> Page:
        """Equal fields and free text in names, numbers and subjects; newest id first."""
        native = NATIVES[obj]
        conditions = self.equal(native, filter.equals)
        if filter.text:
            conditions.append(AnyOf(tuple(Like(name, ("", filter.text, "")) for name in native.texts)))
        if cursor:
            if not _BY_ID.fullmatch(cursor):
                raise _bad_cursor()
            conditions.append(Compare("Id", "<", cursor))
        size = max(1, min(filter.limit, MOST_ROWS))
        rows = await self._page(native, conditions, ("Id",), size, "search")
        records = [self.record(obj, row) for row in rows]
        return Page(records=records, next_cursor=records[-1].remote_id if len(rows) == size else "")

    async def _page(
        self, native: Native, conditions: Sequence[Any], newest_by: tuple[str, ...], size: int, operation: str
    ) -> list[dict[str, Any]]:
        select = Select(
            sobject=native.name,
            fields=self.names(native),
            where=all_of(conditions),
            newest_by=newest_by,
            limit=size,
        )
        try:
            return await self.query(select, operation)
        except ValidationError as error:  # a field that prepare saw was hidden or deleted since
            if error.provider_facts.get("provider_code") != "INVALID_FIELD" or not select.fields:
                raise
        return await self.query(msgspec.structs.replace(select, fields=()), operation)

    # -- persons and matches -------------------------------------------------------------------------------

    async def customers(self, *, email: str = "", phone: str = "") -> list[Record]:
        """Contacts with this e-mail or phone, those with both first. Phones stand as somebody typed them: they are
        found by their digits in order, with anything between, and then compared."""
        native = NATIVES[Object.CUSTOMER]
        conditions: list[Any] = [Compare("Email", "=", email)] if email else []
        national = country_and_national(phone)[1] or re.sub(r"\D", "", phone)
        if national:
            conditions += [Like(name, ("", *national, "")) for name in ("Phone", "MobilePhone")]
        if not conditions:
            return []
        rows = await self._page(native, [AnyOf(tuple(conditions))], ("Id",), MOST_ROWS, "lookup")
        found = [self.record(Object.CUSTOMER, row) for row in rows]
        hits = {
            one.remote_id: int(
                bool(email) and str(one.native.get("Email", "")).casefold() == email.casefold()
            )
            + int(bool(national) and _has_phone(one, phone, national))
            for one in found
        }
        return sorted((one for one in found if hits[one.remote_id]), key=lambda one: -hits[one.remote_id])[
            :20
        ]

    async def matching(self, native: Native, writes: Mapping[int, Write]) -> dict[int, list[str]]:
        """The ids that each upsert's match fits. All matches have the same fields. Raises ValidationError."""
        paths = next(iter(writes.values())).match
        if not paths or any(value in (None, "") for one in writes.values() for value in one.match.values()):
            raise refused("match", "needs at least one slot, and each with a value")
        if len(paths) == 1:
            (path,) = paths
            values = dict.fromkeys(one.match[path] for one in writes.values())
            where: Any = In(path, tuple(values), self.kind(native, path))
        else:
            where = AnyOf(tuple(AllOf(tuple(self.equal(native, one.match))) for one in writes.values()))
        select = Select(sobject=native.name, fields=("Id", *paths), where=where, limit=2_000)
        kinds = {path: self.kind(native, path) for path in paths}
        found: dict[tuple[Any, ...], list[str]] = {}
        for row in await self.query(select, "upsert", pages=MOST_PAGES):
            if row_id := self.driver.id_text(row.get("Id")):
                key = tuple(comparable(kind, get_path(row, path)) for path, kind in kinds.items())
                found.setdefault(key, []).append(row_id)
        return {
            place: found.get(tuple(comparable(kind, one.match[path]) for path, kind in kinds.items()), [])
            for place, one in writes.items()
        }


def comparable(kind: Kind, value: Any) -> Any:
    """A value so that those are equal which Salesforce calls equal: numbers by amount, times by instant, texts without
    their case and outer blanks; null, an empty text and false are one."""
    if value in (None, "", False):
        return ""
    if kind is Kind.NUMBER:
        try:
            return Decimal(str(value))
        except InvalidOperation:
            return str(value)
    if kind is Kind.DATETIME:
        return moment_text(value) or str(value)
    return str(value)[:10] if kind is Kind.DATE else str(value).strip().casefold()


@lru_cache(maxsize=32)
def mapped_names(driver: Any, obj: Object) -> tuple[str, ...]:
    """Fields that the default maps read for this object."""
    table = load_fields(driver)
    wanted = [
        rule.path
        for rules_of in (table.general, *table.packs.values())
        for rule in rules_of.get(obj, ())
        if rule.direction != "write" and not rule.native
    ]
    native = NATIVES[obj]
    more = ("MobilePhone",) if native.is_person else ()
    return tuple(dict.fromkeys([*wanted, *native.links.values(), *more, *native.kinds]))


def _has_phone(record: Record, phone: str, national: str) -> bool:
    """Whether one of the contact's numbers is really this one, or the same without a country code."""
    for name in ("Phone", "MobilePhone"):
        said = str(record.native.get(name, ""))
        number = re.sub(r"\D", "", _EXTENSION.split(said)[0], flags=re.ASCII).lstrip("0")
        if said and (to_e164(said) == phone or number in (national.lstrip("0"), phone.lstrip("+"))):
            return True
    return False


def _stamp(value: Any) -> str:
    """SystemModstamp as a cursor and SOQL have it; its milliseconds are kept where there are any."""
    try:
        when = datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return ""
    part = f".{when.microsecond // 1000:03d}" if when.microsecond else ""
    return when.strftime("%Y-%m-%dT%H:%M:%S") + part + "Z"


def _bad_cursor() -> ValidationError:
    return refused("cursor", "is not a cursor of this list; start again without one")
