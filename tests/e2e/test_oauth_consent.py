"""Connecting by consent over real loopback sockets: link, cookie, provider, callback, live test."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.e2e.acme.house import AcmeHouse

from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns

pytestmark = pytest.mark.postgres


async def callback_of(house: AcmeHouse, browser: httpx.AsyncClient, link: str) -> str:
    """The callback address that the provider sends this browser to, not yet visited."""
    begun = await browser.get(link)
    assert begun.status_code == 303, begun.text
    return (await browser.get(begun.headers["location"])).headers["location"]


async def test_consent_when_given_then_a_tested_credential_waits_for_the_operator(acme: AcmeHouse) -> None:
    await acme.put_app()
    link = await acme.start()
    waiting = await acme.http.get(f"{acme.path}/oauth/flows/{link['flow_id']}")
    assert waiting.json()["state"] == "waiting"
    async with acme.browser() as browser:
        page = await browser.get(link["url"], follow_redirects=True)
    assert page.status_code == 200
    assert "Connected" in page.text and "Acme of Ann" in page.text and "<script" not in page.text
    assert page.headers["referrer-policy"] == "no-referrer" and page.headers["cache-control"] == "no-store"
    credential = await acme.credential(link["flow_id"])
    assert (
        credential["status"] == "pending"
        and credential["tested_at"]
        and credential["account"] == "Acme of Ann"
    )
    assert credential["facts"]["centre"] == "us" and credential["facts"]["instance"].startswith("i")
    assert credential["scopes"] == ["contacts.read", "contacts.write"] and credential["missing_rights"] == []
    assert credential["expires_at"]
    done = await acme.http.get(f"{acme.path}/oauth/flows/{link['flow_id']}")
    assert done.json()["state"] == "done"
    await acme.activate(link["flow_id"])
    assert (await acme.recent()).status_code == 200
    # Over the data centre that the callback named.
    assert any("/us/token" in request.url for request in acme.acme.requests)


async def test_begin_when_visited_then_cookie_and_exact_redirect(acme: AcmeHouse) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        begun = await browser.get(link["url"])
    cookie = begun.headers["set-cookie"].lower()
    assert cookie.startswith("crmbridge-oauth=") and "httponly" in cookie and "samesite=lax" in cookie
    assert "path=/" in cookie and "domain" not in cookie and "secure" not in cookie
    query = parse_qs(urlsplit(begun.headers["location"]).query)
    assert query["redirect_uri"] == [f"{acme.settings.base_url}/oauth/callback"]
    assert query["scope"] == ["contacts.read contacts.write"] and query["access_type"] == ["offline"]
    assert query["code_challenge_method"] == ["S256"] and len(query["code_challenge"][0]) == 43
    assert "s3cret" not in begun.headers["location"] and "code_verifier" not in begun.headers["location"]


async def test_begin_when_the_house_is_reached_over_https_then_a_host_cookie(
    acme: AcmeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acme.put_app()
    monkeypatch.setattr(acme.services.oauth, "base_url", "https://crm.example.com")
    link = await acme.start()
    assert link["url"].startswith("https://crm.example.com/oauth/begin/")
    async with acme.browser() as browser:
        begun = await browser.get(urlsplit(link["url"]).path)
    cookie = begun.headers["set-cookie"].lower()
    assert cookie.startswith("__host-crmbridge-oauth=") and "secure" in cookie and "path=/" in cookie
    assert "domain" not in cookie and "samesite=lax" in cookie
    query = parse_qs(urlsplit(begun.headers["location"]).query)
    assert query["redirect_uri"] == ["https://crm.example.com/oauth/callback"]


async def test_flow_rows_when_read_raw_then_only_hashes_and_sealed_bytes(
    acme: AcmeHouse, database_dsns: RoleDsns
) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        callback = await callback_of(acme, browser, link["url"])
        cookie = browser.cookies["crmbridge-oauth"]
    state = parse_qs(urlsplit(callback).query)["state"][0]
    conn = await connect(database_dsns.owner)
    try:
        await conn.execute("alter table oauth_states no force row level security")
        raw = str(await conn.fetch("select * from oauth_states")) + str(
            await conn.fetch("select * from oauth_apps")
        )
    finally:
        await conn.close()
    for secret in (state, cookie, link["url"].rsplit("/", 1)[1], "s3cret"):
        assert secret not in raw


@pytest.mark.parametrize("how", ["other_browser", "no_cookie", "wrong_state", "forged_tenant"])
async def test_callback_when_state_or_cookie_is_wrong_then_nothing_is_exchanged(
    acme: AcmeHouse, how: str
) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser, acme.browser() as other:
        callback = await callback_of(acme, browser, link["url"])
        if how == "other_browser":
            await callback_of(acme, other, (await acme.start())["url"])
            page = await other.get(callback)
        elif how == "no_cookie":
            page = await other.get(callback)
        else:
            state = parse_qs(urlsplit(callback).query)["state"][0]
            forged = ("A" * 22 + state[22:]) if how == "forged_tenant" else state[:-6] + "AAAAAA"
            page = await browser.get(callback.replace(state, forged))
        assert page.status_code in (400, 404) and "Not connected" in page.text
        assert acme.acme.grants == {}
        # The right browser is not disturbed by it.
        assert (await browser.get(callback)).status_code == 200


async def test_callback_when_replayed_then_refused_and_the_code_is_exchanged_once(acme: AcmeHouse) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        callback = await callback_of(acme, browser, link["url"])
        assert (await browser.get(callback)).status_code == 200
        again = await browser.get(callback)
        assert again.status_code == 400
        assert (await browser.get(link["url"])).status_code == 400
    assert acme.acme.grants["authorization_code"] == 1


async def test_link_when_older_than_ten_minutes_then_refused(
    acme: AcmeHouse, database_dsns: RoleDsns
) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        callback = await callback_of(acme, browser, link["url"])
        conn = await connect(database_dsns.owner)
        await conn.execute("alter table oauth_states no force row level security")
        await conn.execute("update oauth_states set expires_at = expires_at - interval '10 minutes 1 second'")
        await conn.execute("alter table oauth_states force row level security")
        await conn.close()
        page = await browser.get(callback)
        assert page.status_code == 400 and "ten minutes" in page.text
        assert (await browser.get(link["url"])).status_code == 400
    assert (await acme.http.get(f"{acme.path}/oauth/flows/{link['flow_id']}")).json()["state"] == "expired"
    assert acme.acme.grants == {}


async def test_consent_when_denied_then_a_clear_page_and_the_flow_says_why(acme: AcmeHouse) -> None:
    await acme.put_app()
    acme.acme.denies = "access_denied"
    link = await acme.start()
    async with acme.browser() as browser:
        page = await browser.get(link["url"], follow_redirects=True)
    assert "did not consent" in page.text and "<b>no</b>" not in page.text
    flow = (await acme.http.get(f"{acme.path}/oauth/flows/{link['flow_id']}")).json()
    assert flow["state"] == "failed" and flow["error"]["subcode"] == "insufficient_scope"
    assert acme.acme.grants == {} and "oauth.failed" in await acme.actions()


async def test_code_when_used_before_then_start_again(acme: AcmeHouse) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        callback = await callback_of(acme, browser, link["url"])
        acme.acme.codes.clear()
        page = await browser.get(callback)
    assert "Not connected" in page.text and "refuses the code" in page.text


async def test_client_secret_when_wrong_then_the_app_is_named_and_no_secret_shown(acme: AcmeHouse) -> None:
    await acme.put_app(secret="not-the-secret-at-all")
    page = await acme.consent()
    assert "OAuth app" in page.text and "not-the-secret-at-all" not in page.text
    assert (await acme.http.get(f"{acme.path}/credentials")).json() == {"credentials": []}


async def test_data_centre_when_not_on_the_list_then_no_secret_leaves(acme: AcmeHouse) -> None:
    await acme.put_app()
    link = await acme.start()
    async with acme.browser() as browser:
        callback = await callback_of(acme, browser, link["url"])
        page = await browser.get(callback.replace("location=us", "location=evil"))
    assert "no such data centre" in page.text and acme.acme.grants == {}


async def test_scopes_when_fewer_are_granted_then_named_at_connect_time(acme: AcmeHouse) -> None:
    await acme.put_app()
    acme.acme.scope = "contacts.read"
    acme.acme.gives_refresh = False
    link = await acme.start()
    async with acme.browser() as browser:
        page = await browser.get(link["url"], follow_redirects=True)
    missing = (await acme.credential(link["flow_id"]))["missing_rights"]
    assert missing == ["offline access (no refresh token came)", "contacts.write"]
    assert "contacts.write" in page.text


async def test_app_when_missing_then_start_says_what_to_register(acme: AcmeHouse) -> None:
    body = {"settings": acme.acme.settings()}
    answer = await acme.http.post(f"{acme.path}/oauth/acme/start", json=body)
    assert answer.status_code == 409 and answer.json()["subcode"] == "oauth_app_missing"
    assert f"{acme.settings.base_url}/oauth/callback" in answer.json()["fix"]["hint"]


async def test_apps_when_listed_then_without_secrets(acme: AcmeHouse) -> None:
    assert (await acme.put_app()).status_code == 200
    listed = await acme.http.get("/api/oauth/apps")
    assert listed.json()["apps"][0]["client_id"] == "acme-app" and "s3cret" not in listed.text
    assert (await acme.http.delete("/api/oauth/apps/acme")).status_code == 204
    assert (await acme.http.get("/api/oauth/apps")).json()["apps"] == []
    refused = await acme.http.put("/api/oauth/apps/acme", json={"client_id": " ", "client_secret": ""})
    assert refused.status_code == 422 and len(refused.json()["fields"]) == 2


async def test_tenant_when_it_has_its_own_app_then_that_one_is_used(acme: AcmeHouse) -> None:
    own = {"client_id": "tenants-own", "client_secret": "s3cret-of-the-tenant"}
    page = await acme.consent(settings={**acme.acme.settings(), **own})
    assert page.status_code == 200 and "Connected" in page.text


async def test_forms_when_the_driver_needs_consent_then_refused_and_the_other_way_round(
    acme: AcmeHouse,
) -> None:
    body = {"driver": "acme", "settings": acme.acme.settings()}
    refused = await acme.http.post(f"{acme.path}/credentials", json=body)
    assert refused.status_code == 422 and refused.json()["fix"]["action"] == "start_oauth"
    settings = {**acme.acme.settings(), "user": "ann", "password": "x"}
    other = await acme.http.post(f"{acme.path}/oauth/acme_login/start", json={"settings": settings})
    assert other.status_code == 409


async def test_reconnect_when_consented_again_then_the_old_one_serves_until_activation(
    acme: AcmeHouse,
) -> None:
    first = await acme.connected()
    link = await acme.start()
    async with acme.browser() as browser:
        await browser.get(link["url"], follow_redirects=True)
    assert (await acme.credential(first))["status"] == "active"
    assert (await acme.recent()).status_code == 200
    await acme.activate(link["flow_id"])
    assert (await acme.credential(first))["status"] == "superseded"


async def test_routes_when_a_tenants_key_asks_then_404(acme: AcmeHouse) -> None:
    made = await acme.http.post(f"{acme.path}/keys", json={"name": "agent", "scopes": ["read", "write:*"]})
    agent = {"Authorization": f"Bearer {made.json()['token']}"}
    for method, path in (
        ("POST", f"{acme.path}/oauth/acme/start"),
        ("PUT", "/api/oauth/apps/acme"),
        ("GET", "/api/oauth/apps"),
        ("GET", f"{acme.path}/gate"),
    ):
        body = {"client_id": "a", "client_secret": "b"} if method == "PUT" else {}
        answer = await acme.http.request(method, path, headers=agent, json=body if method != "GET" else None)
        assert answer.status_code == 404, (path, answer.text)
