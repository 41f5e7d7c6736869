"""What the tests of this folder share. Named like a test so that it stays out of the wheel; it holds none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.drivers.zoho.driver import Zoho
from crmbridge.drivers.zoho.emulator import ZohoEmulator
from crmbridge.emulation import InProcessTransport

UNKNOWN = {"No_Such_Field": "1"}


def fixture(name: str) -> Any:
    """A published body by its name."""
    return msgspec.json.decode((Path(__file__).parent / "fixtures" / f"{name}.json").read_bytes())


def access_to(emulator: ZohoEmulator, **settings: str) -> Access:
    """What a driver is given, before any test or preparation."""
    return Access(
        settings={**emulator.settings(), **settings},
        secrets={name: Secret(text) for name, text in emulator.secrets().items()},
        transport=InProcessTransport(emulator),
        mark_prefix="t1",
    )


async def connected(emulator: ZohoEmulator, **settings: str) -> Zoho:
    """A driver as a connection has it: tested and prepared."""
    access = access_to(emulator, **settings)
    access.facts.update((await Zoho(access).test_connection()).facts)
    access.facts.update(await Zoho(access).prepare())
    emulator.requests.clear()
    emulator.calls.clear()
    return Zoho(access)


def write(number: int, fields: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> Write:
    given = {"target_id": f"target-{number}", "operation": Operation.CREATE, **more}
    return Write(object=obj, fields=fields, **given)


def person(number: int) -> dict[str, Any]:
    return {"First_Name": "Mei", "Last_Name": f"Lin {number}", "Email": f"mei.{number}@example.com"}


def sent(emulator: ZohoEmulator, ending: str) -> list[Any]:
    return [msgspec.json.decode(one.body or b"{}") for one in emulator.requests if one.url.endswith(ending)]
