"""The privacy delete of a contact, and of its name on the deals that were made beside it.

Page: the contacts API's gdpr-delete (spec collection, read 2026-11-22). It takes the contact and associated content;
deals are not named there, and those that crmbridge made bear the person's name.
"""

from __future__ import annotations

from crmbridge.core.errors import AuthError
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.hubspot.answers import LINKED_IDS
from crmbridge.drivers.hubspot.natives import MARK, NATIVES, VERSION
from crmbridge.drivers.hubspot.reading import Reader, decoded

__all__ = ["erase_contact"]

NAMELESS = {"dealname": "Erased", "description": ""}


async def erase_contact(reader: Reader, obj: Object, remote_id: str) -> None:
    """Archived contacts too. Raises NotFound: HubSpot promises nothing about ids that are not there."""
    record = await reader.get(obj, remote_id)
    await _unname_deals(reader, record.remote_id)
    body = {"objectId": record.remote_id}
    request = HttpRequest(method="POST", url=f"{NATIVES['contacts'].path}/gdpr-delete", json=body)
    await reader.driver.exchange(request, operation="erase", is_write=True)


async def _unname_deals(reader: Reader, contact: str) -> None:
    driver, deals = reader.driver, NATIVES["deals"]
    url = f"/crm/associations/{VERSION}/contacts/deals/batch/read"
    request = HttpRequest(method="POST", url=url, json={"inputs": [{"id": contact}]})
    try:
        answer = decoded(LINKED_IDS, await driver.exchange(request, operation="erase"), "erase")
    except AuthError as error:
        if error.subcode != "insufficient_scope":
            raise
        return  # who may not see deals has made none
    ids = [str(end.to_object_id) for row in answer.results for end in row.to]
    prefix = driver.access.mark_prefix + "-"
    for start in range(0, len(ids), 100):
        found = await reader.many(deals, ids[start : start + 100], names=(MARK,), operation="erase")
        ours = [one.id for one in found if (one.properties.get(MARK) or "").startswith(prefix)]
        if ours:
            inputs = [{"id": one, "properties": NAMELESS} for one in ours]
            request = HttpRequest(method="POST", url=f"{deals.path}/batch/update", json={"inputs": inputs})
            await driver.exchange(request, operation="erase", is_write=True)
