"""What the console's pages show and do, over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.e2e.conftest import House
from tests.e2e.console_visitor import PASSWORD, Visitor, text_of, visitor

from crmbridge.services.operators.model import Role

pytestmark = pytest.mark.postgres

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> & "\'{{ 7*7 }} \u202eevil'


async def told(answer: Any, who: Visitor) -> str:
    """The text of the page that a step leads to."""
    return text_of(await who.follow(answer))


async def credentials(house: House, slug: str) -> list[dict[str, Any]]:
    answer = await house.call("GET", f"/api/tenants/{slug}/credentials")
    found: list[dict[str, Any]] = answer.json()["credentials"]
    return found


async def written(house: House, slug: str, **fields: str) -> dict[str, Any]:
    """A write that the CRM refuses: an update of a record that is not there."""
    answer = await house.call(
        "PATCH",
        f"/api/tenants/{slug}/records/customer/987654",
        json={"fields": {"phone": "+971501234567", **fields}},
        headers={"Prefer": "wait=10", "Idempotency-Key": f"k-{len(fields)}-{slug}"},
    )
    found: dict[str, Any] = answer.json()
    assert found["targets"][0]["state"] == "dead_letter", answer.text
    return found


# ---------------------------------------------------------------------- hostile texts


async def test_names_when_hostile_then_escaped_on_every_page_that_shows_them(house: House) -> None:
    await house.tenant("evil", name=HOSTILE)
    tenant = await house.services.tenants.get("evil")
    await house.services.tenants.create_key(tenant, HOSTILE, ["read"], "test")
    async with house.services.db.tenant(tenant.id) as conn:
        incident = await house.services.incidents.open(
            conn, tenant.id, "mapping_drift", "x", HOSTILE, {"fix": HOSTILE, HOSTILE: [HOSTILE]}
        )
    await house.services.operators.add("eve@example.com", "<b>Eve</b>", "auditor", PASSWORD, "test")
    async with visitor(house.services) as admin:
        for path in (
            "/admin",
            "/admin/tenants",
            "/admin/tenants/evil",
            "/admin/tenants/evil/crm",
            "/admin/tenants/evil/crm/connect",
            "/admin/tenants/evil/crm/connect/odoo",
            "/admin/incidents",
            f"/admin/incidents/evil/{incident.id}",
            "/admin/audit?tenant=evil",
            "/admin/operators",
            "/admin/writes",
        ):
            page = await admin.get(path)
            assert page.status_code == 200, path
            assert "<script" not in page.text and "<img src=x" not in page.text, path
            assert "<b>Eve" not in page.text and "\u202e" not in page.text, path
            assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49 evil", page.text), path
        echoed = await admin.post(
            "/admin/tenants/new", {"slug": HOSTILE, "name": HOSTILE, "time_zone": HOSTILE}
        )
        assert echoed.status_code == 422 and "<script" not in echoed.text
        sought = await admin.get(f"/admin/tenants?find={'%22%3E%3Cscript%3E'}")
        assert "<script" not in sought.text and 'value="&#34;&gt;&lt;script&gt;"' in sought.text


# ---------------------------------------------------------------------- tenants


async def test_tenant_when_added_then_its_crm_page_and_wrong_fields_are_named(house: House) -> None:
    async with visitor(house.services, Role.OPERATOR) as operator:
        await operator.get("/admin/tenants/new")
        form = {
            "slug": "Bad Slug",
            "name": "",
            "vertical": "clinic",
            "region": "Dubai",
            "time_zone": "Nowhere",
            "unknown_slots": "refuse",
        }
        page = await operator.post("/admin/tenants/new", form)
        assert page.status_code == 422
        for name in ("slug", "name", "region", "time_zone"):
            assert f'id="f-{name}-wrong"' in page.text, name
        assert 'value="Bad Slug"' in page.text and '<option value="clinic" selected>' in page.text
        form |= {"slug": "city-clinic", "name": "City Clinic", "region": "ae", "time_zone": "Asia/Dubai"}
        assert "Connect its CRM" in await told(await operator.post("/admin/tenants/new", form), operator)
        again = await operator.post("/admin/tenants/new", form)
        assert again.status_code == 409 and "taken" in again.text
        found = await operator.get("/admin/tenants?find=city-clinic")
        assert found.headers["location"] == "/admin/tenants/city-clinic"
        assert "City Clinic" in text_of(await operator.get("/admin/tenants?find=city"))


async def test_tenants_when_more_than_a_page_then_paged(house: House) -> None:
    for number in range(52):
        await house.services.tenants.add(f"t{number:03}", f"Tenant {number}", actor="test")
    async with visitor(house.services, Role.AUDITOR) as auditor:
        first = await auditor.get("/admin/tenants")
        (following,) = re.findall(r'href="(/admin/tenants\?after=[^"]+)"', first.text)
        second = await auditor.get(following)
        assert "t049" in first.text and "t050" not in first.text
        assert "t050" in second.text and "t049" not in second.text.partition("<table")[2]


async def test_api_key_when_made_then_shown_once_and_revoked_after_asking(house: House) -> None:
    await house.tenant("harbour")
    async with visitor(house.services) as admin:
        bad = await admin.post("/admin/tenants/harbour/keys", {"name": "agent"})
        assert bad.status_code == 422 and "none given" in bad.text
        page = await admin.post(
            "/admin/tenants/harbour/keys", {"name": "agent", "scopes": ["read", "write:lead"]}
        )
        (token,) = re.findall(r"crmb_live_[A-Za-z0-9_-]{43}", page.text)
        assert page.headers["cache-control"] == "no-store"
        who = await house.call("GET", "/api/whoami", token=token)
        assert who.json()["scopes"] == ["read", "write:lead"]
        shown = await admin.get("/admin/tenants/harbour")
        assert token not in shown.text
        (path,) = re.findall(r'href="(/admin/tenants/harbour/keys/[^"]+/revoke)"', shown.text)
        assert "stays revoked" in text_of(await admin.get(path))
        assert (await house.call("GET", "/api/whoami", token=token)).status_code == 200
        assert "is revoked" in await told(await admin.post(path), admin)
    assert (await house.call("GET", "/api/whoami", token=token)).status_code == 401
    actor = (await house.services.audit.read((await house.services.tenants.get("harbour")).id))[0].actor
    assert actor.startswith("operator:")


async def test_gate_when_papers_are_recorded_then_open_and_shut_after_asking(house: House) -> None:
    await house.tenant("clinic", vertical="clinic")
    papers = {
        "baa_reference": "BAA-7",
        "baa_signatory": "Dr Lee",
        "baa_signed_on": "2026-01-02",
        "reviewer": "Kim",
        "reviewed_on": "2026-01-03",
    }
    path = "/admin/tenants/clinic/gate"
    async with visitor(house.services, Role.OPERATOR) as operator:
        assert "shut" in text_of(await operator.get(path))
        future = await operator.post(path, {**papers, "baa_signed_on": "2999-01-01"})
        assert future.status_code == 422 and 'value="BAA-7"' in future.text
        odd = await operator.post(path, {**papers, "reviewed_on": "yesterday"})
        assert odd.status_code == 422
        assert "stays shut" in await told(await operator.post(path, {**papers, "reviewer": ""}), operator)
        assert "The gate is open" in await told(await operator.post(path, papers), operator)
        assert "stop at once" in text_of(await operator.get(f"{path}/close"))
        assert "The gate is shut" in await told(await operator.post(f"{path}/close"), operator)


# ---------------------------------------------------------------------- connecting


async def test_crm_when_connected_by_form_then_tested_activated_rotated_rolled_back_revoked(
    house: House,
) -> None:
    await house.tenant("harbour")
    emulator = house.emulators["odoo"]
    values = {**emulator.settings(), **emulator.secrets()}
    form = {f"setting.{name}": text for name, text in values.items()}
    crm = "/admin/tenants/harbour/crm"
    async with visitor(house.services, Role.OPERATOR) as operator:
        assert "No CRM is connected" in text_of(await operator.get(crm))
        asked = await operator.get(f"{crm}/connect/odoo")
        for name in values:
            assert f'name="setting.{name}"' in asked.text
        assert re.search(r'name="setting\.api_key" type="password"', asked.text)

        wrong = await operator.post(
            f"{crm}/connect/odoo", {**form, "setting.url": "ftp://x", "setting.database": ""}
        )
        assert wrong.status_code == 422 and 'id="f-setting-database-wrong"' in wrong.text
        assert values["api_key"] not in wrong.text and values["username"] in wrong.text

        failed = await operator.post(f"{crm}/connect/odoo", {**form, "setting.api_key": "not-the-key"})
        assert "The live test failed" in await told(failed, operator)
        (pending,) = await credentials(house, "harbour")
        early = await operator.post(f"{crm}/credentials/{pending['id']}/activate")
        assert "has not passed" in await told(early, operator)

        passed = await operator.post(f"{crm}/connect/odoo", form)
        assert "The live test passed" in await told(passed, operator)
        first = (await credentials(house, "harbour"))[0]["id"]
        done = await operator.post(f"{crm}/credentials/{first}/activate")
        assert "uses this credential now" in await told(done, operator)

        rotation = await operator.get(f"{crm}/connect/odoo?connection=primary")
        assert "goes on until you activate the new one" in text_of(rotation)
        assert f'value="{values["username"]}"' in rotation.text and values["api_key"] not in rotation.text
        await operator.post(f"{crm}/connect/odoo", {**form, "connection": "primary"})
        second = (await credentials(house, "harbour"))[0]["id"]
        assert "steps back" in text_of(await operator.get(f"{crm}/credentials/{second}/activate"))
        await operator.post(f"{crm}/credentials/{second}/activate")
        states = {each["id"]: each["status"] for each in await credentials(house, "harbour")}
        assert (states[first], states[second]) == ("superseded", "active")

        page = await operator.get(crm)
        assert "Roll back" in text_of(page) and values["api_key"] not in page.text
        assert "Roll back to this credential?" in text_of(
            await operator.get(f"{crm}/credentials/{first}/activate")
        )
        await operator.post(f"{crm}/credentials/{first}/activate")
        states = {each["id"]: each["status"] for each in await credentials(house, "harbour")}
        assert (states[first], states[second]) == ("active", "superseded")

        assert "never used again" in text_of(await operator.get(f"{crm}/credentials/{second}/revoke"))
        assert "is revoked" in await told(await operator.post(f"{crm}/credentials/{second}/revoke"), operator)
        again = await operator.post(f"{crm}/credentials/{second}/activate")
        assert "stays revoked" in await told(again, operator)
        assert "the connection primary stops" in text_of(
            await operator.get(f"{crm}/credentials/{first}/revoke")
        )
    tenant = await house.services.tenants.get("harbour")
    rows = await house.services.audit.read(tenant.id, action="credential.activated")
    assert [row.actor.partition(":")[0] for row in rows] == ["operator"] * 3
    assert (
        rows[0].details["previous_credential_id"] == second and rows[0].details["new_credential_id"] == first
    )


async def test_secret_when_made_by_crmbridge_then_shown_once_before_the_test(house: House) -> None:
    await house.tenant("shop")
    emulator = house.emulators["custom_webhook"]
    crm = "/admin/tenants/shop/crm"
    async with visitor(house.services, Role.OPERATOR) as operator:
        page = await operator.post(
            f"{crm}/connect/custom_webhook", {"setting.url": emulator.settings()["url"], "setting.secret": ""}
        )
        (secret,) = re.findall(r"whsec_[A-Za-z0-9+/=]+", page.text)
        assert page.status_code == 200 and "shown on this page only" in text_of(page)
        assert secret not in (await operator.get(crm)).text
        (made,) = await credentials(house, "shop")
        assert made["status"] == "pending" and made["tested_at"] is None


async def test_consent_when_begun_then_by_a_page_of_its_own_and_a_missing_app_is_told(house: House) -> None:
    await house.tenant("harbour")
    path = "/admin/tenants/harbour/crm/connect/hubspot"
    form = {
        "setting.lead_as": "contact",
        "setting.appointment_as": "meeting",
        "setting.api_url": "https://api.hubapi.com",
        "setting.app_url": "https://app.hubspot.com",
    }
    async with visitor(house.services, Role.OPERATOR) as operator:
        missing = await operator.post(path, form)
        assert missing.status_code == 409 and "/oauth/callback" in missing.text
        app = {"client_id": "our-app", "client_secret": "s3cret-of-the-app"}
        assert (await house.call("PUT", "/api/oauth/apps/hubspot", json=app)).status_code == 200
        page = await operator.post(path, form)
        assert page.status_code == 303, page.text
        on = await operator.follow(page)
        (begin,) = set(re.findall(r'(?:url=|href=")(/oauth/begin/[A-Za-z0-9_-]+)"', on.text))
        sent = await house.http.get(begin)
        assert sent.status_code == 303 and sent.headers["location"].startswith("https://app.hubspot.com/")
        assert (await operator.get("/admin/tenants/harbour/crm/consent/short")).status_code == 404
        assert await credentials(house, "harbour") == []


@pytest.mark.parametrize("driver", ["opentable", "nothing_such"])
async def test_driver_when_it_cannot_be_connected_then_a_page_says_why(house: House, driver: str) -> None:
    await house.tenant("harbour")
    async with visitor(house.services, Role.OPERATOR) as operator:
        page = await operator.post(f"/admin/tenants/harbour/crm/connect/{driver}")
        assert page.status_code == (404 if driver == "nothing_such" else 422)
        assert "custom_webhook" in page.text or driver == "nothing_such"
        assert await credentials(house, "harbour") == []


# ---------------------------------------------------------------------- writes


async def test_write_when_a_dead_letter_then_reason_tries_redrive_and_discard_after_asking(
    house: House,
) -> None:
    await house.tenant("harbour")
    await house.connect("harbour", "odoo")
    write_id = (await written(house, "harbour"))["write_id"]
    base = "/admin/tenants/harbour/writes"
    async with visitor(house.services, Role.OPERATOR) as operator:
        listed = text_of(
            await operator.get(f"{base}?state=dead_letter&object=customer&since=2026-01-01T00:00")
        )
        assert "update customer" in listed and "not_found" in listed
        assert "No write fits" in text_of(await operator.get(f"{base}?state=parked"))
        for query in ("state=nonsense", "object=nonsense", "since=yesterday", "cursor=nonsense"):
            assert (await operator.get(f"{base}?{query}")).status_code == 422, query
        page = text_of(await operator.get(f"{base}/{write_id}"))
        assert "What to do: Check the id" in page and "send 1" in page and "+971" not in page
        assert "tried again now" in text_of(await operator.get(f"{base}/{write_id}/redrive"))
        assert "tried again" in await told(await operator.post(f"{base}/{write_id}/redrive"), operator)
        tenant = await house.services.tenants.get("harbour")
        await house.services.delivery.wait(
            tenant.id, (await house.services.delivery.list(tenant.id)).writes[0].id, 10
        )
        assert "cannot be undone" in text_of(await operator.get(f"{base}/{write_id}/discard"))
        refused = await operator.post(f"{base}/{write_id}/discard", {"reason": "x" * 501})
        assert refused.status_code == 422 and "at most 500" in text_of(refused)
        assert "x" * 501 in refused.text, "what was typed is lost"
        await operator.post(f"{base}/{write_id}/discard", {"reason": "the customer called again"})
        state = (await house.call("GET", f"/api/tenants/harbour/writes/{write_id}")).json()["targets"][0][
            "state"
        ]
        assert state == "discarded"
        (row,) = await house.services.audit.read(tenant.id, action="write.discarded")
        assert row.details["reason"] == "the customer called again" and row.request_id
        late = await told(await operator.post(f"{base}/{write_id}/cancel"), operator)
        assert "cannot follow" in late
        assert (await operator.post(f"{base}/{write_id}/explode")).status_code == 404


async def test_content_when_looked_at_then_shown_and_each_look_is_audited(house: House) -> None:
    await house.tenant("harbour")
    await house.connect("harbour", "odoo")
    write_id = (await written(house, "harbour"))["write_id"]
    tenant = await house.services.tenants.get("harbour")
    path = f"/admin/tenants/harbour/writes/{write_id}"
    async with visitor(house.services, Role.OPERATOR) as operator:
        assert "971501234567" not in (await operator.get(path)).text
        assert await house.services.audit.read(tenant.id, action="write.content_read") == []
        for looks in (1, 2):
            page = await operator.post(f"{path}/content")
            assert "971501234567" in page.text and "What the CRM would be sent now" in page.text
            rows = await house.services.audit.read(tenant.id, action="write.content_read")
            assert len(rows) == looks and rows[0].subject_id == write_id
            assert "971" not in str(rows[0].details)


async def test_dead_letters_when_sent_again_by_filter_then_all_move(house: House) -> None:
    await house.tenant("harbour")
    await house.connect("harbour", "odoo")
    await written(house, "harbour")
    await written(house, "harbour", email="x@example.com")
    base = "/admin/tenants/harbour/writes"
    async with visitor(house.services, Role.OPERATOR) as operator:
        page = await operator.get(f"{base}?state=dead_letter")
        assert f'href="{base}/redrive?state=dead_letter"' in page.text
        assert "up to 2" in text_of(await operator.get(f"{base}/redrive?state=dead_letter"))
        assert (await operator.get(f"{base}/redrive?state=applied")).status_code == 422
        done = await operator.post(f"{base}/redrive", {"state": "dead_letter", "object": "", "since": ""})
        assert "2 target(s) are tried again" in await told(done, operator)


async def test_writes_when_sought_then_on_to_the_tenant_and_the_write(house: House) -> None:
    await house.tenant("harbour")
    async with visitor(house.services, Role.AUDITOR) as auditor:
        page = await auditor.get("/admin/writes?tenant=harbour")
        assert page.headers["location"] == "/admin/tenants/harbour/writes"
        write = "01a212ec-474c-7b10-978a-35c5f5a55a71"
        page = await auditor.get(f"/admin/writes?tenant=harbour&write={write}")
        assert page.headers["location"].endswith(write)
        assert (await auditor.get("/admin/writes?tenant=harbour&write=x")).status_code == 422
        assert (await auditor.get("/admin/writes?tenant=nobody")).status_code == 404


# ---------------------------------------------------------------------- incidents, audit, operators


async def test_incident_when_steps_are_taken_then_told_and_a_second_time_refused(house: House) -> None:
    await house.tenant("harbour")
    tenant = await house.services.tenants.get("harbour")
    async with house.services.db.tenant(tenant.id) as conn:
        incident = await house.services.incidents.open(
            conn, tenant.id, "mapping_drift", "x", "A field is gone", {"fix": "Map it anew."}
        )
    path = f"/admin/incidents/harbour/{incident.id}"
    async with visitor(house.services, Role.OPERATOR) as operator:
        assert "A field is gone" in text_of(await operator.get("/admin"))
        assert "A field is gone" in text_of(await operator.get("/admin/incidents?kind=mapping_drift"))
        assert "No open incident" in text_of(await operator.get("/admin/incidents?kind=write_parked"))
        assert (await operator.get("/admin/incidents?kind=nonsense")).status_code == 422
        assert "Map it anew." in text_of(await operator.get(path))
        assert "is acknowledged" in await told(await operator.post(f"{path}/acknowledge"), operator)
        assert "already" in await told(await operator.post(f"{path}/acknowledge"), operator)
        assert "is resolved" in await told(await operator.post(f"{path}/resolve"), operator)
        assert "No open incident" in text_of(await operator.get("/admin/incidents"))
        assert (await operator.post(f"{path}/explode")).status_code == 404


async def test_audit_when_filtered_and_paged_then_the_rows_that_fit(house: House) -> None:
    await house.tenant("harbour")
    tenant = await house.services.tenants.get("harbour")
    for number in range(120):
        await house.services.tenants.create_key(tenant, f"key {number}", ["read"], "test")
    async with visitor(house.services, Role.AUDITOR) as auditor:
        first = await auditor.get("/admin/audit?tenant=harbour&action=key.created")
        assert "key 119" in first.text and "tenant.created" not in first.text
        (following,) = re.findall(r'href="(/admin/audit\?[^"]*before=[^"]+)"', first.text)
        second = await auditor.get(following.replace("&amp;", "&"))
        assert "key 0<" in second.text or "key 0 " in text_of(second)
        assert "key 119" not in second.text
        assert "No row fits" in text_of(await auditor.get("/admin/audit?tenant=harbour&until=2020-01-01"))
        assert "tenant.created" in text_of(
            await auditor.get("/admin/audit?tenant=harbour&since=2020-01-01&action=tenant.created")
        )
        system = text_of(await auditor.get("/admin/audit"))
        assert "operator.signed_in Olga Auditor" in system
        for query in ("before=x", "since=x", "before=01a212ec-474c-7b10-978a-35c5f5a55a71"):
            assert (await auditor.get(f"/admin/audit?tenant=harbour&{query}")).status_code == 422


async def test_operators_when_steered_by_an_admin_then_done_and_the_last_admin_stays(house: House) -> None:
    async with visitor(house.services) as admin, visitor(house.services, None) as other:
        bad = await admin.post("/admin/operators", {"email": "x", "name": "", "role": "owner"})
        assert bad.status_code == 422 and 'id="f-email-wrong"' in bad.text
        made = await admin.post(
            "/admin/operators", {"email": "ben@example.com", "name": "Ben", "role": "auditor"}
        )
        password = re.findall(r"[a-z0-9]{6}(?:-[a-z0-9]{6}){3}", made.text)[0]
        assert (await other.sign_in("ben@example.com", password)).status_code == 303
        ben = await house.services.operators.get("ben@example.com")
        me = await house.services.operators.get("admin@example.com")
        path = f"/admin/operators/{ben.id}"
        assert "is operator now" in await told(await admin.post(f"{path}/role", {"role": "operator"}), admin)
        assert (await other.get("/admin/tenants/new")).status_code == 200
        again = await admin.post(f"{path}/password")
        assert (await other.get("/admin")).status_code == 303
        password = re.findall(r"[a-z0-9]{6}(?:-[a-z0-9]{6}){3}", again.text)[0]
        assert (await other.sign_in("ben@example.com", password)).status_code == 303
        assert "sessions of this operator end" in text_of(await admin.get(f"{path}/disable"))
        assert "is disabled" in await told(await admin.post(f"{path}/disable"), admin)
        assert (await other.get("/admin")).status_code == 303
        assert "may sign in again" in await told(await admin.post(f"{path}/enable"), admin)
        for step, form in (("disable", {}), ("role", {"role": "auditor"})):
            refused = await admin.post(f"/admin/operators/{me.id}/{step}", form)
            assert "only admin" in await told(refused, admin)


async def test_password_when_changed_then_typed_twice_alike_and_the_session_goes_on(house: House) -> None:
    async with visitor(house.services, Role.AUDITOR) as auditor:
        form = {"current": PASSWORD, "new": "another fine password", "again": "another fine passwort"}
        assert (await auditor.post("/admin/password", form)).status_code == 422
        wrong = await auditor.post("/admin/password", {**form, "again": form["new"], "current": "x"})
        assert wrong.status_code == 422 and 'id="f-current-wrong"' in wrong.text
        done = await auditor.post("/admin/password", {**form, "again": form["new"]})
        assert "is changed" in await told(done, auditor)
        assert PASSWORD not in wrong.text and form["new"] not in wrong.text


async def test_crm_page_when_the_driver_declares_budgets_then_what_is_left_is_told(house: House) -> None:
    await house.tenant("acme")
    await house.connect("acme", "rest_api")
    async with visitor(house.services, Role.AUDITOR) as auditor:
        shown = text_of(await auditor.get("/admin/tenants/acme/crm"))
    found = re.search(r"burst: (\d+) left of (\d+) calls per", shown)
    assert found is not None, shown
    assert 0 < int(found[1]) <= int(found[2])
