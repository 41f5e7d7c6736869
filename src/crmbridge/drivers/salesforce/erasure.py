"""The privacy delete: overwrite what may hold the person, then delete, for good where the org allows it.

Pages: Bulk API 2.0 "hardDelete" and SOAP ``emptyRecycleBin`` (read 2026-11-22). The REST API cannot empty the recycle
bin, so a deleted record would keep the person there for 15 days: its fields are emptied first. Where the connected user
has the permission "Bulk API Hard Delete" (setting ``hard_delete``), a bulk job removes the record past the bin instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crmbridge.core.errors import Fix, NotFound, Unsupported
from crmbridge.core.operations import DeleteLevel
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.salesforce import bulk
from crmbridge.drivers.salesforce.natives import DATA, MARK, NATIVES
from crmbridge.drivers.salesforce.schema import Described, describe

if TYPE_CHECKING:
    from crmbridge.drivers.salesforce.writing import Writer

__all__ = ["erase", "redaction"]

_TEXTS = frozenset({"string", "textarea", "combobox", "encryptedstring", "email", "phone", "url"})
_NUMBERS = frozenset({"int", "long", "double", "percent", "currency", "date", "datetime"})
ERASED = "Erased"


async def erase(writer: Writer, obj: Object, remote_id: str, *, is_hard: bool) -> DeleteLevel:
    """The level that was reached. Raises NotFound, and Unsupported for a record that lies in the recycle bin: no call
    reaches it there."""
    native, driver = NATIVES[obj], writer.driver
    remote_id = writer.check(obj, remote_id)
    if is_hard:
        results, rest = await bulk.load(writer, native, "hardDelete", {0: {"id": remote_id}}, key="Id")
        if not rest:
            if (error := results[0].error) is not None:
                raise error
            return DeleteLevel.HARD
    body = redaction(await describe(driver, native, "erase"))
    url = f"{DATA}/sobjects/{native.name}/{remote_id}"
    change = HttpRequest(method="PATCH", url=url, json=body)
    try:
        await driver.exchange(change, operation="erase", is_write=True)
    except NotFound as error:
        if error.provider_facts.get("provider_code") != "ENTITY_IS_DELETED":
            raise
        raise Unsupported(
            "The record lies in Salesforce's recycle bin, where the REST API can neither change nor remove it.",
            subcode="delete_unsupported",
            provider="salesforce",
            operation="erase",
            fix=Fix("empty_bin", "Let an administrator delete it from the recycle bin, or wait for 15 days."),
        ) from None
    await driver.exchange(HttpRequest(method="DELETE", url=url), operation="erase", is_write=True)
    return DeleteLevel.REDACTED


def redaction(found: Described) -> dict[str, Any]:
    """Every field that can be changed and may describe a person, emptied; required texts say ``Erased``.

    Pick lists, check boxes, owners and links stay: what they say, others share.
    """
    body: dict[str, Any] = {}
    for field in found.fields:
        if not field.updateable or field.calculated or field.name == MARK:
            continue
        if field.type in _TEXTS:
            body[field.name] = None if field.nillable and field.name not in _WANTED else ERASED
        elif field.type in _NUMBERS and field.nillable and field.name not in _WANTED:
            body[field.name] = None
    return body


# Of these a describe may say nillable although a rule of the object wants them.
_WANTED = frozenset(
    {
        "ActivityDate",
        "ActivityDateTime",
        "CloseDate",
        "Company",
        "DurationInMinutes",
        "EndDateTime",
        "LastName",
        "Name",
        "StartDateTime",
        "Subject",
    }
)
