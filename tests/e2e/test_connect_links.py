"""Connect links: one credential each, in one browser, for a while; nothing is put to use."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.acme.house import AcmeHouse

from crmbridge.core.errors import GateClosed, ValidationError
from crmbridge.db.pool import connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services.connections import model
from crmbridge.services.oauth.model import FlowRefused, Link

pytestmark = pytest.mark.postgres


async def link_for(acme: AcmeHouse, driver: str, **more: Any) -> dict[str, Any]:
    answer = await acme.http.post(f"{acme.path}/connect-links", json={"driver": driver, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def token_of(link: dict[str, Any]) -> str:
    return str(link["url"].rpartition("/")[2])


async def test_link_when_the_form_passes_its_test_then_pending_and_the_link_is_used_up(
    acme: AcmeHouse,
) -> None:
    links = acme.services.connections.links
    token = token_of(await link_for(acme, "acme_login"))
    visit = await links.visit(token, "")
    assert visit.tenant.id == acme.tenant.id and not visit.is_consent and len(visit.cookie) >= 40
    form = {**acme.acme.settings(), "user": "ann", "password": "wrong"}
    failed = await links.submit(token, visit.cookie, form)
    assert isinstance(failed, model.TestReport) and not failed.ok
    assert (await acme.credential(str(failed.credential.id)))["status"] == "revoked"
    report = await links.submit(token, visit.cookie, {**form, "password": "opensesame"})
    assert isinstance(report, model.TestReport) and report.ok
    assert (await acme.credential(str(report.credential.id)))["status"] == "pending"
    with pytest.raises(FlowRefused):
        await links.visit(token, visit.cookie)
    actions = await acme.actions()
    assert actions.count("connect_link.created") == actions.count("connect_link.used") == 1


async def test_link_when_opened_by_another_browser_then_refused(acme: AcmeHouse) -> None:
    links = acme.services.connections.links
    token = token_of(await link_for(acme, "acme_login"))
    first = await links.visit(token, "")
    assert (await links.visit(token, first.cookie)).cookie == first.cookie
    with pytest.raises(FlowRefused):
        await links.visit(token, "")
    with pytest.raises(FlowRefused):
        await links.submit(token, "x" * 43, acme.acme.settings())


async def test_link_when_expired_or_foreign_then_refused(acme: AcmeHouse, database_dsns: RoleDsns) -> None:
    links = acme.services.connections.links
    token = token_of(await link_for(acme, "acme_login", hours=1))
    conn = await connect(database_dsns.owner)
    await conn.execute("set row_security = off")
    await conn.execute("alter table connect_links no force row level security")
    await conn.execute("update connect_links set expires_at = now() - interval '1 second'")
    await conn.execute("alter table connect_links force row level security")
    await conn.close()
    for text in (token, token[:-1] + ("A" if token[-1] != "A" else "B"), "", "../admin", "x" * 64):
        with pytest.raises(FlowRefused):
            await links.visit(text, "")


async def test_link_when_for_consent_then_the_flow_runs_and_one_credential_ends_it(acme: AcmeHouse) -> None:
    await acme.put_app()
    links = acme.services.connections.links
    token = token_of(await link_for(acme, "acme", settings=acme.acme.settings()))
    visit = await links.visit(token, "")
    assert visit.is_consent and "url" not in {one.name for one in visit.asked}
    acme.acme.denies = "access_denied"
    for denied in (True, False):
        acme.acme.denies = "access_denied" if denied else ""
        # A guest cannot send our app's secret elsewhere: the operator said where the provider is.
        begun = await links.submit(token, visit.cookie, {"url": "https://elsewhere.example"})
        assert isinstance(begun, Link)
        async with acme.browser() as browser:
            page = await browser.get(begun.url, follow_redirects=True)
        assert (page.status_code == 200) is not denied
    assert isinstance(begun, Link)
    assert (await acme.credential(str(begun.flow_id)))["status"] == "pending"
    with pytest.raises(FlowRefused):
        await links.submit(token, visit.cookie, acme.acme.settings())


async def test_link_when_tried_too_often_then_closed(acme: AcmeHouse) -> None:
    links = acme.services.connections.links
    token = token_of(await link_for(acme, "acme_login"))
    visit = await links.visit(token, "")
    form = {**acme.acme.settings(), "user": "ann", "password": "guess"}
    for _ in range(10):
        await links.submit(token, visit.cookie, form)
    with pytest.raises(FlowRefused):
        await links.submit(token, visit.cookie, {**form, "password": "opensesame"})


async def test_link_when_asked_for_badly_then_named(acme: AcmeHouse) -> None:
    answer = await acme.http.post(f"{acme.path}/connect-links", json={"driver": "acme", "hours": 1000})
    assert answer.status_code == 422 and answer.json()["fields"][0]["field"] == "hours"
    answer = await acme.http.post(f"{acme.path}/connect-links", json={"driver": "opentable"})
    assert answer.json()["subcode"] == "driver_unavailable"
    with pytest.raises(ValidationError):
        await acme.services.connections.links.make(acme.tenant, "acme", hours=0, actor="test")


async def test_link_when_the_driver_is_gated_then_the_papers_come_first(acme: AcmeHouse) -> None:
    with pytest.raises(GateClosed):
        await acme.services.connections.links.make(acme.tenant, "acme_machine", actor="test")


async def test_link_rows_when_read_raw_then_only_hashes(acme: AcmeHouse, database_dsns: RoleDsns) -> None:
    token = token_of(await link_for(acme, "acme_login"))
    visit = await acme.services.connections.links.visit(token, "")
    async with acme.services.db.tenant(acme.tenant.id) as conn:
        rows = [tuple(map(str, row)) for row in await conn.fetch("select * from connect_links")]
    assert rows and token not in str(rows) and visit.cookie not in str(rows)
