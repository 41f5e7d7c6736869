"""The privacy delete: into the recycle bin, and out of it for good.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/delete-records.html and the recycle bin API of the 2026 spec (read
2026-11-25). An ordinary delete keeps the record for 60 days; an entry of the bin has the id of its record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crmbridge.core.errors import CrmError, NotFound
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.zoho.messages import row_error
from crmbridge.drivers.zoho.natives import API

if TYPE_CHECKING:
    from crmbridge.drivers.zoho.writing import Writer

__all__ = ["erase"]

_OPERATION = "erase"


async def erase(writer: Writer, obj: Object, remote_id: str) -> None:
    """A record that lies in the bin already is removed from there. Raises NotFound when it is in neither place.

    When the second step fails, the error says so: the record is in the bin then, and erasing it again goes on.
    """
    result = (await writer.delete(obj, {0: remote_id}))[0]
    if isinstance(result.error, CrmError) and not isinstance(result.error, NotFound):
        raise result.error
    try:
        await _purge(writer, remote_id)
    except NotFound:
        raise
    except CrmError as error:
        error.message = (
            f"The record lies in Zoho's recycle bin and could not be removed from it: {error.message}"
        )
        error.args = (error.message,)
        raise


async def _purge(writer: Writer, remote_id: str) -> None:
    driver = writer.driver
    request = HttpRequest(method="DELETE", url=f"{API}/settings/recycle_bin/{remote_id}")
    response = await driver.exchange(request, operation=_OPERATION, is_write=True, ok_statuses=(400, 404))
    if response.status == 204:
        raise _missing()
    tree = driver.tree_of(response, operation=_OPERATION, is_write=True)
    rows = tree.get("recycle_bin", tree.get("data")) if isinstance(tree, dict) else None
    row = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if row.get("status") == "success" and response.status != 202:
        return
    if row.get("status") == "error":
        raise row_error(row, operation=_OPERATION, hide=driver.redactor_for(request), known_id=remote_id)
    raise driver.unexpected("no word about the recycle bin", Operation.ERASE, is_write=True)


def _missing() -> NotFound:
    return NotFound(
        "The record is neither there nor in the recycle bin.", provider="zoho", operation=_OPERATION
    )
