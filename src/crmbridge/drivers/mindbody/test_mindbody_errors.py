"""Errors by code, and answers of odd shapes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Object
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator
from crmbridge.drivers.mindbody.test_kit import BOOKING, FIXTURES, SEEDED, connected, write
from crmbridge.drivers.mindbody.test_mindbody import PERSON


@pytest.fixture
def site() -> MindbodyEmulator:
    return MindbodyEmulator()


@pytest.mark.parametrize(
    ("code", "status", "kind", "subcode"),
    [
        ("MissingRequiredFields", 400, ValidationError, ""),
        ("InvalidParameter", 400, ValidationError, ""),
        ("InvalidClientCreation", 400, Conflict, ""),
        ("InvalidClientUpdate", 400, ValidationError, ""),
        ("SchedulingRestrictionsViolated", 400, ValidationError, ""),
        ("PaymentRequired", 400, ValidationError, ""),
        ("InvalidSourceCredentials", 401, AuthError, "invalid_credentials"),
        ("InvalidUserCredentials", 401, AuthError, "expired"),
        ("InvalidStaffCredentials", 400, AuthError, "expired"),
        ("DeniedAccess", 401, AuthError, "insufficient_scope"),
        ("DeniedAccess", 403, AuthError, "insufficient_scope"),
        ("InvalidSiteId", 401, NotConfigured, ""),
        ("ClientNotFound", 400, NotFound, ""),
        ("ItemNotFound", 404, NotFound, ""),
        ("TooManyRequests", 429, RateLimited, ""),
        ("TooManyRequests", 400, RateLimited, ""),
        ("SQLDBMaintenance", 503, Unavailable, ""),
        ("Unknown", 500, Unavailable, ""),
        ("NeverHeardOf", 400, ValidationError, ""),
    ],
)
async def test_error_when_it_has_a_code_then_the_code_decides_before_the_status(
    site: MindbodyEmulator, code: str, status: int, kind: type[CrmError], subcode: str
) -> None:
    driver = await connected(site)
    body = {"Error": {"Message": "Refused.", "Code": code}}
    site.faults.add("status", status=status, body=body, only="writes")
    with pytest.raises(CrmError) as caught:
        await driver.create_record(write(Object.CUSTOMER, PERSON))
    assert (type(caught.value), caught.value.subcode) == (kind, subcode)
    assert caught.value.provider_facts["provider_code"] == code
    unknown = status >= 500 or code == "Unknown"
    assert caught.value.outcome is (Outcome.UNKNOWN if unknown else Outcome.NOT_APPLIED)


async def test_error_when_a_200_holds_one_then_not_taken_for_success(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    body = {"Error": {"Message": "Odd.", "Code": ""}}
    site.faults.add("status", status=200, body=body, only="writes")
    with pytest.raises(CrmError) as caught:
        await driver.create_record(write(Object.CUSTOMER, PERSON))
    assert caught.value.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.glob("error.*.json")))
async def test_published_error_when_answered_then_no_bare_exception(
    site: MindbodyEmulator, name: str
) -> None:
    driver = await connected(site)
    tree = msgspec.json.decode((FIXTURES / name).read_bytes())
    for status in (200, 400, 401, 403, 404, 409, 500):
        for obj in (Object.CUSTOMER, Object.NOTE, Object.APPOINTMENT):
            site.faults.add("status", status=status, body=tree, only="writes")
            fields = {Object.CUSTOMER: PERSON, Object.NOTE: {"body": "x"}, Object.APPOINTMENT: BOOKING}[obj]
            links = {} if obj is Object.CUSTOMER else {"customer": SEEDED}
            with pytest.raises(CrmError):
                await driver.create_record(write(obj, fields, links=links))


@pytest.mark.parametrize(
    "body",
    [
        {"Clients": None},
        {"Clients": [None]},
        {"Clients": [{"UniqueId": "../x", "Id": 5}]},
        {
            "Clients": [{"UniqueId": 5, "Id": "7", "CustomClientFields": 3, "BirthDate": 4}],
            "PaginationResponse": 1,
        },
        [],
        "text",
    ],
)
async def test_reads_when_the_answer_is_hostile_then_a_crm_error_or_a_record(
    site: MindbodyEmulator, body: Any
) -> None:
    driver = await connected(site)
    for read in (
        lambda: driver.list_recent(Object.CUSTOMER),
        lambda: driver.get_record(Object.CUSTOMER, "5"),
        lambda: driver.lookup_customer(phone="+13105550100"),
        lambda: driver.get_record(Object.NOTE, "5.6"),
    ):
        site.faults.clear()
        site.faults.add("status", status=200, body=body, operation="clients.list")
        try:
            await read()
        except CrmError:
            pass
