"""Reader: records by id, by unique property, by search; pages of search and of lists.

Search is a copy that lags and has a budget of its own; reading by id or by a property with unique values is neither.
Pages: https://developers.hubspot.com/docs/guides/api/crm/search (read 2026-11-22) and the object pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from crmbridge.core.errors import Conflict, FieldError, Fix, NotFound, ValidationError
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Page, Record
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.hubspot.natives import NATIVES, Native, readable, wire_properties
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.failures import parse_json
from crmbridge.toolkit.fieldmap import load_fields
from crmbridge.toolkit.formats import moment_text

__all__ = ["MOST_ROWS", "Found", "Reader", "decoded"]

MOST_ROWS = 100
SEARCH_CAP = 10_000
MOST_FILTERS = 6
LONGEST_SEARCH = 2_900  # HubSpot refuses bodies of more than 3,000 characters
LONGEST_QUERY = 1_500
_CURSOR = re.compile(r"(\d{0,13}):(\d{1,5})")
T = TypeVar("T")


class Found(msgspec.Struct, rename="camel"):
    """A record as HubSpot answers it; values are texts or null."""

    id: str
    properties: dict[str, str | None] = {}
    updated_at: str | None = None
    archived: bool | None = None


class Next(msgspec.Struct):
    """Where a list goes on."""

    after: str = ""


class Paging(msgspec.Struct):
    """Absent on the last page."""

    next: Next | None = None


class Answer(msgspec.Struct):
    """Many records: of a list, a search or a batch read."""

    results: list[Found]
    paging: Paging | None = None


_ANSWER = msgspec.json.Decoder(Answer)
_FOUND = msgspec.json.Decoder(Found)


def decoded(
    decoder: msgspec.json.Decoder[T], response: HttpResponse, operation: str, *, is_write: bool = False
) -> T:
    """The typed answer. Raises UnexpectedResponse for a page, broken JSON or another shape."""
    try:
        return decoder.decode(response.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        parse_json(response, provider="hubspot", operation=operation, is_write=is_write, expect=type(None))
        raise


class Reader:
    """Reads for one access. ``natives`` says which object of HubSpot a canonical object is on this connection."""

    def __init__(self, driver: HttpDriver, natives: dict[Object, Native]) -> None:
        self.driver = driver
        self.natives = natives

    def names(self, native: Native) -> list[str]:
        """The properties to ask for: those of the default maps and the tenant's own ones, learned by ``prepare``."""
        own = self.driver.access.facts.get(f"custom.{native.name}", "").split()
        driver: Any = type(self.driver)
        return [*_mapped(driver, native.name), *own]

    def record(self, obj: Object, found: Found) -> Record:
        """The record with its native fields under the names of field maps."""
        native = self.natives[obj]
        return Record(
            object=obj,
            remote_id=found.id,
            native=readable(native, found.properties),
            updated_at=moment_text(found.updated_at or found.properties.get(native.modified)),
            url=self.driver.record_url(obj, found.id),
            is_archived=bool(found.archived),
        )

    async def get(self, obj: Object, remote_id: str) -> Record:
        """By id, archived ones too. A merged id answers the record that survived. Raises NotFound."""
        remote_id = self.driver.check_id(obj, remote_id)
        try:
            return self.record(obj, await self._one(obj, remote_id, is_archived=False))
        except NotFound:
            return self.record(obj, await self._one(obj, remote_id, is_archived=True))

    async def _one(self, obj: Object, remote_id: str, *, is_archived: bool) -> Found:
        native = self.natives[obj]
        names = ",".join(self.names(native))
        query = {"archived": "true"} if is_archived else {}
        if len(names) <= LONGEST_QUERY:
            query["properties"] = names
        request = HttpRequest(method="GET", url=f"{native.path}/{remote_id}", query=query)
        found = decoded(_FOUND, await self.driver.exchange(request, operation="get"), "get")
        found.archived = is_archived or found.archived
        if "properties" not in query:
            more = await self.many(native, [found.id], is_archived=is_archived)
            found.properties = more[0].properties if more else found.properties
        return found

    async def many(
        self,
        native: Native,
        ids: Iterable[str],
        *,
        by: str = "",
        names: Sequence[str] | None = None,
        is_archived: bool = False,
        operation: str = "get",
    ) -> list[Found]:
        """Records by id, or by the values of a property with unique values; those that are not there are left out."""
        inputs = [{"id": one} for one in dict.fromkeys(ids)]
        if not inputs:
            return []
        body: dict[str, Any] = {
            "inputs": inputs,
            "properties": self.names(native) if names is None else list(names),
            "propertiesWithHistory": [],
        }
        if by:
            body["idProperty"] = by
        request = HttpRequest(method="POST", url=f"{native.path}/batch/read", json=body)
        if is_archived:
            request.query["archived"] = "true"
        return decoded(_ANSWER, await self.driver.exchange(request, operation=operation), operation).results

    async def there(self, obj: Object, ids: Iterable[str], operation: Operation) -> set[str]:
        """Those of the ids that are there and not archived."""
        found = await self.many(self.natives[obj], ids, names=(), operation=operation.value)
        return {one.id for one in found}

    # -- search --------------------------------------------------------------------------------------------

    async def search(
        self,
        obj: Object,
        groups: Sequence[Sequence[dict[str, str]]],
        *,
        text: str = "",
        after: str = "",
        limit: int = 50,
        by: str = "hs_object_id",
        operation: str = "search",
    ) -> tuple[list[Record], str]:
        """One page, newest first by ``by``, and HubSpot's offset of the next page."""
        native = self.natives[obj]
        if any(len(group) > MOST_FILTERS for group in groups):
            raise _refused("equals", f"has more than {MOST_FILTERS} fields, which HubSpot does not search by")
        body: dict[str, Any] = {
            "filterGroups": [{"filters": list(group)} for group in groups if group],
            "sorts": [{"propertyName": by, "direction": "DESCENDING"}],
            "properties": self.names(native),
            "limit": max(1, min(limit, MOST_ROWS)),
            "after": after or "0",
        }
        if text:
            body["query"] = text
        is_long = len(msgspec.json.encode(body)) > LONGEST_SEARCH
        if is_long:
            body["properties"] = [native.modified]
        request = HttpRequest(method="POST", url=f"{native.path}/search", json=body, budget="search")
        answer = decoded(_ANSWER, await self.driver.exchange(request, operation=operation), operation)
        found = answer.results
        if is_long:
            full = {one.id: one for one in await self.many(native, [one.id for one in found])}
            found = [full.get(one.id, one) for one in found]
        following = answer.paging.next.after if answer.paging and answer.paging.next else ""
        return [self.record(obj, one) for one in found], following

    async def matching(self, obj: Object, match: Mapping[str, Any]) -> str:
        """The id of the one record that matches by search, empty for none. Raises Conflict for more than one."""
        group = equal(self.natives[obj], match)
        if not group or not all(one.get("value") for one in group):
            raise _refused("match", "needs at least one slot, and each with a value")
        records, _ = await self.search(obj, [group], limit=2, operation="upsert")
        if len(records) > 1:
            raise Conflict(
                "The match fits more than one record of HubSpot; an upsert needs one.",
                provider="hubspot",
                operation=Operation.UPSERT.value,
                existing_remote_id=records[0].remote_id,
                fix=Fix("narrow_match", "Match by more fields, or merge the records in HubSpot."),
            )
        return records[0].remote_id if records else ""

    async def recent(self, obj: Object, base: list[dict[str, str]], cursor: str, limit: int) -> Page:
        """Newest change first. A cursor is ``<milliseconds>:<offset>``: HubSpot ends every search at 10,000 rows, so a
        long list goes on by an upper bound, and may then repeat the records of that one millisecond."""
        parsed = _CURSOR.fullmatch(cursor or ":0")
        if parsed is None:
            raise _refused("cursor", "is not a cursor of this list; start again without one")
        bound, after = parsed[1], parsed[2]
        modified = self.natives[obj].modified
        group = [*base, *([term(modified, "LTE", bound)] if bound else [])]
        records, following = await self.search(
            obj, [group], after=after if after != "0" else "", limit=limit, by=modified, operation="list"
        )
        if not following or not records:
            return Page(records=records)
        if int(following) + MOST_ROWS <= SEARCH_CAP:
            return Page(records=records, next_cursor=f"{bound}:{following}")
        last = milliseconds(records[-1].updated_at, end=True)
        if last == bound:
            raise _refused(
                "cursor", "cannot go on: 10,000 records were changed in one second; narrow the list"
            )
        return Page(records=records, next_cursor=f"{last}:0")


