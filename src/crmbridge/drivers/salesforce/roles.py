"""The contact of a deal: a row of OpportunityContactRole beside the opportunity.

Page: Object Reference, OpportunityContactRole (read 2026-11-22). Roles may repeat, so those that stand are looked for
first when an opportunity was there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.salesforce.natives import DATA, ROLE
from crmbridge.drivers.salesforce.soql import AllOf, AnyOf, Compare, Select
from crmbridge.toolkit.batches import parts

if TYPE_CHECKING:
    from crmbridge.drivers.salesforce.reading import Reader
    from crmbridge.drivers.salesforce.writing import Writer

__all__ = ["add", "standing"]

MOST = 100


async def add(writer: Writer, writes: Mapping[int, Write], results: dict[int, WriteResult]) -> None:
    """Links each written opportunity to its customer. An opportunity whose role fails gets that error: sent again, it
    is found by its mark and only the role is made."""
    wanted = {
        place: (result.remote_id, contact)
        for place, result in results.items()
        if result.outcome is Outcome.APPLIED and (contact := writes[place].links.get(Object.CUSTOMER.value))
    }
    for places in parts(list(wanted), MOST):
        pairs = {place: wanted[place] for place in places}
        try:
            known = await standing(writer.reader, list(pairs.values()), "create")
        except CrmError as error:
            for place in places:
                results[place] = _half(results[place], error)
            continue
        missing = {place: pair for place, pair in pairs.items() if _short(pair) not in known}
        if missing:
            await _make(writer, missing, results)


async def standing(reader: Reader, pairs: list[tuple[str, str]], operation: str) -> set[tuple[str, str]]:
    """Those of the (opportunity, contact) pairs that stand already, by the first 15 letters of their ids."""
    where = AnyOf(
        tuple(
            AllOf((Compare("OpportunityId", "=", deal), Compare("ContactId", "=", contact)))
            for deal, contact in pairs
        )
    )
    select = Select(sobject=ROLE, fields=("OpportunityId", "ContactId"), where=where, limit=2_000)
    rows = await reader.query(select, operation)
    return {_short((str(row.get("OpportunityId")), str(row.get("ContactId")))) for row in rows}


async def _make(
    writer: Writer, pairs: Mapping[int, tuple[str, str]], results: dict[int, WriteResult]
) -> None:
    records = [
        {"attributes": {"type": ROLE}, "OpportunityId": deal, "ContactId": contact}
        for deal, contact in pairs.values()
    ]
    request = HttpRequest(
        method="POST", url=f"{DATA}/composite/sobjects", json={"allOrNone": False, "records": records}
    )
    driver = writer.driver
    try:
        tree = await driver.exchange_json(request, operation="create", is_write=True)
    except CrmError as error:
        for place in pairs:
            results[place] = _half(results[place], error)
        return
    rows = tree if isinstance(tree, list) and len(tree) == len(pairs) else [None] * len(pairs)
    hide = driver.redactor_for(request)
    for place, row in zip(pairs, rows, strict=True):
        if isinstance(row, dict) and row.get("success") is True:
            continue
        results[place] = _half(results[place], writer.untold(row, hide))


def _half(result: WriteResult, error: CrmError) -> WriteResult:
    return WriteResult(outcome=error.outcome, remote_id=result.remote_id, url=result.url, error=error)


def _short(pair: tuple[str, str]) -> tuple[str, str]:
    return pair[0][:15], pair[1][:15]
