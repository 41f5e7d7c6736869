"""Data centres and their hosts, consent, tokens and what their refusals mean."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError, CrmError, EgressRefused, NotConfigured, UnexpectedResponse
from crmbridge.core.records import Object
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.zoho.driver import MANIFEST, Zoho
from crmbridge.drivers.zoho.emulated_oauth import CENTRES
from crmbridge.drivers.zoho.emulator import ZohoEmulator
from crmbridge.drivers.zoho.test_kit import access_to, connected, fixture, person, write
from crmbridge.emulation import InProcessTransport

LURES = (
    "https://accounts.zoho.com.evil.example",
    "https://evil.example/accounts.zoho.com",
    "https://accounts.zoho.com@evil.example",
    "https://user:word@accounts.zoho.com",
    "https://evil.example#accounts.zoho.com",
    "http://accounts.zoho.com",
    "https://accounts.zoho.com:8443",
    "https://accounts.zoho.com/path",
    "https://accounts-zoho.com",
    "https://zoho.com",
    "//accounts.zoho.com",
    "https://127.0.0.1",
    "https://169.254.169.254",
    "javascript:alert(1)",
    "https://[::1",
)


@pytest.fixture
def zoho() -> ZohoEmulator:
    return ZohoEmulator()


# -- data centres ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", sorted(CENTRES))
def test_callback_when_it_names_a_data_centre_then_code_token_and_calls_go_there(centre: str) -> None:
    accounts, api = CENTRES[centre]
    facts = Zoho.callback_facts({"code": "1000.x", "location": centre, "accounts-server": accounts})
    assert facts == {"accounts_url": accounts}
    assert Zoho.callback_facts({"location": centre}) == facts
    facts |= Zoho.token_facts({"api_domain": api, "token_type": "Bearer"})
    driver = Zoho(Access(settings={}, secrets={}, transport=InProcessTransport(ZohoEmulator()), facts=facts))
    assert driver.base_url() == api
    assert MANIFEST.data_centres[centre] == api
    sandbox = Access(
        settings={"environment": "sandbox"}, secrets={}, transport=driver.access.transport, facts=facts
    )
    assert Zoho(sandbox).base_url() == api.replace("www.", "sandbox.")


@pytest.mark.parametrize("lure", LURES)
def test_callback_when_the_server_is_not_zohos_then_refused(lure: str) -> None:
    with pytest.raises(EgressRefused) as caught:
        Zoho.callback_facts({"accounts-server": lure, "location": "us"})
    assert lure not in str(caught.value.to_dict())
    with pytest.raises(EgressRefused):
        Zoho.token_facts({"api_domain": lure.replace("accounts.zoho", "www.zohoapis")})


def test_callback_when_the_location_is_unknown_then_refused_and_without_any_the_setting_stands() -> None:
    with pytest.raises(EgressRefused):
        Zoho.callback_facts({"location": "moon"})
    assert Zoho.callback_facts({"code": "1000.x", "state": "s"}) == {}


@given(st.text(max_size=60))
def test_hosts_when_anything_is_named_then_zohos_own_or_refused(text: str) -> None:
    for read, name in ((Zoho.callback_facts, "accounts-server"), (Zoho.token_facts, "api_domain")):
        try:
            facts = read({name: text})
        except EgressRefused:
            continue
        for url in facts.values():
            assert re.fullmatch(
                r"https://[a-z]+\.zoho(apis|cloud)?\.(com|eu|in|com\.au|jp|com\.cn|ca|sa|uk|ae)", url
            )


def test_token_facts_when_the_answer_has_no_domain_then_the_older_one_stays() -> None:
    assert Zoho.token_facts({"expires_in": 3600}) == {}
    assert Zoho.token_facts({"api_domain": 7}) == {}


def test_base_url_when_the_domain_is_unknown_or_was_changed_then_no_call() -> None:
    transport = InProcessTransport(ZohoEmulator())
    with pytest.raises(NotConfigured):
        Zoho(Access(settings={}, secrets={}, transport=transport)).base_url()
    facts = {"api_domain": "https://www.zohoapis.com.evil.example"}
    with pytest.raises(EgressRefused):
        Zoho(Access(settings={}, secrets={}, transport=transport, facts=facts)).base_url()


def test_manifest_when_the_operator_has_an_address_of_his_own_then_no_callback_leads_away() -> None:
    own = Zoho.manifest_for({"accounts_url": "http://127.0.0.1:26001/zoho/"})
    assert own.auth.token_url == "http://127.0.0.1:26001/zoho/oauth/v2/token"
    assert Zoho.manifest_for({"accounts_url": "https://accounts.zoho.com.cn"}) is MANIFEST
    assert Zoho.manifest_for({}) is MANIFEST


async def test_urls_of_records_when_connected_then_pages_of_the_organisation(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)
    driver.access.facts["api_domain"] = "https://www.zohoapis.eu"
    made = await driver.create_record(write(1, person(1)))
    assert made.url == f"https://crm.zoho.eu/crm/org874312345/tab/Leads/{made.remote_id}"
    assert driver.record_url(Object.NOTE, "5") == ""


# -- connecting ----------------------------------------------------------------------------------------------------


async def test_connection_when_the_token_is_of_another_organisation_then_refused(zoho: ZohoEmulator) -> None:
    access = access_to(zoho)
    access.facts["zgid"] = "999"
    with pytest.raises(AuthError, match="another Zoho organisation"):
        await Zoho(access).test_connection()


@pytest.mark.parametrize("body", [{}, {"org": []}, {"org": [{"zgid": None}]}, {"org": {"zgid": "1"}}, []])
async def test_connection_when_the_answer_names_no_organisation_then_unexpected(
    zoho: ZohoEmulator, body: Any
) -> None:
    zoho.faults.add("wrong_shape", operation="org", body=body)
    with pytest.raises(UnexpectedResponse):
        await Zoho(access_to(zoho)).test_connection()


async def test_connection_when_it_passes_then_one_call_and_the_organisations_facts(
    zoho: ZohoEmulator,
) -> None:
    proof = await Zoho(access_to(zoho)).test_connection()
    assert proof.account == "Zoho CRM organisation Harbour Agency"
    assert proof.facts == {"zgid": "874312345", "time_zone": "Asia/Dubai", "currency": "AED"}
    assert zoho.calls == {"org": 1}


async def test_connection_when_a_scope_is_missing_then_it_is_named(zoho: ZohoEmulator) -> None:
    zoho.missing_scopes = {"ZohoCRM.org.READ"}
    with pytest.raises(AuthError) as caught:
        await Zoho(access_to(zoho)).test_connection()
    assert caught.value.subcode == "insufficient_scope"
    assert "ZohoCRM.org.READ" in caught.value.fix.hint


def test_scopes_when_wider_ones_are_granted_then_nothing_is_missing() -> None:
    wide = frozenset({"ZohoCRM.modules.ALL", "ZohoCRM.settings.ALL", "ZohoCRM.coql.READ", "ZohoCRM.org.ALL"})
    assert Zoho.missing_scopes(wide) == []
    assert Zoho.missing_scopes(wide - {"ZohoCRM.coql.READ"}) == ["ZohoCRM.coql.READ"]
    assert len(Zoho.missing_scopes(frozenset({"ZohoCRM.modules.leads.READ"}))) == len(MANIFEST.auth.scopes)


# -- consent and tokens ----------------------------------------------------------------------------------------------


async def ask(zoho: ZohoEmulator, method: str, path: str, **more: Any) -> HttpResponse:
    return await zoho.handle(HttpRequest(method=method, url=zoho.base_url + path, **more))


async def consented(zoho: ZohoEmulator, decision: str = "accept", **more: str) -> dict[str, list[str]]:
    query = {
        "response_type": "code",
        "client_id": zoho.client_id,
        "redirect_uri": "https://bridge.example/oauth/callback",
        "state": "s & t",
        "scope": MANIFEST.auth.scope_separator.join(MANIFEST.auth.scopes),
        **MANIFEST.auth.authorize_extra,
        **more,
    }
    page = await ask(zoho, "GET", "/oauth/v2/auth", query=query)
    assert page.status == 200
    fields = re.findall(r'name="(\w+)" value="([^"]*)"', page.body.decode())
    form = {name: html.unescape(value) for name, value in fields} | {"decision": decision}
    sent_on = await ask(zoho, "POST", "/oauth/v2/auth", form=form)
    assert sent_on.status == 302
    return parse_qs(urlsplit(sent_on.header("location")).query)


async def token(zoho: ZohoEmulator, **form: str) -> HttpResponse:
    given = {"client_id": zoho.client_id, "client_secret": zoho.secret("client_secret"), **form}
    return await ask(zoho, "POST", "/oauth/v2/token", form=given)


async def exchanged(zoho: ZohoEmulator, **more: str) -> dict[str, Any]:
    back = await consented(zoho, **more)
    response = await token(
        zoho,
        grant_type="authorization_code",
        code=back["code"][0],
        redirect_uri="https://bridge.example/oauth/callback",
    )
    tree: dict[str, Any] = response.json()
    return tree


async def test_consent_when_accepted_then_token_domain_scopes_and_a_driver_that_works(
    zoho: ZohoEmulator,
) -> None:
    zoho.data_centre = "eu"
    back = await consented(zoho)
    assert back["state"] == ["s & t"]
    assert Zoho.callback_facts({name: values[0] for name, values in back.items()}) == {
        "accounts_url": "https://accounts.zoho.eu"
    }
    tree = await exchanged(zoho)
    assert Zoho.token_facts(tree) == {"api_domain": "https://www.zohoapis.eu"}
    assert Zoho.missing_scopes(frozenset(tree["scope"].split())) == []
    access = access_to(zoho)
    access.secrets["access_token"] = Secret(tree["access_token"])
    assert (await Zoho(access).test_connection()).facts["zgid"]
    await Zoho(access).prepare()


async def test_consent_when_rejected_then_an_error_comes_back(zoho: ZohoEmulator) -> None:
    assert (await consented(zoho, "reject"))["error"] == ["access_denied"]


async def test_consent_page_when_scopes_are_parted_by_blanks_then_refused(zoho: ZohoEmulator) -> None:
    query = {
        "response_type": "code",
        "client_id": zoho.client_id,
        "redirect_uri": "https://x",
        "scope": "a b",
    }
    assert (await ask(zoho, "GET", "/oauth/v2/auth", query=query)).status == 400


async def test_refresh_when_done_then_a_new_access_token_and_the_same_refresh_token(
    zoho: ZohoEmulator,
) -> None:
    tree = await exchanged(zoho)
    again = (await token(zoho, grant_type="refresh_token", refresh_token=tree["refresh_token"])).json()
    assert "refresh_token" not in again
    assert again["access_token"] != tree["access_token"]
    assert MANIFEST.auth.refresh_rotates is False
    assert "refresh_token" not in await exchanged(zoho, access_type="online")


async def test_code_when_used_twice_or_too_late_then_a_200_that_is_a_refusal(zoho: ZohoEmulator) -> None:
    for wait in (0, 121):
        back = await consented(zoho)
        form = {
            "grant_type": "authorization_code",
            "code": back["code"][0],
            "redirect_uri": "https://bridge.example/oauth/callback",
        }
        zoho.clock.advance(wait)
        if not wait:
            await token(zoho, **form)
        answer = await token(zoho, **form)
        assert (answer.status, answer.json()) == (200, fixture("token.refused"))


async def test_refresh_when_too_often_then_throttled_and_never_revoked(zoho: ZohoEmulator) -> None:
    refresh = zoho.secret("refresh_token")
    for _ in range(10):
        assert (await token(zoho, grant_type="refresh_token", refresh_token=refresh)).status == 200
    answer = await token(zoho, grant_type="refresh_token", refresh_token=refresh)
    assert (answer.status, answer.json()) == (400, fixture("token.throttled"))
    assert Zoho.token_fault(answer.status, answer.json()) is TokenFault.THROTTLED
    zoho.clock.advance(601)
    assert "access_token" in (await token(zoho, grant_type="refresh_token", refresh_token=refresh)).json()


async def test_tokens_when_more_than_the_caps_then_the_oldest_are_gone(zoho: ZohoEmulator) -> None:
    first = await exchanged(zoho)
    for _ in range(20):
        await exchanged(zoho)
    gone = await token(zoho, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert gone.json() == fixture("token.refused")
    assert Zoho.token_fault(200, gone.json()) is TokenFault.REVOKED


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (fixture("token.wrong_client"), TokenFault.MISCONFIGURED),
        ({"error": "invalid_client_secret"}, TokenFault.MISCONFIGURED),
        ({"error": "invalid_redirect_uri"}, TokenFault.MISCONFIGURED),
        ({"error": "general_error"}, TokenFault.TRANSIENT),
        ({"error": "something_new"}, None),
        ({}, None),
    ],
)
def test_token_fault_when_answered_with_200_then_classed_by_its_error(
    answer: dict[str, Any], fault: TokenFault | None
) -> None:
    assert Zoho.token_fault(200, answer) is fault


async def test_call_when_the_token_expired_then_renewed_once_and_sent_again(zoho: ZohoEmulator) -> None:
    tree = await exchanged(zoho)
    driver = await connected(zoho)
    driver.access.secrets["access_token"] = Secret(tree["access_token"])
    zoho.clock.advance(3601)
    renewals = []

    async def renew() -> bool:
        answer = await token(zoho, grant_type="refresh_token", refresh_token=tree["refresh_token"])
        driver.access.secrets["access_token"] = Secret(answer.json()["access_token"])
        renewals.append(answer.status)
        return True

    driver.access.renew = renew
    made = await driver.create_record(write(1, person(1)))
    assert made.remote_id
    assert renewals == [200]
    assert len(zoho.records.table("Leads")) == 1


async def test_call_when_a_scope_is_missing_then_not_renewed(zoho: ZohoEmulator) -> None:
    driver = await connected(zoho)

    async def renew() -> bool:
        raise AssertionError("no new token cures a missing scope")

    driver.access.renew = renew
    zoho.missing_scopes = {"ZohoCRM.modules.leads.CREATE"}
    with pytest.raises(AuthError) as caught:
        await driver.create_record(write(1, person(1)))
    assert caught.value.subcode == "insufficient_scope"


async def test_revoke_when_done_then_the_refresh_token_is_dead_and_stood_in_no_address(
    zoho: ZohoEmulator,
) -> None:
    tree = await exchanged(zoho)
    access = access_to(zoho)
    access.secrets["refresh_token"] = Secret(tree["refresh_token"])
    assert await Zoho(access).revoke()
    assert tree["refresh_token"] not in zoho.requests[-1].full_url()
    gone = await token(zoho, grant_type="refresh_token", refresh_token=tree["refresh_token"])
    assert gone.json() == fixture("token.refused")
    with pytest.raises(CrmError):
        await Zoho(access).revoke()


async def test_headers_when_a_call_is_made_then_zohos_own_scheme(zoho: ZohoEmulator) -> None:
    await connected(zoho)
    await Zoho(access_to(zoho)).test_connection()
    assert zoho.requests[-1].headers["Authorization"].startswith("Zoho-oauthtoken ")
    bare = await ask(zoho, "GET", "/crm/v8/org")
    assert (bare.status, bare.json()["code"]) == (401, "AUTHENTICATION_FAILURE")
