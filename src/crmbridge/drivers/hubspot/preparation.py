"""What must be there before the first write, and what reads should know: our mark, own properties, first stages.

Pages: https://developers.hubspot.com/docs/api/crm/properties and .../crm/pipelines (read 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from crmbridge.core.errors import AuthError, CrmError, NotFound, ValidationError
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.hubspot.natives import MARK, VERSION, Native
from crmbridge.drivers.hubspot.reading import decoded
from crmbridge.drivers.hubspot.schema import Properties, Property
from crmbridge.toolkit.exchange import HttpDriver

__all__ = ["prepare", "properties_of"]

MOST_OWN = 200
_PROPERTIES = msgspec.json.Decoder(Properties)


async def prepare(driver: HttpDriver, natives: Iterable[Native]) -> dict[str, str]:
    """Facts ``marks`` (objects that have our mark), ``custom.<object>`` and ``stage.<object>`` (pipeline/stage).

    An object that the credential may not change goes without a mark: its lost creates are parked, not repeated.
    """
    marked: list[str] = []
    facts: dict[str, str] = {}
    for native in natives:
        try:
            properties = await properties_of(driver, native, "prepare")
            if await _is_marked(driver, native, properties):
                marked.append(native.name)
            own = [one.name for one in properties if one.is_custom]
            facts[f"custom.{native.name}"] = " ".join(own[:MOST_OWN])
            if native.pipeline[0]:
                facts[f"stage.{native.name}"] = await _first_stage(driver, native)
        except (AuthError, NotFound, ValidationError) as error:
            if error.subcode not in ("", "insufficient_scope"):
                raise
    return {"marks": " ".join(marked), **facts}


async def properties_of(driver: HttpDriver, native: Native, operation: str) -> list[Property]:
    """All definitions of one object; the list has no pages."""
    request = HttpRequest(method="GET", url=f"/crm/properties/{VERSION}/{native.name}")
    return decoded(_PROPERTIES, await driver.exchange(request, operation=operation), operation).results


async def _is_marked(driver: HttpDriver, native: Native, properties: list[Property]) -> bool:
    known = {one.name: one for one in properties}
    if MARK in known:
        return bool(known[MARK].has_unique_value)
    groups = [one.group_name for one in (known.get("hs_object_id"), *properties) if one and one.group_name]
    body = {
        "name": MARK,
        "label": "crmbridge write",
        "description": "Which write of crmbridge made this record. Please keep it.",
        "groupName": groups[0] if groups else "",
        "type": "string",
        "fieldType": "text",
        "hasUniqueValue": True,
    }
    request = HttpRequest(method="POST", url=f"/crm/properties/{VERSION}/{native.name}", json=body)
    try:
        await driver.exchange(request, operation="prepare", is_write=True)
    except CrmError as error:
        if error.code in ("conflict", "validation_error") or error.subcode == "insufficient_scope":
            return False
        raise
    return True


async def _first_stage(driver: HttpDriver, native: Native) -> str:
    request = HttpRequest(method="GET", url=f"/crm/pipelines/{VERSION}/{native.name}")
    tree = await driver.exchange_json(request, operation="prepare")
    try:
        first = min(tree["results"], key=lambda one: one.get("displayOrder") or 0)
        stage = min(first["stages"], key=lambda one: one.get("displayOrder") or 0)
        return f"{first['id']}/{stage['id']}"
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
