"""An expired token and many callers in many processes: one refresh, whatever becomes of the one who makes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from tests.e2e.acme.house import AcmeHouse
from tests.e2e.acme.processes import ended, other_process, start

from crmbridge.core.secret import Secret
from crmbridge.services.connections.lending import ILL_SECONDS
from crmbridge.services.oauth import protocol

pytestmark = pytest.mark.postgres


async def ask(acme: AcmeHouse, times: int) -> Counter[str]:
    """How so many reads at once end: ``ok`` or the code."""
    answers = await asyncio.gather(*(acme.recent() for _ in range(times)))
    return Counter("ok" if answer.status_code == 200 else str(answer.json()["code"]) for answer in answers)


async def until(condition: Callable[[], bool]) -> None:
    """Until a callable is true, 20 s at most."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_refresh_when_64_callers_in_four_processes_then_exactly_one_and_no_lost_grant(
    acme: AcmeHouse, master_key: Secret
) -> None:
    credential_id = await acme.connected()
    others = [await other_process(acme, master_key, 16, "race") for _ in range(3)]
    acme.acme.expire_access()
    acme.acme.token_seconds = 0.3
    for process in others:
        start(process)
    here = await ask(acme, 16)
    there = [await ended(process) for process in others]
    assert here == {"ok": 16} and there == [{"ok": 16}] * 3
    assert acme.acme.grants["refresh_token"] == 1 and acme.acme.deaths == 0
    assert (await acme.credential(credential_id))["status"] == "active"


async def test_refresh_when_the_refresher_is_killed_before_the_provider_acts_then_another_does_it(
    acme: AcmeHouse, master_key: Secret
) -> None:
    credential_id = await acme.connected()
    process = await other_process(acme, master_key, 1, "hang")
    acme.acme.expire_access()
    acme.acme.token_gate = asyncio.Event()
    start(process)
    await until(lambda: acme.acme.token_arrived == 2)
    waiting = asyncio.create_task(ask(acme, 32))
    await asyncio.sleep(0.3)
    process.kill()
    await process.wait()
    acme.acme.lost_token_calls.add(2)
    acme.acme.token_gate.set()
    assert await waiting == {"ok": 32}
    assert acme.acme.grants["refresh_token"] == 1 and acme.acme.deaths == 0
    assert (await acme.credential(credential_id))["status"] == "active"


async def test_refresh_when_killed_after_the_provider_acted_and_it_does_not_rotate_then_no_grant_is_lost(
    acme: AcmeHouse, master_key: Secret
) -> None:
    acme.acme.rotates = False
    credential_id = await acme.connected()
    process = await other_process(acme, master_key, 1, "hang")
    acme.acme.expire_access()
    acme.acme.token_seconds = 0.5
    start(process)
    await until(lambda: acme.acme.grants["refresh_token"] == 1)
    process.kill()
    await process.wait()
    acme.acme.token_seconds = 0.0
    assert await ask(acme, 32) == {"ok": 32}
    assert acme.acme.deaths == 0
    assert (await acme.credential(credential_id))["status"] == "active"


@pytest.mark.parametrize(
    ("how", "code"),
    [("429", "rate_limited"), ("500", "unavailable"), ("html", "unavailable"), ("hang", "unavailable")],
)
async def test_refresh_when_the_token_endpoint_is_ill_then_few_calls_and_the_tenant_stays_connected(
    acme: AcmeHouse, monkeypatch: pytest.MonkeyPatch, how: str, code: str
) -> None:
    credential_id = await acme.connected()
    acme.acme.expire_access()
    before = acme.acme.token_arrived
    if how == "hang":
        monkeypatch.setattr(protocol, "TOKEN_SECONDS", 0.5)
        acme.acme.token_gate = asyncio.Event()
    elif how == "html":
        acme.acme.token_html = True
    else:
        acme.acme.token_error = (int(how), {})
    assert await ask(acme, 32) == {code: 32}
    asked = acme.acme.token_arrived - before
    assert asked == 1, "callers who come together share one token call"
    assert (await acme.credential(credential_id))["status"] == "active"
    assert (await acme.http.get("/api/incidents")).json()["incidents"] == []
    acme.acme.token_html, acme.acme.token_error = False, None
    if acme.acme.token_gate is not None:
        # What hung was never read: a provider that acted on it would have rotated the token unseen.
        acme.acme.lost_token_calls.update(range(before + 1, acme.acme.token_arrived + 1))
        acme.acme.token_gate.set()
        acme.acme.token_gate = None
    if how != "429":
        await asyncio.sleep(ILL_SECONDS)
        assert await ask(acme, 32) == {"ok": 32}


async def test_ahead_when_a_token_is_about_to_end_then_renewed_before_any_call(acme: AcmeHouse) -> None:
    acme.acme.life = 10
    credential_id = await acme.connected()
    before = await acme.credential(credential_id)
    assert await acme.services.connections.ahead.run() == 0, "not due yet"
    await asyncio.sleep(8.1)
    # The worker's own tick may have come first.
    assert await acme.services.connections.ahead.run() in (0, 1)
    assert acme.acme.grants["refresh_token"] == 1
    after = await acme.credential(credential_id)
    assert after["row_version"] == before["row_version"] + 1 and after["rotated_at"] > before["rotated_at"]
    assert (await acme.recent()).status_code == 200
    assert acme.acme.grants["refresh_token"] == 1
    assert await acme.services.connections.ahead.run() == 0


async def test_ahead_when_the_grant_is_dead_then_one_incident_before_any_call_fails(acme: AcmeHouse) -> None:
    acme.acme.life = 3
    credential_id = await acme.connected()
    acme.acme.refresh.clear()
    await asyncio.sleep(2.5)
    await acme.services.connections.ahead.run()
    assert (await acme.credential(credential_id))["status"] == "needs_reauthorization"
    incidents = (await acme.http.get("/api/incidents")).json()["incidents"]
    assert [each["kind"] for each in incidents] == ["reauthorization_needed"]
    assert await acme.services.connections.ahead.run() == 0


async def test_ahead_when_it_fails_for_now_then_not_asked_again_at_once(acme: AcmeHouse) -> None:
    acme.acme.life = 3
    await acme.connected()
    acme.acme.token_error = (500, {})
    await asyncio.sleep(2.5)
    assert await acme.services.connections.ahead.run() == 0
    asked = acme.acme.token_arrived
    assert await acme.services.connections.ahead.run() == 0
    assert acme.acme.token_arrived == asked
