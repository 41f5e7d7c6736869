"""Who gets into the console and how far: sign-in, forms, roles, sessions, headers."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from tests.e2e.conftest import House
from tests.e2e.console_visitor import BASE, PASSWORD, text_of, visitor

from crmbridge.console.admission import form_token
from crmbridge.console.routes import OPEN, ROUTES, Route
from crmbridge.console.server import build_console
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services.operators.model import Role

pytestmark = pytest.mark.postgres

_SOME_ID = "01a212ec-474c-7b10-978a-35c5f5a55a71"
POSTS = [route for route in ROUTES if route.method == "POST"]


def path_of(route: Route, **known: str) -> str:
    """The path with its parameters filled in."""
    fill = {
        "tenant": "harbour",
        "driver": "odoo",
        "connection": "primary",
        "step": "discard",
        "handle": "h" * 43,
        "object": "lead",
        "slot": "email",
        **known,
    }
    return re.sub(r"\{(\w+):\w+\}", lambda found: fill.get(found[1], _SOME_ID), route.path)


# ---------------------------------------------------------------------- the route table


def test_routes_when_walked_then_each_has_a_declared_role_and_sign_in_is_open(house: House) -> None:
    app = build_console(house.services)
    declared = {(route.method, route.path): route.role for route in ROUTES}
    served: dict[tuple[str, str], Any] = {}
    for route in app.routes:
        for one in getattr(route, "route_handlers", []):
            for method in one.http_methods:
                if method != "OPTIONS":
                    served[str(method), next(iter(one.paths))] = one.opt.get("role")
    assert all(role is not None for role in served.values()), served
    of_pages = {key: role for key, role in served.items() if not key[1].endswith((".css", ".svg"))}
    assert of_pages == declared
    # A connect link is for somebody at the tenant, who is no operator; its token is what lets in.
    assert {path for (_, path), role in declared.items() if role == OPEN} <= {
        "/admin/sign-in",
        "/admin/oidc",
        "/admin/oidc/callback",
        "/connect/{token:str}",
    }
    assert len(declared) == len(ROUTES)


def test_routes_when_they_change_something_then_no_auditor_may_use_them() -> None:
    own = {"/admin/sign-out", "/admin/password"}
    for route in POSTS:
        if route.role == Role.AUDITOR:
            assert route.path in own, route.path


# ---------------------------------------------------------------------- sign-in


async def test_page_when_nobody_is_signed_in_then_on_to_sign_in_and_back(house: House) -> None:
    await house.tenant("harbour")
    await house.services.operators.add("ann@example.com", "Ann", "auditor", PASSWORD, "test")
    async with visitor(house.services, None) as guest:
        for route in ROUTES:
            if route.role != OPEN and route.method == "GET":
                page = await guest.get(path_of(route))
                assert page.status_code == 303, route
                assert page.headers["location"].startswith("/admin/sign-in"), route
        page = await guest.get("/admin/audit?tenant=harbour")
        wish = quote("/admin/audit?tenant=harbour", safe="")
        assert page.headers["location"] == f"/admin/sign-in?next={wish}"
        form = await guest.follow(page)
        assert 'value="/admin/audit?tenant=harbour"' in form.text
        sent = {"email": "ann@example.com", "password": PASSWORD, "next": "/admin/audit?tenant=harbour"}
        done = await guest.post("/admin/sign-in", sent)
        assert done.status_code == 303 and done.headers["location"] == "/admin/audit?tenant=harbour"
        assert "Harbour" in (await guest.follow(done)).text


async def test_sign_in_when_the_next_page_is_elsewhere_then_the_overview(house: House) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "auditor", PASSWORD, "test")
    async with visitor(house.services, None) as guest:
        await guest.get("/admin/sign-in?next=https://evil.example")
        sent = {"email": "ann@example.com", "password": PASSWORD, "next": "//evil.example/admin"}
        assert (await guest.post("/admin/sign-in", sent)).headers["location"] == "/admin"


async def test_sign_in_when_wrong_then_the_same_page_for_known_and_unknown(house: House) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "admin", PASSWORD, "test")
    pages = []
    async with visitor(house.services, None) as guest:
        for email in ("ann@example.com", "eve@example.com"):
            page = await guest.sign_in(email, "wrong wrong wrong")
            assert page.status_code == 401 and "set-cookie" not in page.headers
            pages.append(text_of(page).replace(email, "EMAIL"))
    assert pages[0] == pages[1] and "not right" in pages[0]


async def test_sign_in_when_nobody_is_there_yet_then_the_command_is_told(house: House) -> None:
    async with visitor(house.services, None) as guest:
        page = await guest.get("/admin/sign-in")
    assert "crmbridge operators add EMAIL --role admin" in page.text


async def test_sign_in_when_locked_then_the_right_password_is_refused(house: House) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "admin", PASSWORD, "test")
    async with visitor(house.services, None) as guest:
        for _ in range(5):
            assert (await guest.sign_in("ann@example.com", "wrong wrong wrong")).status_code == 401
        assert (await guest.sign_in("ann@example.com")).status_code == 401
        assert (await guest.get("/admin")).status_code == 303


async def test_sign_in_when_an_address_tries_too_often_then_429_with_the_seconds(house: House) -> None:
    async with visitor(house.services, None) as guest:
        for number in range(20):
            assert (await guest.sign_in(f"n{number}@example.com")).status_code == 401
        page = await guest.sign_in("n@example.com")
    assert page.status_code == 429 and "too many tries" in page.text


async def test_cookie_when_set_then_for_this_host_only_and_not_for_scripts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "admin", PASSWORD, "test")
    async with visitor(house.services, None) as guest:
        page = await guest.sign_in("ann@example.com")
        cookie = next(c for c in page.headers.get_list("set-cookie") if "session=" in c).lower()
        assert cookie.startswith("crmbridge-session=") and "secure" not in cookie
    monkeypatch.setattr(house.services.oauth, "base_url", "https://crm.example.com")
    async with visitor(house.services, None, base="https://crm.example.com") as guest:
        page = await guest.sign_in("ann@example.com")
        cookie = next(c for c in page.headers.get_list("set-cookie") if "session=" in c).lower()
    assert cookie.startswith("__host-crmbridge-session=") and "secure" in cookie
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "domain" not in cookie
    assert page.headers["strict-transport-security"].startswith("max-age=")


async def test_sign_in_when_done_then_the_visit_gets_a_new_secret(house: House) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "admin", PASSWORD, "test")
    async with visitor(house.services, None) as guest:
        guest.http.cookies.set("crmbridge-session", "planted" + "x" * 36)
        await guest.get("/admin/sign-in")
        before = guest.http.cookies.get("crmbridge-visit")
        await guest.sign_in("ann@example.com")
        session = [c.value for c in guest.http.cookies.jar if c.name == "crmbridge-session"]
    assert all(value not in (None, before) for value in session)
    assert any(not str(value).startswith("planted") for value in session)


async def test_sign_out_when_done_then_the_old_cookie_opens_nothing(house: House) -> None:
    async with visitor(house.services) as admin:
        cookie = admin.http.cookies["crmbridge-session"]
        page = await admin.post("/admin/sign-out")
        assert page.headers["location"] == "/admin/sign-in"
        admin.http.cookies.set("crmbridge-session", cookie)
        assert (await admin.get("/admin")).status_code == 303


@pytest.mark.parametrize("moved", ["seen_at = now() - interval '61 minutes'", "expires_at = now()"])
async def test_session_when_over_then_sign_in_again_and_nothing_is_done(
    house: House, database_dsns: RoleDsns, moved: str
) -> None:
    async with visitor(house.services) as admin:
        assert (await admin.get("/admin")).status_code == 200
        conn = await connect(database_dsns.owner)
        await conn.execute(f"update operator_sessions set {moved}")
        await conn.close()
        page = await admin.post("/admin/tenants/new", {"slug": "late", "name": "Late"})
        assert page.status_code == 303 and page.headers["location"] == "/admin/sign-in"
    assert (await house.call("GET", "/api/tenants/late")).status_code == 404


# ---------------------------------------------------------------------- forms


async def test_form_when_token_or_origin_is_wrong_then_403_and_nothing_is_done(house: House) -> None:
    new = {
        "slug": "made",
        "name": "Made",
        "vertical": "general",
        "time_zone": "UTC",
        "unknown_slots": "refuse",
    }
    async with visitor(house.services) as admin:
        right = admin.token
        for form, headers in (
            ({**new, "form_token": ""}, {}),
            ({**new, "form_token": "0" * 64}, {}),
            ({**new, "form_token": form_token("another session")}, {}),
            ({**new, "form_token": right}, {"Origin": "https://evil.example"}),
            ({**new, "form_token": right}, {"Origin": "null"}),
            ({**new, "form_token": right}, {"Origin": ""}),
        ):
            page = await admin.post("/admin/tenants/new", form, headers=headers)
            assert page.status_code == 403, (form, headers)
            assert "Request id" in page.text
        bare = await admin.http.post("/admin/tenants/new", data=dict(new), headers={"Origin": BASE})
        assert bare.status_code == 403
        typed = await admin.http.post(
            "/admin/tenants/new", json={**new, "form_token": right}, headers={"Origin": BASE}
        )
        assert typed.status_code == 422
        assert (await house.call("GET", "/api/tenants/made")).status_code == 404
        assert (await admin.post("/admin/tenants/new", {**new, "form_token": right})).status_code == 303
    assert (await house.call("GET", "/api/tenants/made")).status_code == 200


async def test_every_post_when_without_a_token_then_403(house: House) -> None:
    await house.tenant("harbour")
    async with visitor(house.services) as admin:
        for route in POSTS:
            page = await admin.http.post(path_of(route), data={"x": "y"}, headers={"Origin": BASE})
            assert page.status_code == 403, route


async def test_sign_in_form_when_from_another_site_then_403(house: House) -> None:
    await house.services.operators.add("ann@example.com", "Ann", "admin", PASSWORD, "test")
    sent = {"email": "ann@example.com", "password": PASSWORD}
    async with visitor(house.services, None) as guest:
        await guest.get("/admin/sign-in")
        page = await guest.post("/admin/sign-in", sent, headers={"Origin": "https://evil.example"})
        assert page.status_code == 403
        assert (await guest.post("/admin/sign-in", {**sent, "form_token": "0" * 64})).status_code == 403


async def test_body_when_too_large_or_odd_then_a_page_says_so(house: House) -> None:
    async with visitor(house.services) as admin:
        page = await admin.post("/admin/tenants/new", {"name": "x" * 600_000})
        assert page.status_code == 413 and "crmbridge" in page.text
        page = await admin.post(
            "/admin/tenants/new", {"slug": "a\x00b", "name": "\ud83d".encode("utf-8", "replace")}
        )
        assert page.status_code == 422
        page = await admin.http.put("/admin/tenants", headers={"Origin": BASE})
        assert page.status_code == 405 and page.headers["content-type"].startswith("text/html")


# ---------------------------------------------------------------------- roles


async def everything(house: House) -> str:
    """What a forbidden POST might have changed."""
    services = house.services
    tenant = await services.tenants.get("harbour")
    parts: list[Any] = [
        await services.tenants.list(),
        await services.tenants.list_keys(tenant),
        await services.tenants.gate(tenant.id),
        await services.connections.credentials(tenant),
        await services.delivery.list(tenant.id),
        await services.incidents.list_open(tenant.id),
        await services.audit.read(tenant.id, 1000),
        [row for row in await services.audit.read(None, 1000) if "sign" not in row.action],
        [(each.email, each.role, each.disabled_at) for each in await services.operators.list()],
    ]
    return str(parts)


@pytest.fixture
async def rich(house: House) -> dict[str, str]:
    """A tenant with one of everything; the ids for paths."""
    await house.tenant("harbour")
    credential = await house.connect("harbour", "odoo")
    await house.token("harbour", "read")
    tenant = await house.services.tenants.get("harbour")
    (key,) = await house.services.tenants.list_keys(tenant)
    dead = await house.call(
        "PATCH",
        "/api/tenants/harbour/records/customer/987654",
        json={"fields": {"phone": "+971501234567"}},
        headers={"Prefer": "wait=10", "Idempotency-Key": "k"},
    )
    async with house.services.db.tenant(tenant.id) as conn:
        incident = await house.services.incidents.open(
            conn, tenant.id, "mapping_drift", "x", "A field is gone"
        )
    ben, _ = await house.services.operators.add("ben@example.com", "Ben", "auditor", PASSWORD, "test")
    return {
        "credential": credential,
        "key": str(key.id),
        "write": str(dead.json()["write_id"]),
        "incident": str(incident.id),
        "operator": str(ben.id),
    }


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.OPERATOR])
async def test_role_when_too_low_then_every_such_route_answers_403_and_nothing_changes(
    house: House, rich: dict[str, str], role: Role
) -> None:
    async with visitor(house.services, role) as low:
        before = await everything(house)
        refused = 0
        for route in ROUTES:
            if route.role == OPEN or role.allows(route.role):
                continue
            path = path_of(route, **rich)
            page = await (low.get(path) if route.method == "GET" else low.post(path))
            assert page.status_code == 403, route
            assert f"Your role is {role.value}" in page.text
            refused += 1
        assert refused >= (20 if role is Role.AUDITOR else 8)
        assert await everything(house) == before


async def test_auditor_when_reading_then_every_page_but_those_of_others(
    house: House, rich: dict[str, str]
) -> None:
    async with visitor(house.services, Role.AUDITOR) as auditor:
        for route in ROUTES:
            if route.method == "GET" and route.role == Role.AUDITOR:
                page = await auditor.get(path_of(route, **rich))
                assert page.status_code == 200, (route, page.text)
                # Nothing is offered that would be refused.
                offered = re.findall(r'<form[^>]+method="post"[^>]+action="([^"]+)"', page.text)
                assert set(offered) <= {"/admin/sign-out", "/admin/password"}, (route.path, offered)
                for step in ("/revoke", "/crm/connect", "/pause", "/routes", "/redrive", "/discard"):
                    assert step not in page.text, (route.path, step)


async def test_operator_when_his_role_is_lowered_then_it_counts_at_once(
    house: House, rich: dict[str, str]
) -> None:
    async with visitor(house.services, Role.OPERATOR) as low:
        assert (await low.get("/admin/tenants/harbour/crm/connect")).status_code == 200
        found = await house.services.operators.get("operator@example.com")
        await house.services.operators.set_role(found.id, "auditor", "test")
        assert (await low.get("/admin/tenants/harbour/crm/connect")).status_code == 403


# ---------------------------------------------------------------------- headers


async def test_pages_when_answered_then_with_strict_headers_and_nothing_from_elsewhere(
    house: House, rich: dict[str, str]
) -> None:
    async with visitor(house.services) as admin:
        for route in ROUTES:
            if route.method == "GET":
                page = await admin.get(path_of(route, **rich))
                policy = page.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'") and "script-src" not in policy
                assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
                assert page.headers["cache-control"] == "no-store"
                assert page.headers["x-content-type-options"] == "nosniff"
                assert page.headers["referrer-policy"] == "same-origin"
                assert "<script" not in page.text and " style=" not in page.text
                assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text), route.path
                assert len(page.headers["x-request-id"]) == 32
        style = await admin.http.get("/admin/style.css")
        assert style.headers["content-type"].startswith("text/css") and "url(" not in style.text
        assert "immutable" in style.headers["cache-control"]


async def test_get_when_any_page_is_read_then_nothing_changes(house: House, rich: dict[str, str]) -> None:
    async with visitor(house.services) as admin:
        before = await everything(house)
        for route in ROUTES:
            if route.method == "GET":
                await admin.get(path_of(route, **rich))
        assert await everything(house) == before


async def test_flash_when_shown_then_once_and_only_ours(house: House) -> None:
    async with visitor(house.services) as admin:
        new = {"slug": "a", "name": "A", "vertical": "general", "time_zone": "UTC", "unknown_slots": "refuse"}
        page = await admin.follow(await admin.post("/admin/tenants/new", new))
        assert "Tenant a is there" in page.text
        assert "Tenant a is there" not in (await admin.get("/admin/tenants/a/crm")).text
        admin.http.cookies.set("crmbridge-flash", "Zm9yZ2Vk.0000")
        assert "forged" not in (await admin.get("/admin")).text


async def test_ids_when_of_others_or_unknown_then_the_same_404(house: House, rich: dict[str, str]) -> None:
    await house.tenant("other")
    unknown = str(UUID(int=7))
    async with visitor(house.services) as admin:
        pairs: list[tuple[str, str, str]] = [
            ("POST", "crm/credentials/{}/test", rich["credential"]),
            ("GET", "crm/credentials/{}/revoke", rich["credential"]),
            ("POST", "crm/credentials/{}/revoke", rich["credential"]),
            ("POST", "crm/credentials/{}/activate", rich["credential"]),
            ("GET", "keys/{}/revoke", rich["key"]),
            ("POST", "keys/{}/revoke", rich["key"]),
            ("GET", "writes/{}", rich["write"]),
            ("POST", "writes/{}/content", rich["write"]),
            ("POST", "writes/{}/discard", rich["write"]),
            ("GET", "writes/{}/discard", rich["write"]),
        ]
        for method, path, theirs in pairs:
            answers = []
            for each in (theirs, unknown):
                full = f"/admin/tenants/other/{path.format(each)}"
                page = await (admin.get(full) if method == "GET" else admin.post(full))
                answers.append((page.status_code, re.sub(r"[0-9a-f]{32}", "", text_of(page))))
            assert answers[0] == answers[1] and answers[0][0] == 404, (method, path, answers)
        for step in ("acknowledge", "resolve"):
            page = await admin.post(f"/admin/incidents/other/{rich['incident']}/{step}")
            assert page.status_code == 404
    (key,) = await house.services.tenants.list_keys(await house.services.tenants.get("harbour"))
    assert key.revoked_at is None
