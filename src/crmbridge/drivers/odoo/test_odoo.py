"""The contract on the emulated Odoo 19 and 14, then one test per oddity."""

from __future__ import annotations

from typing import Any, ClassVar

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import CrmDriver
from crmbridge.core.records import Object
from crmbridge.drivers.odoo.driver import Odoo
from crmbridge.drivers.odoo.emulator import Odoo14Emulator, OdooEmulator
from crmbridge.emulation import Emulator

CARRIED = {
    Object.NOTE: (Object.CUSTOMER,),
    Object.ACTIVITY: (Object.LEAD,),
    Object.APPOINTMENT: (Object.CUSTOMER,),
}


class TestOdoo(DriverContract):
    driver: ClassVar[type[CrmDriver]] = Odoo
    emulator: ClassVar[type[Emulator] | None] = OdooEmulator
    linked: ClassVar[dict[Object, tuple[Object, ...]]] = CARRIED
    refused: ClassVar[dict[Object, dict[str, Any]]] = {Object.CUSTOMER: {"country_id": {"code": "XX"}}}
    server_error_is_certain: ClassVar[str] = "an error object means that the transaction was rolled back"


class TestOdoo14(TestOdoo):
    emulator: ClassVar[type[Emulator] | None] = Odoo14Emulator