def term(name: str, operator: str, value: str) -> dict[str, str]:
    """One filter."""
    return {"propertyName": name, "operator": operator, "value": value}


def equal(native: Native, equals: Mapping[str, Any]) -> list[dict[str, str]]:
    """Filters for all of these values."""
    texts = wire_properties(native, equals)
    if "hs_timestamp" not in equals:
        texts.pop("hs_timestamp", None)
    return [
        term(name, "EQ", text) if text else {"propertyName": name, "operator": "NOT_HAS_PROPERTY"}
        for name, text in texts.items()
    ]


def milliseconds(moment: str, *, end: bool = False) -> str:
    """RFC 3339 as HubSpot's filters have it; ``end``: the last millisecond of that second."""
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        raise _refused("since", "is not a time such as 2026-03-01T14:30:00Z") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return str(int(when.timestamp()) * 1000 + (999 if end else 0))


@lru_cache(maxsize=32)
def _mapped(driver: Any, name: str) -> tuple[str, ...]:
    """Properties of one object of HubSpot that the default maps name."""
    table = load_fields(driver)
    native = NATIVES[name]
    wanted = [native.modified, *(["lifecyclestage", "mobilephone"] if name == "contacts" else [])]
    homes = {
        Object.CUSTOMER: ("contacts",),
        Object.LEAD: ("contacts",),
        Object.DEAL: ("deals",),
        Object.CASE: ("tickets",),
        Object.APPOINTMENT: ("meetings", "appointments"),
        Object.NOTE: ("notes",),
        Object.ACTIVITY: ("calls",),
    }
    for rules_of in (table.general, *table.packs.values()):
        for obj, rules in rules_of.items():
            wanted += [
                native.renamed.get(rule.path, rule.path)
                for rule in rules
                if name in ((rule.native,) if rule.native else homes[obj])
                and rule.direction != "write"
                and rule.path not in native.fixed
            ]
    return tuple(dict.fromkeys(wanted))


def _refused(name: str, problem: str) -> ValidationError:
    return ValidationError(
        f"HubSpot cannot do this: {name} {problem}.", provider="hubspot", fields=(FieldError(name, problem),)
    )
