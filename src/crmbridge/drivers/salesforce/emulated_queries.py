"""Queries of an emulated org: ``query``, ``queryAll`` and their further pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.salesforce.emulated_org import BASE, Org
from crmbridge.drivers.salesforce.emulated_schema import PREFIXES
from crmbridge.drivers.salesforce.emulated_soql import Query, SoqlRefused, parse
from crmbridge.emulation import Incoming, Refusal, Row, route

__all__ = ["Queries"]

CURSOR_SECONDS = 2 * 86_400


class Queries(Org):
    """Cursors hold what was found when they were opened, for two days."""

    @route("GET", BASE + "/query", operation="query")
    @route("GET", BASE + "/query/", operation="query")
    @route("GET", BASE + "/queryAll", operation="query")
    @route("GET", BASE + "/queryAll/", operation="query")
    def query(self, call: Incoming) -> HttpResponse:
        with_deleted = "queryall" in call.path.lower()
        self.records.empty_old_bins()
        try:
            query = parse(call.first("q"), self.clock.now(), lambda name: self._type(call.first("q"), name))
            names = self._checked(query)
        except SoqlRefused as error:
            raise Refusal(self.refused(error.code, str(error))) from None
        kind, version = query.sobject, call.params["version"]

        def reading(row: Row[str]) -> Callable[[str], Any]:
            return lambda name: self._read(kind, row, name)

        pairs = [(row, reading(row)) for row in self.table(kind) if with_deleted or not row.is_archived]
        try:
            rows = query.rows(pairs)
        except SoqlRefused as error:
            raise Refusal(self.refused(error.code, str(error))) from None
        if query.is_count:
            return self.answer({"totalSize": len(rows), "done": True, "records": []})
        found = [self.shown(kind, row, names, version) for row in rows]
        wanted = re.search(r"batchSize=(\d+)", call.headers.get("sforce-query-options", ""))
        size = min(max(int(wanted[1]), 200), 2_000) if wanted else 2_000
        locator = f"0r8Hu{len(self.cursors) + 1:010d}"
        self.cursors[locator] = (self.clock.timestamp() + CURSOR_SECONDS, version, found)
        return self._page(locator, 0, size)

    @route("GET", BASE + "/query/{locator}", operation="query_more")
    @route("GET", BASE + "/queryAll/{locator}", operation="query_more")
    def query_more(self, call: Incoming) -> HttpResponse:
        locator, _, start = call.params["locator"].partition("-")
        until = self.cursors.get(locator, (0.0, "", []))[0]
        if until <= self.clock.timestamp() or not start.isdecimal():
            raise Refusal(self.refused("INVALID_QUERY_LOCATOR", "invalid query locator"))
        return self._page(locator, int(start), 2_000)

    def _page(self, locator: str, start: int, size: int) -> HttpResponse:
        _, version, found = self.cursors[locator]
        end = start + size
        tree: dict[str, Any] = {"totalSize": len(found), "done": end >= len(found)}
        if end < len(found):
            tree["nextRecordsUrl"] = f"/services/data/{version}/query/{locator}-{end}"
        return self.answer({**tree, "records": found[start:end]})

    def _type(self, text: str, name: str) -> str:
        """The type of a field, by the object that the query names."""
        found = re.search(r"\bFROM\s+(\w+)", text, re.IGNORECASE)
        kind = found[1] if found else ""
        for part in name.split(".")[:-1]:
            kind = next(iter(self.fields.get(kind, {}).get(f"{part}Id", {}).get("referenceTo", [])), "")
        return (
            str(self.fields.get(kind, {}).get(self._spelt(kind, name.split(".")[-1]), {}).get("type", ""))
            if kind
            else ""
        )

    def _checked(self, query: Query) -> list[str]:
        """The names to show. Raises SoqlRefused."""
        kind = query.sobject
        if kind not in PREFIXES:
            raise SoqlRefused("INVALID_TYPE", f"sObject type '{kind}' is not supported.")
        known = self.visible(kind)
        names: list[str] = []
        for name in query.fields:
            if name.startswith("FIELDS("):
                names += [
                    one
                    for one, spec in known.items()
                    if "ALL" in name or spec["custom"] is ("CUSTOM" in name)
                ]
            elif not query.is_count:
                names.append(name)
        for name in [*names, *query.used]:
            if "." in name:
                continue
            if self._spelt(kind, name) not in known:
                raise SoqlRefused("INVALID_FIELD", f"\nNo such column '{name}' on entity '{kind}'.")
        for name in query.used:
            if not known.get(self._spelt(kind, name), {"filterable": True})["filterable"]:
                raise SoqlRefused("INVALID_FIELD", f"field '{name}' can not be filtered in a query call")
        return names
