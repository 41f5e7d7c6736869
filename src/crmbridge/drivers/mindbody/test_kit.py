"""What the tests of this folder share. Named like a test so that it stays out of the wheel; it holds none."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from crmbridge.core.driver import Access
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.drivers.mindbody.driver import Mindbody
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.fieldmap import FieldMap, load_fields

FIXTURES = Path(__file__).parent / "fixtures"
SEEDED = "100000001"
PACIFIC = ZoneInfo("America/Los_Angeles")
BOOKING = {"start_at": "2027-01-15T18:30:00Z", "service": "Hair cut"}


def bare(site: MindbodyEmulator, secrets: dict[str, str] | None = None, **settings: str) -> Mindbody:
    """A driver without a token and without facts."""
    texts = {**site.secrets(), **(secrets or {})}
    return Mindbody(
        Access(
            settings={**site.settings(), **settings},
            secrets={name: Secret(text) for name, text in texts.items()},
            transport=InProcessTransport(site),
        )
    )


async def connected(site: MindbodyEmulator, **settings: str) -> Mindbody:
    """A driver as a connection lends it: signed in where it can, and tested."""
    driver = bare(site, None, **settings)
    if driver.access.settings.get("staff_username"):
        driver.access.secrets["access_token"] = Secret((await driver.sign_in())["access_token"])
    driver.access.facts.update((await driver.test_connection()).facts)
    site.requests.clear()
    site.calls.clear()
    site.write_calls = 0
    return driver


def write(obj: Object, fields: dict[str, Any], **more: Any) -> Write:
    operation = more.pop("operation", Operation.CREATE)
    rules = load_fields(Mindbody).rules(obj, Vertical.SALON)
    field_map = FieldMap(obj, rules, slots_for(obj, Vertical.SALON), region="US")
    made = field_map.to_native(fields, partial=operation is Operation.UPDATE)
    assert made.errors == []
    more.setdefault("target_id", "target-1")
    return Write(operation=operation, object=obj, fields=made.fields, **more)


def change(obj: Object, remote_id: str, fields: dict[str, Any]) -> Write:
    return write(obj, fields, operation=Operation.UPDATE, remote_id=remote_id)


def booking(number: int = 1, **fields: Any) -> Write:
    return write(
        Object.APPOINTMENT, {**BOOKING, **fields}, links={"customer": SEEDED}, target_id=f"target-{number}"
    )


def sent(site: MindbodyEmulator) -> Any:
    """The body of the last call."""
    return msgspec.json.decode(site.requests[-1].body or b"null")
