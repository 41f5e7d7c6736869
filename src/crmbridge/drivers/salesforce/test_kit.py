"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.drivers.salesforce.driver import Salesforce
from crmbridge.drivers.salesforce.emulator import SalesforceEmulator
from crmbridge.emulation import InProcessTransport

MARK = "crmbridge_mark__c"
UNKNOWN = {"No_Such_Field__c": "1"}


async def connected(emulator: SalesforceEmulator, **settings: str) -> Salesforce:
    """A driver as a connection has it: tested and prepared."""
    access = Access(
        settings={**emulator.settings(), **settings},
        secrets={name: Secret(text) for name, text in emulator.secrets().items()},
        transport=InProcessTransport(emulator),
        mark_prefix="crmbridge_0123456789ab",
    )
    access.facts.update((await Salesforce(access).test_connection()).facts)
    access.facts.update(await Salesforce(access).prepare())
    emulator.requests.clear()
    emulator.calls.clear()
    return Salesforce(access)


def write(number: int, fields: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> Write:
    target = f"00000000-0000-4000-8000-{number:012x}"
    given = {"target_id": target, "operation": Operation.CREATE, **more}
    return Write(object=obj, fields=fields, **given)


def person(number: int) -> dict[str, Any]:
    return {
        "FirstName": "Mei",
        "LastName": f"Lin {number}",
        "Email": f"mei.{number}@example.com",
        "Company": "Example Trading",
    }


def sent(emulator: SalesforceEmulator, ending: str) -> list[Any]:
    return [msgspec.json.decode(one.body or b"{}") for one in emulator.requests if one.url.endswith(ending)]
