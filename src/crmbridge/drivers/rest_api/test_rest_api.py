"""Generic REST: the contract over every auth type and way of paging, and one test per oddity."""

from __future__ import annotations

from typing import ClassVar

from crmbridge.conformance import DriverContract
from crmbridge.core.records import Object
from crmbridge.drivers.rest_api.driver import RestApi
from crmbridge.drivers.rest_api.emulator import RestApiEmulator


class TestRestApi(DriverContract):
    driver = RestApi
    emulator = RestApiEmulator
    refused: ClassVar = {Object.CUSTOMER: {"no_such_field": 1}}
