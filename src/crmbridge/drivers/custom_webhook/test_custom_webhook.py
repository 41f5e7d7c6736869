"""Custom webhook: the contract, and one test per oddity of a receiver."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from crmbridge.conformance import DriverContract
from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    NotConfigured,
    NotFound,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.drivers.custom_webhook.driver import CustomWebhook
from crmbridge.drivers.custom_webhook.emulator import CustomWebhookEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.egress import Egress, EgressPolicy
from crmbridge.toolkit.signatures import new_secret


class TestCustomWebhook(DriverContract):
    driver = CustomWebhook
    emulator = CustomWebhookEmulator
    gaps: ClassVar = {
        "test_wrong_shape_is_unexpected": "provider: by the specification any 2xx is success, an id-less answer too"
    }


def driver_for(emulator: CustomWebhookEmulator, **secrets: str) -> CustomWebhook:
    texts = {**emulator.secrets(), **secrets}
    return CustomWebhook(
        Access(
            settings=emulator.settings(),
            secrets={name: Secret(text) for name, text in texts.items()},
            transport=InProcessTransport(emulator),
        )
    )


def lead(**changes: Any) -> Write:
    facts: dict[str, Any] = {
        "target_id": "11111111-2222-4333-8444-555555555555",
        "operation": Operation.CREATE,
        "object": Object.LEAD,
        "fields": {"email": "mei@example.com", "first_name": "Mei"},
        "idempotency_key": "call-7",
    }
    return Write(**{**facts, **changes})


def free_port() -> int:
    for port in range(21_000, 21_400):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)):
                return port
    raise OSError("no free port from 21000 to 21399")


async def refusal(call: Any) -> CrmError:
    with pytest.raises(CrmError) as caught:
        await call
    return caught.value


async def test_create_when_sent_then_body_is_the_published_shape() -> None:
    emulator = CustomWebhookEmulator()
    result = await driver_for(emulator).create_record(lead(links={"customer": "crm-customer-9"}))
    assert (result.outcome, result.remote_id, result.was_created) == (Outcome.APPLIED, "crm-lead-1", True)
    published = Path(__file__).parent / "fixtures" / "lead.create.json"
    assert emulator.events == [json.loads(published.read_text("utf-8"))]
    assert emulator.requests[0].headers["webhook-id"] == "11111111-2222-4333-8444-555555555555"


async def test_create_when_sent_again_then_receiver_drops_the_repeat() -> None:
    emulator = CustomWebhookEmulator()
    driver = driver_for(emulator)
    first, again = await driver.create_record(lead()), await driver.create_record(lead())
    assert first.remote_id == again.remote_id
    assert (len(emulator.events), emulator.repeats) == (1, 1)


async def test_create_when_answer_is_lost_then_unknown_and_safe_to_repeat() -> None:
    emulator = CustomWebhookEmulator()
    driver = driver_for(emulator)
    emulator.faults.add("cut_after")
    error = await refusal(driver.create_record(lead()))
    assert (error.outcome, error.retry_safe) == (Outcome.UNKNOWN, True)
    assert (await driver.create_record(lead())).remote_id == "crm-lead-1"
    assert len(emulator.events) == 1


@pytest.mark.parametrize("answers", ["empty", "text"])
async def test_create_when_2xx_without_json_then_applied_without_an_id(answers: str) -> None:
    emulator = CustomWebhookEmulator()
    emulator.answers = answers
    result = await driver_for(emulator).create_record(lead())
    assert (result.outcome, result.remote_id) == (Outcome.APPLIED, "")


async def test_create_when_2xx_is_a_web_page_then_it_is_no_acknowledgement() -> None:
    emulator = CustomWebhookEmulator()
    emulator.answers = "html"
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert isinstance(error, UnexpectedResponse)
    assert (error.outcome, error.retry_safe, error.fix.action) == (Outcome.UNKNOWN, True, "answer_json")


async def test_create_when_redirected_then_not_followed_and_the_url_is_the_fix() -> None:
    emulator = CustomWebhookEmulator()
    emulator.answers = "redirect"
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert isinstance(error, NotConfigured)
    assert (error.outcome, error.fix.action) == (Outcome.NOT_APPLIED, "correct_url")
    assert len(emulator.requests) == 1


async def test_create_when_410_then_the_endpoint_is_gone() -> None:
    emulator = CustomWebhookEmulator()
    emulator.answers = "gone"
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert (error.full_code, error.outcome) == ("not_configured/endpoint_gone", Outcome.NOT_APPLIED)


@pytest.mark.parametrize(
    ("status", "kind", "outcome", "retry_safe"),
    [
        (400, ValidationError, Outcome.NOT_APPLIED, False),
        (403, AuthError, Outcome.NOT_APPLIED, False),
        (404, NotConfigured, Outcome.NOT_APPLIED, False),
        (405, NotConfigured, Outcome.NOT_APPLIED, False),
        (409, Conflict, Outcome.NOT_APPLIED, False),
        (429, RateLimited, Outcome.NOT_APPLIED, True),
        (500, Unavailable, Outcome.UNKNOWN, True),
        (502, Unavailable, Outcome.UNKNOWN, True),
        (504, Unavailable, Outcome.UNKNOWN, True),
    ],
)
async def test_create_when_status_then_error_outcome_and_repeat(
    status: int, kind: type[CrmError], outcome: Outcome, retry_safe: bool
) -> None:
    emulator = CustomWebhookEmulator()
    emulator.faults.add("status", status=status, retry_after="7")
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert type(error) is kind
    assert (error.outcome, error.retry_safe, error.retry_after_seconds) == (outcome, retry_safe, 7.0)


async def test_create_when_receiver_refuses_fields_then_slots_are_named() -> None:
    emulator = CustomWebhookEmulator()
    error = await refusal(driver_for(emulator).create_record(lead(fields={"refused_one": "x"})))
    assert isinstance(error, ValidationError)
    assert [(field.field, field.message) for field in error.fields] == [
        ("lead.refused_one", "is refused here")
    ]


async def test_conflict_when_receiver_names_the_record_then_it_is_carried() -> None:
    emulator = CustomWebhookEmulator()
    emulator.faults.add("status", status=409, body={"message": "there is one", "remote_id": "crm-lead-5"})
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert error.existing_remote_id == "crm-lead-5"


@pytest.mark.parametrize("operation", [Operation.UPDATE, Operation.DELETE, Operation.ERASE])
async def test_naming_write_when_no_remote_id_then_refused_before_sending(operation: Operation) -> None:
    emulator = CustomWebhookEmulator()
    result = await driver_for(emulator).write_one(lead(operation=operation))
    assert isinstance(result.error, ValidationError)
    assert result.error.fields[0].field == "lead.remote_id"
    assert emulator.requests == []


async def test_update_when_the_record_is_unknown_then_not_found() -> None:
    error = await refusal(
        driver_for(CustomWebhookEmulator()).update_record(
            lead(operation=Operation.UPDATE, remote_id="crm-lead-77")
        )
    )
    assert isinstance(error, NotFound)


async def test_delete_when_done_then_level_is_pass_through_and_repeat_is_dropped() -> None:
    emulator = CustomWebhookEmulator()
    driver = driver_for(emulator)
    made = await driver.create_record(lead())
    delete = lead(target_id="aaaa", operation=Operation.DELETE, remote_id=made.remote_id, fields={})
    results = [await driver.write_one(delete) for _ in range(2)]
    assert [(one.outcome, one.delete_level) for one in results] == [(Outcome.APPLIED, "pass_through")] * 2
    assert emulator.repeats == 1
    assert len(emulator.store.named("lead")) == 0


async def test_rotation_when_previous_secret_is_set_then_old_and_new_receivers_both_accept() -> None:
    emulator = CustomWebhookEmulator()
    old, new = emulator.signing_secret("old"), emulator.signing_secret("new")
    driver = driver_for(emulator, secret=new, previous_secret=old)
    for number, accepted in enumerate(([old], [new], [old, new])):
        emulator.accepted_secrets = accepted
        assert (await driver.create_record(lead(target_id=f"t-{number}"))).outcome is Outcome.APPLIED
    assert emulator.requests[0].headers["webhook-signature"].count("v1,") == 2


async def test_secret_when_malformed_then_auth_error_without_the_secret() -> None:
    error = await refusal(driver_for(CustomWebhookEmulator(), secret="whsec_c2hvcnQ=").create_record(lead()))
    assert isinstance(error, AuthError)
    assert "c2hvcnQ" not in str(error.to_dict())


async def test_test_event_when_answered_with_another_2xx_then_refused() -> None:
    emulator = CustomWebhookEmulator()
    emulator.answers = "empty"
    error = await refusal(driver_for(emulator).test_connection())
    assert isinstance(error, UnexpectedResponse)
    assert error.fix.action == "answer_200"


async def test_test_event_when_sent_then_it_is_a_no_op() -> None:
    emulator = CustomWebhookEmulator()
    await driver_for(emulator).test_connection()
    assert emulator.written == 0
    assert b'"object":"test"' in (emulator.requests[0].body or b"")
    assert b'"fields":{}' in (emulator.requests[0].body or b"")


async def test_remote_id_when_it_is_an_object_then_outcome_is_unknown() -> None:
    emulator = CustomWebhookEmulator()
    emulator.faults.add("wrong_shape", body={"remote_id": {"a": 1}})
    error = await refusal(driver_for(emulator).create_record(lead()))
    assert (type(error), error.outcome, error.retry_safe) == (UnexpectedResponse, Outcome.UNKNOWN, True)


async def test_official_library_when_it_verifies_on_loopback_then_it_accepts() -> None:
    secret = new_secret()
    seen: list[Any] = []
    port = free_port()

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            seen.append(Webhook(secret.open()).verify(body, dict(request.headers)))
        except WebhookVerificationError:
            return web.json_response({"message": "bad signature"}, status=401)
        return web.json_response({"remote_id": "r-1"})

    app = web.Application()
    app.router.add_post("/in", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    egress = Egress(EgressPolicy(allow=(f"127.0.0.1:{port}",)))
    try:
        url = f"http://127.0.0.1:{port}/in"
        driver = CustomWebhook(Access(settings={"url": url}, secrets={"secret": secret}, transport=egress))
        await driver.test_connection()
        result = await driver.create_record(lead(fields={"first_name": "Zoë 漢字 👩‍👧"}))
        wrong = CustomWebhook(
            Access(settings={"url": url}, secrets={"secret": new_secret()}, transport=egress)
        )
        assert isinstance(await refusal(wrong.create_record(lead())), AuthError)
    finally:
        await egress.close()
        await runner.cleanup()
        await asyncio.sleep(0)
    assert result.remote_id == "r-1"
    assert [event["object"] for event in seen] == ["test", "lead"]
    assert seen[1]["fields"]["first_name"] == "Zoë 漢字 👩‍👧"
