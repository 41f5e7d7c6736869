"""Key, site, staff user, budgets; and what the emulator does itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    Unsupported,
)
from crmbridge.core.operations import Outcome
from crmbridge.core.records import Filter, Object
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.mindbody.driver import MANIFEST, Mindbody
from crmbridge.drivers.mindbody.emulator import MindbodyEmulator
from crmbridge.drivers.mindbody.test_kit import (
    FIXTURES,
    SEEDED,
    bare,
    booking,
    change,
    connected,
    sent,
    write,
)
from crmbridge.drivers.mindbody.test_mindbody import PERSON
from crmbridge.emulation import Clock


@pytest.fixture
def site() -> MindbodyEmulator:
    return MindbodyEmulator()


# -- key, site, staff user ------------------------------------------------------------------------------


async def test_calls_when_made_then_each_names_key_and_site_and_token(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    await driver.list_recent(Object.CUSTOMER)
    await driver.create_record(write(Object.CUSTOMER, PERSON))
    token = driver.access.secrets["access_token"].open()
    for request in site.requests:
        assert request.headers["Api-Key"] == site.secrets()["api_key"]
        assert request.headers["SiteId"] == "41095"
        assert request.headers["Authorization"] == f"Bearer {token}"


async def test_sign_in_when_asked_then_key_alone_and_the_seconds_until_expires(
    site: MindbodyEmulator,
) -> None:
    answer = await bare(site).sign_in()
    assert 86_300 < answer["expires_in"] <= 86_400
    assert sent(site) == {"Username": "emulated-staff", "Password": site.secrets()["staff_password"]}
    assert "Authorization" not in site.requests[0].headers


@pytest.mark.parametrize("secret", ["staff_password", "api_key"])
async def test_sign_in_when_refused_then_invalid_credentials_with_the_fix(
    site: MindbodyEmulator, secret: str
) -> None:
    with pytest.raises(AuthError) as caught:
        await bare(site, {secret: "wrong-secret"}).sign_in()
    assert caught.value.subcode == "invalid_credentials"
    assert caught.value.fix.action == ("activate_key" if secret == "api_key" else "correct_login")
    assert "wrong-secret" not in str(caught.value.to_dict())


async def test_sign_in_when_the_answer_has_no_token_then_unexpected(site: MindbodyEmulator) -> None:
    site.faults.add("wrong_shape", operation="usertoken.issue")
    with pytest.raises(CrmError) as caught:
        await bare(site).sign_in()
    assert caught.value.code == "unexpected_response"


async def test_token_when_expired_then_renewed_once_and_the_write_goes_once(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    site.clock.advance(25 * 3600)
    renewed = 0

    async def renew() -> bool:
        nonlocal renewed
        renewed += 1
        driver.access.secrets["access_token"] = Secret((await bare(site).sign_in())["access_token"])
        return True

    driver.access.renew = renew
    before = len(site.clients)
    await driver.create_record(write(Object.CUSTOMER, PERSON))
    assert (renewed, len(site.clients) - before) == (1, 1)


async def test_connection_when_no_staff_user_then_missing_right_and_reads_refused_before_a_call(
    site: MindbodyEmulator,
) -> None:
    driver = bare(site, staff_username="")
    proof = await driver.test_connection()
    assert proof.account == "Harbour Salon and Spa"
    assert any("staff user" in right for right in proof.missing_rights)
    site.requests.clear()
    calls = [
        driver.get_record(Object.CUSTOMER, SEEDED),
        driver.search_records(Object.LEAD, Filter(text="x")),
        driver.lookup_customer(email="seed@example.net"),
        driver.list_recent(Object.APPOINTMENT),
        driver.update_record(change(Object.CUSTOMER, SEEDED, {"city": "X"})),
        driver.create_record(booking()),
        driver.delete_record(Object.NOTE, f"{SEEDED}.901"),
    ]
    for call in calls:
        with pytest.raises(Unsupported) as caught:
            await call
        assert "staff user name and password" in caught.value.fix.hint
    assert site.requests == []


async def test_client_when_no_staff_user_then_created_by_the_key_alone(site: MindbodyEmulator) -> None:
    driver = await connected(site, staff_username="")
    made = await driver.create_record(write(Object.LEAD, PERSON))
    assert site.clients.rows[int(made.remote_id)].fields["IsProspect"] is True
    assert "Authorization" not in site.requests[-1].headers
    with pytest.raises(Conflict) as caught:
        await driver.create_record(write(Object.LEAD, PERSON))
    assert caught.value.existing_remote_id == ""  # who it is, only a staff user may ask
    assert (await driver.find_written(write(Object.LEAD, PERSON))).outcome is Outcome.UNKNOWN


async def test_sign_in_when_the_password_is_missing_then_named_before_a_call(site: MindbodyEmulator) -> None:
    driver = bare(site)
    del driver.access.secrets["staff_password"]
    with pytest.raises(NotConfigured, match="staff_password"):
        await driver.sign_in()
    assert site.requests == []


async def test_revoke_when_there_is_a_token_then_it_is_dead_at_mindbody(site: MindbodyEmulator) -> None:
    assert await bare(site).revoke() is False and site.requests == []
    driver = await connected(site)
    assert await driver.revoke() is True
    with pytest.raises(AuthError):
        await driver.list_recent(Object.CUSTOMER)


async def test_sign_in_when_no_staff_user_then_says_what_to_fill_in(site: MindbodyEmulator) -> None:
    with pytest.raises(NotConfigured) as caught:
        await bare(site, staff_username="").sign_in()
    assert caught.value.fix.action == "fill_in" and site.requests == []


async def test_connection_when_the_staff_user_may_see_no_clients_then_named(site: MindbodyEmulator) -> None:
    site.has_staff_rights = False
    driver = bare(site)
    driver.access.secrets["access_token"] = Secret((await driver.sign_in())["access_token"])
    assert any("reading clients" in right for right in (await driver.test_connection()).missing_rights)


async def test_connection_when_the_owner_has_not_activated_the_key_then_the_fix_says_so(
    site: MindbodyEmulator,
) -> None:
    site.is_activated = False
    with pytest.raises(AuthError) as caught:
        await bare(site).test_connection()
    assert caught.value.subcode == "insufficient_scope" and "activate" in caught.value.fix.hint


async def test_connection_when_the_site_is_wrong_then_not_configured(site: MindbodyEmulator) -> None:
    with pytest.raises(NotConfigured) as caught:
        await bare(site, site_id="5").test_connection()
    assert caught.value.fix.action == "correct_site"


# -- budgets, and the emulator's own oddities -----------------------------------------------------------


def test_budgets_when_declared_then_2000_a_minute_and_the_free_thousand_a_day() -> None:
    assert [(one.limit, one.per_seconds) for one in MANIFEST.budgets] == [(2000, 60), (1000, 86_400)]
    paid = Mindbody.manifest_for({"staff_username": "x", "daily_calls": "50000"})
    assert paid.budgets[1].limit == 50_000
    assert Mindbody.manifest_for({"site_id": "1", "daily_calls": "many"}).budgets[1].limit == 1000


async def raw(
    site: MindbodyEmulator, method: str, path: str, token: str = "", **headers: str
) -> HttpResponse:
    names = {"API-KEY": site.secrets()["api_key"], "siteid": site.site_id, **headers}
    if token:
        names["Authorization"] = token
    return await site.handle(HttpRequest(method=method, url=f"{site.base_url}{path}", headers=names))


async def test_emulator_when_no_key_then_missing_api_key(site: MindbodyEmulator) -> None:
    answer = await site.handle(HttpRequest(method="GET", url=f"{site.base_url}/site/locations"))
    assert answer.status == 401
    assert answer.json() == msgspec.json.decode((FIXTURES / "error.missing_api_key.json").read_bytes())


async def test_emulator_when_lists_are_asked_then_200_at_most_and_inactive_left_out(
    site: MindbodyEmulator,
) -> None:
    token = (await bare(site).sign_in())["access_token"]
    for number in range(250):
        site._insert_client({"FirstName": "P", "LastName": str(number), "Active": number > 0})
    tree = (
        await raw(site, "GET", "/client/clients?request.limit=5000", token)
    ).json()  # the raw token, no Bearer
    assert len(tree["Clients"]) == 200 and tree["PaginationResponse"]["TotalResults"] == 250


async def test_emulator_when_the_token_is_renewed_then_seven_times_at_most(site: MindbodyEmulator) -> None:
    token = (await bare(site).sign_in())["access_token"]
    answers = [await raw(site, "POST", "/usertoken/renew", f"Bearer {token}") for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 7 + [401]
    assert (await raw(site, "DELETE", "/usertoken/revoke", f"Bearer {token}")).status == 204
    assert (await raw(site, "GET", "/client/clients", f"Bearer {token}")).status == 401


async def test_emulator_when_it_is_the_sandbox_then_a_thousand_calls_a_day() -> None:
    sandbox = MindbodyEmulator(Clock(datetime(2026, 11, 22, tzinfo=UTC)))
    sandbox.site_id = "-99"
    sandbox.quotas.clear()
    statuses = [(await raw(sandbox, "GET", "/site/locations")).status for _ in range(1001)]
    assert statuses[-2:] == [200, 429]
    sandbox.clock.advance(timedelta(days=1).total_seconds())
    assert (await raw(sandbox, "GET", "/site/locations")).status == 200


async def test_emulator_when_test_is_asked_then_nothing_is_saved(site: MindbodyEmulator) -> None:
    driver = await connected(site)
    trial = write(Object.CUSTOMER, PERSON)
    trial.fields["Test"] = True
    with pytest.raises(CrmError):
        await driver.create_record(trial)
    assert len(site.clients) == 1
