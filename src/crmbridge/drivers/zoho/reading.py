"""Reader: one record by id, queries, pages of lists and searches, look-ups by e-mail and phone.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/get-records.html, .../Get-Records-through-COQL-Query.html (read
2026-11-25). Everything but notes is asked by COQL: a query travels in a body, where Zoho's search would put persons
into an address, and its index lags; COQL has no notes. Nothing found is a 204 without a body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

from crmbridge.core.errors import FieldError, NotFound, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Filter, Object, Page, Record, Write
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.zoho.coql import (
    COQL,
    MOST_VALUES,
    RESERVED,
    AllOf,
    AnyOf,
    Compare,
    In,
    Kind,
    Like,
    Select,
)
from crmbridge.drivers.zoho.natives import API, MARK, NATIVES, Native, read_values, refused
from crmbridge.drivers.zoho.schema import Known, known_fields
from crmbridge.toolkit.batches import parts
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.fieldmap import get_path, parse_fields
from crmbridge.toolkit.formats import moment_text
from crmbridge.toolkit.phones import country_and_national, to_e164
from crmbridge.toolkit.queries import equal, older_than

__all__ = ["MOST_ROWS", "Reader", "same_value"]

MOST_ROWS = 200
_MOST_PAGES = 5
_BY_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00)\|([0-9]{1,20})", re.ASCII)
_BY_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_BY_TOKEN = re.compile(r"([0-9]{1,3})\.([A-Za-z0-9_\-+/=.]{1,2000})", re.ASCII)
_PHONES, _EMAILS = ("Phone", "Mobile"), ("Email", "Secondary_Email")


class Reader:
    """Reads for one access."""

    def __init__(self, driver: HttpDriver) -> None:
        self.driver = driver
        self.access = driver.access

    # -- fields --------------------------------------------------------------------------------------------

    def known(self, native: Native) -> Mapping[str, Known]:
        """Fields that ``prepare`` saw; empty before it ran."""
        return known_fields(self.access.facts.get(f"fields.{native.name}", ""))

    def kind(self, native: Native, field: str) -> Kind:
        """How values of this field are written in COQL."""
        if field == "id":
            return Kind.TEXT
        known = self.known(native).get(field)
        return known.kind if known else native.kinds.get(field, Kind.TEXT)

    def names(self, native: Native) -> tuple[str, ...]:
        """The fields of lists and searches: mapped ones that are there, then the organisation's own; at most 50."""
        known = self.known(native)
        wanted = mapped_names(native.name)
        there = [name for name in wanted if name in known] if known else list(wanted)
        own = [
            name
            for name, one in known.items()
            if one.is_custom and name != MARK and one.kind is not Kind.OTHER and name.lower() not in RESERVED
        ]
        return tuple(dict.fromkeys(["id", "Created_Time", "Modified_Time", *there, *own]))[:50]

    def equal(self, native: Native, pairs: Mapping[str, Any]) -> list[Any]:
        """One condition for each pair; an empty value is null."""
        return equal(pairs, partial(self.kind, native))

    # -- one record ----------------------------------------------------------------------------------------

    async def get(self, obj: Object, remote_id: str, operation: Operation = Operation.GET) -> Record:
        """By id, with all fields. Raises NotFound, for deleted ones too."""
        native = NATIVES[obj]
        request = HttpRequest(method="GET", url=f"{API}/{native.name}/{self.driver.check_id(obj, remote_id)}")
        response = await self.driver.exchange(request, operation=operation.value)
        if response.status == 204:
            raise NotFound("The record is not there, or deleted.", provider="zoho", operation=operation.value)
        rows, _ = self._rows(response, operation.value)
        if len(rows) != 1:
            raise self.driver.unexpected("another number of records than one", operation, is_write=False)
        record = self.record(obj, rows[0])
        if record.remote_id != remote_id:
            raise self.driver.unexpected("another record than the one asked for", operation, is_write=False)
        return record

    def record(self, obj: Object, row: Mapping[str, Any]) -> Record:
        """A record of Zoho. Raises UnexpectedResponse for something that has no id."""
        remote_id = self.driver.id_text(row.get("id"))
        if not remote_id:
            raise self.driver.unexpected(f"a {obj.value} without id", Operation.GET, is_write=False)
        return Record(
            object=obj,
            remote_id=remote_id,
            native=read_values(NATIVES[obj], row),
            updated_at=moment_text(row.get("Modified_Time")),
            url=self.driver.record_url(obj, remote_id),
        )

    def _rows(self, response: HttpResponse, operation: str) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
        """The records of an answer, and what it says about its page."""
        tree = self.driver.tree_of(response, operation=operation)
        rows = tree.get("data") if isinstance(tree, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self.driver.unexpected(
                "something that is no list of records", Operation.LIST, is_write=False
            )
        page = tree.get("info")
        return rows, page if isinstance(page, dict) else {}

    # -- queries -------------------------------------------------------------------------------------------

    async def query(self, select: Select, operation: str) -> tuple[list[dict[str, Any]], bool]:
        """The rows of one query, and whether there are more."""
        request = HttpRequest(method="POST", url=f"{API}/coql", json={"select_query": select.text()})
        response = await self.driver.exchange(request, operation=operation)
        if response.status == 204:
            return [], False
        rows, page = self._rows(response, operation)
        return rows, page.get("more_records") is True

    async def recent(self, obj: Object, since: str, cursor: str, limit: int) -> Page:
        """Newest change first. A cursor is ``<Modified_Time>|<id>`` of the last record: no offset that shifts."""
        native = NATIVES[obj]
        size = max(1, min(limit, MOST_ROWS))
        if not native.is_queried:
            return await self._listed(obj, native, since, cursor, size)
        conditions: list[Any] = []
        if since:
            conditions.append(Compare("Modified_Time", ">=", since, Kind.DATETIME))
        if cursor:
            found = _BY_TIME.fullmatch(cursor)
            if found is None:
                raise _bad_cursor()
            conditions.append(older_than("Modified_Time", found[1], "id", found[2]))
        rows, has_more = await self._page(native, conditions, ("Modified_Time", "id"), size, "list")
        records = [self.record(obj, row) for row in rows]
        is_last = not has_more or not records or not records[-1].updated_at
        last = "" if is_last else f"{COQL.moment(records[-1].updated_at)}|{records[-1].remote_id}"
        return Page(records=records, next_cursor=last)

    async def _listed(self, obj: Object, native: Native, since: str, cursor: str, size: int) -> Page:
        """A module that COQL has not, by page tokens: they go on beyond 2,000 rows and are bound to the page size."""
        query = {
            "fields": ",".join(self.names(native)),
            "sort_by": "Modified_Time",
            "sort_order": "desc",
            "per_page": str(size),
        }
        if cursor:
            found = _BY_TOKEN.fullmatch(cursor)
            if found is None:
                raise _bad_cursor()
            query |= {"per_page": found[1], "page_token": found[2]}
            size = int(found[1])
        headers = {"If-Modified-Since": COQL.moment(since)} if since else {}
        request = HttpRequest(method="GET", url=f"{API}/{native.name}", query=query, headers=headers)
        response = await self.driver.exchange(request, operation="list", ok_statuses=(304,))
        if response.status in (204, 304):
            return Page(records=[])
        rows, page = self._rows(response, "list")
        records = [self.record(obj, row) for row in rows]
        token = page.get("next_page_token") if page.get("more_records") is True else None
        if token is None:
            return Page(records=records)
        following = f"{size}.{token}"
        if not _BY_TOKEN.fullmatch(following) or following == cursor:
            raise self.driver.unexpected("a page token that does not lead on", Operation.LIST, is_write=False)
        return Page(records=records, next_cursor=following)

    async def search(self, obj: Object, filter: Filter, cursor: str) -> Page:
        """Equal fields and free text in names, numbers and subjects; newest id first."""
        native = NATIVES[obj]
        conditions = self.equal(native, filter.equals)
        if filter.text:
            # COQL knows % at the ends alone: the longest piece is asked for, the rest is looked at here.
            piece = max(filter.text.strip().split("%"), key=len)
            if not piece:
                raise refused("text", "holds nothing that can be searched for")
            conditions.append(AnyOf(tuple(Like(name, piece) for name in native.texts)))
        if cursor:
            if not _BY_ID.fullmatch(cursor):
                raise _bad_cursor()
            conditions.append(Compare("id", "<", cursor))
        size = max(1, min(filter.limit, MOST_ROWS))
        rows, has_more = await self._page(native, conditions, ("id",), size, "search")
        records = [self.record(obj, row) for row in rows]
        last = records[-1].remote_id if has_more and records else ""
        if "%" in filter.text:
            wanted = filter.text.strip().casefold()
            records = [one for one in records if _mentions(one, native.texts, wanted)]
        return Page(records=records, next_cursor=last)

    async def _page(
        self, native: Native, conditions: Sequence[Any], newest_by: tuple[str, ...], size: int, operation: str
    ) -> tuple[list[dict[str, Any]], bool]:
        where = AllOf(tuple(conditions)) if conditions else None
        select = Select(
            module=native.name, fields=self.names(native), where=where, newest_by=newest_by, limit=size
        )
        return await self.query(select, operation)

    # -- persons and matches -------------------------------------------------------------------------------

    async def customers(self, *, email: str = "", phone: str = "") -> list[Record]:
        """Contacts with this e-mail or phone, those with both first.

        Phones stand as somebody typed them: they are found by their last digits, however grouped, and then compared.
        """
        native = NATIVES[Object.CUSTOMER]
        known = self.known(native)
        emails = [name for name in _EMAILS if not known or name in known]
        phones = [name for name in _PHONES if not known or name in known]
        conditions: list[Any] = [Compare(name, "=", email) for name in emails] if email else []
        national = country_and_national(phone)[1] or re.sub(r"\D", "", phone)
        if national:
            endings = [f"{national[-4:-2]}{gap}{national[-2:]}" for gap in ("", " ", "-", ".")]
            conditions += [Like(name, ending, is_end=True) for name in phones for ending in endings]
        if not conditions:
            return []
        rows, _ = await self._page(
            native, [AnyOf(tuple(conditions))], ("Modified_Time", "id"), MOST_ROWS, "lookup"
        )
        found = [self.record(Object.CUSTOMER, row) for row in rows]
        hits = {
            one.remote_id: int(bool(email) and any(_is_text(one, name, email) for name in emails))
            + int(bool(national) and any(_is_phone(one, name, phone, national) for name in phones))
            for one in found
        }
        return sorted((one for one in found if hits[one.remote_id]), key=lambda one: -hits[one.remote_id])[
            :20
        ]

    async def matching(self, native: Native, writes: Mapping[int, Write]) -> dict[int, list[str]]:
        """The ids that each upsert's match fits. All matches have the same fields. Raises ValidationError."""
        paths = tuple(next(iter(writes.values())).match)
        if not paths or any(value in (None, "") for one in writes.values() for value in one.match.values()):
            raise refused("match", "needs at least one slot, and each with a value")
        kinds = {path: self.kind(native, path) for path in paths}
        places = list(writes)
        rows: list[dict[str, Any]] = []
        if len(paths) == 1:
            (path,) = paths
            values = list(dict.fromkeys(one.match[path] for one in writes.values()))
            for some in parts(values, MOST_VALUES):
                rows += await self._found(native, paths, In(path, tuple(some), kinds[path]))
        else:
            for some_places in parts(places, max(1, 24 // len(paths))):
                each = tuple(AllOf(tuple(self.equal(native, writes[place].match))) for place in some_places)
                rows += await self._found(native, paths, AnyOf(each))
        return {
            place: [
                row_id
                for row in rows
                if (row_id := self.driver.id_text(row.get("id")))
                and all(
                    same_value(kinds[path], value, get_path(row, path)) for path, value in one.match.items()
                )
            ]
            for place, one in writes.items()
        }

    async def _found(self, native: Native, paths: tuple[str, ...], where: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        last = ""
        for _ in range(_MOST_PAGES):
            narrowed = AllOf((where, Compare("id", "<", last))) if last else where
            fields = tuple(dict.fromkeys(("id", *paths)))
            page, has_more = await self.query(
                Select(module=native.name, fields=fields, where=narrowed, limit=MOST_ROWS), "upsert"
            )
            rows += page
            last = self.driver.id_text(page[-1].get("id")) if page else ""
            if not has_more or not last:
                return rows
        raise refused("match", f"fits more than {MOST_ROWS * _MOST_PAGES} records; match by more fields")

    async def ids_by_mark(
        self, native: Native, mark: str, marks: Sequence[str], operation: str
    ) -> dict[str, str]:
        """Ids by mark. A deleted record is not seen."""
        found: dict[str, str] = {}
        for some in parts(list(marks), MOST_VALUES):
            rows, _ = await self.query(
                Select(module=native.name, fields=("id", mark), where=In(mark, tuple(some))), operation
            )
            for row in rows:
                if isinstance(text := row.get(mark), str) and (
                    remote_id := self.driver.id_text(row.get("id"))
                ):
                    found[text] = remote_id
        return found

    async def note_by_title(self, parent: Mapping[str, Any], ending: str) -> str | None:
        """The id of a note of this record whose title ends so; empty for none, None when it cannot be told."""
        module, remote_id = get_path(parent, "module.api_name"), parent.get("id")
        if module not in {one.name for one in NATIVES.values()} or not _BY_ID.fullmatch(str(remote_id)):
            return None
        query = {"fields": "Note_Title", "per_page": str(MOST_ROWS)}
        url = f"{API}/{module}/{remote_id}/Notes"
        for _ in range(_MOST_PAGES):
            response = await self.driver.exchange(
                HttpRequest(method="GET", url=url, query=dict(query)), operation="search"
            )
            if response.status == 204:
                return ""
            rows, page = self._rows(response, "search")
            for row in rows:
                if str(row.get("Note_Title", "")).endswith(ending):
                    return self.driver.id_text(row.get("id")) or None
            if page.get("more_records") is not True:
                return ""
            token = page.get("next_page_token")
            if not isinstance(token, str):
                return None
            query["page_token"] = token
        return None


def same_value(kind: Kind, wanted: Any, found: Any) -> bool:
    """Whether a written and a read value mean the same, as Zoho compares: numbers by amount, times by instant, lookups
    by id, texts without their case and outer blanks."""
    if wanted in (None, "", []) or found in (None, "", []):
        return wanted in (None, "", False, []) and found in (None, "", False, [])
    if kind is Kind.NUMBER:
        try:
            return float(wanted) == float(found)
        except (TypeError, ValueError):
            return False
    if kind is Kind.DATETIME:
        return moment_text(wanted) == moment_text(found) != ""
    if kind is Kind.DATE:
        return str(wanted)[:10] == str(found)[:10]
    if kind is Kind.LIST:
        return (
            isinstance(wanted, list)
            and isinstance(found, list)
            and sorted(map(str, wanted)) == sorted(map(str, found))
        )
    left, right = (one.get("id") if isinstance(one, dict) else one for one in (wanted, found))
    return str(left).strip().casefold() == str(right).strip().casefold()


@lru_cache(maxsize=32)
def mapped_names(module: str) -> tuple[str, ...]:
    """Fields that the default maps read for this module, and its lookups."""
    table = parse_fields(files(__package__).joinpath("fields.toml").read_text("utf-8"))
    obj, native = next((obj, native) for obj, native in NATIVES.items() if native.name == module)
    wanted = [
        rule.path
        for rules_of in (table.general, *table.packs.values())
        for rule in rules_of.get(obj, ())
        if rule.direction != "write" and not rule.native and rule.path != "kind"
    ]
    more = (*_EMAILS, *_PHONES, "Full_Name") if "Full_Name" in native.texts else ()
    return tuple(dict.fromkeys([*wanted, *native.links.values(), *more]))


def _is_text(record: Record, name: str, wanted: str) -> bool:
    return str(record.native.get(name, "")).strip().casefold() == wanted.strip().casefold()


def _is_phone(record: Record, name: str, phone: str, national: str) -> bool:
    """Whether this number is really the one, also without its plus sign or its country code."""
    said = str(record.native.get(name, ""))
    digits = "".join(each for each in said if each.isdigit())
    wanted = {national.lstrip("0"), re.sub(r"\D", "", phone).lstrip("0")}
    return bool(said) and (to_e164(said) == phone or digits.lstrip("0") in wanted)


def _mentions(record: Record, names: tuple[str, ...], wanted: str) -> bool:
    return any(wanted in str(record.native.get(name, "")).casefold() for name in names)


def _bad_cursor() -> ValidationError:
    problem = FieldError("cursor", "is not a cursor of this list; start again without one")
    return ValidationError("The cursor is not one of ours.", provider="zoho", fields=(problem,))
