"""Sign-in of operators by OpenID Connect: there and back, and who may come in."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from tests.e2e.console_visitor import PASSWORD, Visitor, text_of, visitor
from tests.e2e.oidc_house import (
    CALLBACK,
    Clock,
    assert_refused,
    clock,
    go,
    guest,
    last_row,
    provider,
    services,
)
from tests.e2e.oidc_provider import CLIENT_SECRET, Provider
from tests.faults.process import free_ports

from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services import Services
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["clock", "guest", "provider", "services"]

pytestmark = pytest.mark.postgres

# ---------------------------------------------------------------------- the way that works


async def test_button_when_not_set_up_then_neither_button_nor_routes(
    services: Services, guest: Visitor
) -> None:
    page = await guest.get("/admin/sign-in?next=/admin/audit?tenant=harbour")
    assert "Sign in with Harbour" in text_of(page)
    assert f'href="/admin/oidc?next={quote("/admin/audit?tenant=harbour", safe="")}"' in page.text
    services.operators.oidc = None
    page = await guest.get("/admin/sign-in")
    assert "/admin/oidc" not in page.text and 'name="password"' in page.text
    assert (await guest.get("/admin/oidc")).status_code == 404
    assert (await guest.get(CALLBACK)).status_code == 404


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_sign_in_when_known_by_verified_email_then_the_same_session_as_by_password(
    services: Services, provider: Provider, guest: Visitor, alg: str
) -> None:
    provider.use(alg, "key of the day")
    there = await guest.get("/admin/oidc?next=/admin/audit")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(there.headers["location"]).query).items()}
    assert asked["redirect_uri"] == f"http://localhost:8700{CALLBACK}"
    assert len(asked["state"]) == len(asked["nonce"]) == len(asked["code_challenge"]) == 43
    cookie = next(c for c in there.headers.get_list("set-cookie") if "-flow=" in c).lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "max-age=600" in cookie
    assert not any(asked[name] in str(there.headers.get_list("set-cookie")) for name in ("state", "nonce"))
    page = await guest.get(f"{CALLBACK}?{provider.consent(there.headers['location'])}")
    assert page.status_code == 303 and page.headers["location"] == "/admin/audit"
    assert "Ann" in (await guest.follow(page)).text
    assert "crmbridge-flow" not in guest.http.cookies and "crmbridge-visit" not in guest.http.cookies
    (operator,) = await services.operators.list()
    row = await last_row(services)
    assert (row.action, row.actor, row.subject_id) == (
        "operator.signed_in",
        operator.actor,
        str(operator.id),
    )
    assert row.details == {"method": "oidc", "bound": True} and operator.signed_in_at is not None
    assert (await guest.post("/admin/sign-out")).status_code == 303
    assert (await guest.get("/admin")).status_code == 303


async def test_sign_in_when_bound_then_by_subject_whatever_the_email_says(
    services: Services, provider: Provider, guest: Visitor, database_dsns: RoleDsns
) -> None:
    assert (await go(guest, provider)).status_code == 303
    await guest.get("/admin/password")
    await guest.post("/admin/sign-out")
    provider.claims = {"email": "renamed@example.com", "email_verified": False}
    assert (await go(guest, provider)).status_code == 303
    assert (await last_row(services)).details == {"method": "oidc"}
    conn = await connect(database_dsns.owner)
    try:
        assert await conn.fetchval("select oidc_subject from operators") == f"{provider.issuer} subject-1"
    finally:
        await conn.close()


async def test_sign_in_when_the_email_is_bound_to_another_subject_then_refused(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    assert (await go(guest, provider)).status_code == 303
    guest.http.cookies.clear()
    provider.claims = {"sub": "subject-2"}
    await assert_refused(services, guest, await go(guest, provider), "nobody")


async def test_sign_in_when_the_provider_wants_basic_then_the_secret_stands_in_the_header(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    provider.document = {"token_endpoint_auth_methods_supported": None}
    assert (await go(guest, provider)).status_code == 303
    assert provider.authorizations[-1].startswith("Basic ") and "client_secret" not in provider.forms[-1]


async def test_sign_in_when_email_is_told_by_userinfo_only_then_it_counts_for_the_same_subject(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    provider.document = {"userinfo_endpoint": f"{provider.issuer}/userinfo"}
    provider.claims = {"email": None, "email_verified": None}
    provider.person = {"sub": "subject-2", "email": "ann@example.com", "email_verified": True}
    await assert_refused(services, guest, await go(guest, provider), "userinfo")
    provider.person["sub"] = "subject-1"
    assert (await go(guest, provider)).status_code == 303


async def test_sign_in_when_signed_in_already_then_nothing_begins(
    services: Services, provider: Provider
) -> None:
    async with visitor(services) as admin:
        for path in ("/admin/oidc", f"{CALLBACK}?code=x&state=y"):
            page = await admin.get(path)
            assert page.status_code == 303 and page.headers["location"] == "/admin"
    assert provider.seen == {}


async def test_begin_when_the_next_page_is_elsewhere_then_the_overview(
    provider: Provider, guest: Visitor
) -> None:
    there = await guest.get("/admin/oidc?next=https://evil.example/admin")
    page = await guest.get(f"{CALLBACK}?{provider.consent(there.headers['location'])}")
    assert page.headers["location"] == "/admin"


async def test_password_when_oidc_is_required_then_no_form_and_its_post_refuses(
    services: Services, guest: Visitor
) -> None:
    await guest.get("/admin/sign-in")
    assert services.operators.oidc is not None
    services.operators.oidc.is_required = True
    page = await guest.get("/admin/sign-in")
    assert 'name="password"' not in page.text and "Sign in with Harbour" in page.text
    page = await guest.post("/admin/sign-in", {"email": "ann@example.com", "password": PASSWORD})
    assert page.status_code == 401 and "Sign-in by password is off" in text_of(page)
    assert "crmbridge-session" not in guest.http.cookies


# ---------------------------------------------------------------------- the flow


async def test_callback_when_state_is_wrong_then_refused_and_the_code_is_not_used(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    for state in ("x" * 43, "", "%00%ff"):
        page = await go(guest, provider, state=state)
        await assert_refused(services, guest, page, "wrong_state")
    assert "/token" not in provider.seen


async def test_callback_when_in_another_browser_then_refused(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    there = await guest.get("/admin/oidc")
    back = f"{CALLBACK}?{provider.consent(there.headers['location'])}"
    async with visitor(services, None) as other:
        await assert_refused(services, other, await other.get(back), "no_flow")
        # Even with the flow's cookie planted there: it is bound to the visit's.
        await other.get("/admin/sign-in")
        other.http.cookies.set("crmbridge-flow", guest.http.cookies["crmbridge-flow"].strip('"'))
        page = await other.get(back)
        assert page.status_code == 401 and (await last_row(services)).details["reason"] == "other_browser"
    assert "/token" not in provider.seen
    assert (await guest.get(back)).status_code == 303


async def test_callback_when_sent_twice_then_only_the_first_counts(
    services: Services, provider: Provider, guest: Visitor, database_dsns: RoleDsns
) -> None:
    there = await guest.get("/admin/oidc")
    kept = {name: guest.http.cookies[name].strip('"') for name in ("crmbridge-visit", "crmbridge-flow")}
    back = f"{CALLBACK}?{provider.consent(there.headers['location'])}"
    assert (await guest.get(back)).status_code == 303
    guest.http.cookies.clear()
    for name, value in kept.items():
        guest.http.cookies.set(name, value)
    page = await guest.get(back)
    assert page.status_code == 401 and "used already" in text_of(page)
    assert (await last_row(services)).details["reason"] == "flow_used" and provider.seen["/token"] == 1


@pytest.mark.parametrize("field", [0, 1, 2])
async def test_flow_cookie_when_altered_then_refused(
    services: Services, provider: Provider, guest: Visitor, field: int
) -> None:
    there = await guest.get("/admin/oidc")
    visit = guest.http.cookies["crmbridge-visit"]
    parts = guest.http.cookies["crmbridge-flow"].strip('"').split(".")
    parts[field] = [str(int(parts[0]) - 1), "L2FkbWluL2F1ZGl0", "QUFBQQ=="][field]
    guest.http.cookies.clear()
    guest.http.cookies.set("crmbridge-visit", visit)
    guest.http.cookies.set("crmbridge-flow", ".".join(parts))
    page = await guest.get(f"{CALLBACK}?{provider.consent(there.headers['location'])}")
    assert page.status_code == 401 and (await last_row(services)).details["reason"] == "other_browser"


@pytest.mark.parametrize(
    "cookie", ["", "..", "1.a.b", "x.x.x", "." * 99, "9" * 5000 + "..", "99999999999.é.é"]
)
async def test_flow_cookie_when_rubbish_then_refused(
    services: Services, guest: Visitor, provider: Provider, cookie: str
) -> None:
    await guest.get("/admin/oidc")
    headers = {"Cookie": f"crmbridge-visit=v; crmbridge-flow={cookie}".encode()}
    page = await guest.http.get(f"{CALLBACK}?code=a&state=b", headers=headers)  # type: ignore[arg-type]
    assert page.status_code == 401
    assert (await last_row(services)).details["reason"] in ("no_flow", "flow_expired")


async def test_callback_when_later_than_ten_minutes_then_refused(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    there = await guest.get("/admin/oidc")
    clock.late = 601
    page = await guest.get(f"{CALLBACK}?{provider.consent(there.headers['location'])}")
    await assert_refused(services, guest, page, "flow_expired")
    assert "ten minutes" in text_of(page)


async def test_callback_when_another_issuer_answers_then_refused(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    page = await go(guest, provider, iss="https://evil.example")
    await assert_refused(services, guest, page, "wrong_issuer")
    provider.document = {"authorization_response_iss_parameter_supported": True}
    services.operators.oidc._provider = None  # type: ignore[union-attr]
    await assert_refused(services, guest, await go(guest, provider, iss=""), "wrong_issuer")


async def test_callback_when_the_person_breaks_off_then_a_page_says_so(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    page = await go(guest, provider, code="", error="access_denied", error_description="<b>no</b>")
    await assert_refused(services, guest, page, "denied")
    assert "broken off" in text_of(page) and "<b>no</b>" not in page.text


async def test_callback_when_guessed_too_often_then_429(provider: Provider, guest: Visitor) -> None:
    for _ in range(20):
        assert (await guest.get(f"{CALLBACK}?code=a&state=b")).status_code == 401
    assert (await guest.get(f"{CALLBACK}?code=a&state=b")).status_code == 429


# ---------------------------------------------------------------------- people


async def test_operator_when_disabled_then_refused_bound_or_not(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    ann = await services.operators.get("ann@example.com")
    await services.operators.add("other@example.com", "Olga", "admin", PASSWORD, "test")
    await services.operators.disable(ann.id, "test")
    await assert_refused(services, guest, await go(guest, provider), "nobody")
    assert (await last_row(services)).subject_id == str(ann.id)
    await services.operators.enable(ann.id, "test")
    assert (await go(guest, provider)).status_code == 303
    await services.operators.disable(ann.id, "test")
    assert (await guest.get("/admin")).status_code == 303
    guest.http.cookies.clear()
    await assert_refused(services, guest, await go(guest, provider), "nobody")
    assert len(await services.operators.list()) == 2


async def test_pause_when_passwords_were_wrong_then_it_neither_stops_nor_ends_by_oidc(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    for _ in range(5):
        await guest.sign_in("ann@example.com", "wrong wrong wrong")
    assert (await go(guest, provider)).status_code == 303
    (ann,) = await services.operators.list()
    assert ann.locked_until is not None


# ---------------------------------------------------------------------- the provider


async def test_provider_when_down_then_a_page_says_so_and_it_is_not_asked_at_once_again(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    oidc = services.operators.oidc
    assert oidc is not None
    oidc.issuer = f"http://127.0.0.1:{free_ports()}"
    page = await guest.get("/admin/oidc")
    assert page.status_code == 503 and "cannot be reached" in text_of(page) and "set-cookie" in page.headers
    oidc.issuer = provider.issuer
    assert (await guest.get("/admin/oidc")).status_code == 503 and provider.seen == {}
    clock.ahead += 6
    assert (await go(guest, provider)).status_code == 303


async def test_token_endpoint_when_it_refuses_or_fails_then_a_page_says_so(
    services: Services, provider: Provider, guest: Visitor, clock: Clock
) -> None:
    for status, refusal, reason, shown in (
        (400, "invalid_grant", "code_refused", 401),
        (401, "invalid_client", "client_refused", 401),
        (400, "invalid_client", "client_refused", 401),
        (503, "", "unavailable", 503),
    ):
        provider.status, provider.refusal = status, refusal
        page = await go(guest, provider)
        await assert_refused(services, guest, page, reason, shown)
        assert CLIENT_SECRET not in page.text


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "https://user:pw@evil.example/token"},
        {"token_endpoint": None},
        {"jwks_uri": ["https://evil.example"]},
        {"jwks_uri": "https://evil.example/a\r\nb"},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
    ],
)
async def test_discovery_when_it_describes_something_else_then_refused(
    provider: Provider, guest: Visitor, document: dict[str, Any]
) -> None:
    provider.document = document
    page = await guest.get("/admin/oidc")
    assert page.status_code == 503 and "not set up rightly" in text_of(page)
    assert "location" not in page.headers


async def test_discovery_when_the_egress_policy_forbids_the_address_then_no_call(
    services: Services, provider: Provider, guest: Visitor
) -> None:
    egress = Egress(EgressPolicy())
    assert services.operators.oidc is not None
    services.operators.oidc._transport = egress
    assert (await guest.get("/admin/oidc")).status_code == 503 and provider.seen == {}
    await egress.close()
