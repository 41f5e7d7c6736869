"""What the tests of this folder share. Named like a test so that it stays out of the wheel; it holds none."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, RelatedWrite, Write
from crmbridge.core.secret import Secret
from crmbridge.drivers.hubspot.driver import HubSpot
from crmbridge.drivers.hubspot.emulator import HubSpotEmulator
from crmbridge.emulation import InProcessTransport

UNKNOWN = {"no_such_property": "1"}


async def connected(emulator: HubSpotEmulator, **settings: str) -> HubSpot:
    """A driver as a connection has it: tested and prepared."""
    access = Access(
        settings={**emulator.settings(), **settings},
        secrets={name: Secret(text) for name, text in emulator.secrets().items()},
        transport=InProcessTransport(emulator),
        mark_prefix="t1",
    )
    access.facts.update((await HubSpot(access).test_connection()).facts)
    access.facts.update(await HubSpot(access).prepare())
    emulator.requests.clear()
    emulator.calls.clear()
    return HubSpot(access)


def write(number: int, fields: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> Write:
    given = {"target_id": f"target-{number}", "operation": Operation.CREATE, **more}
    return Write(object=obj, fields=fields, **given)


def person(number: int) -> dict[str, Any]:
    return {"firstname": "Mei", "lastname": f"Lin {number}", "email": f"mei.{number}@example.com"}


def sent(emulator: HubSpotEmulator, ending: str) -> list[Any]:
    return [msgspec.json.decode(one.body or b"{}") for one in emulator.requests if one.url.endswith(ending)]


def related(**fields: Any) -> list[RelatedWrite]:
    return [RelatedWrite(native_object="deals", fields=fields)]
