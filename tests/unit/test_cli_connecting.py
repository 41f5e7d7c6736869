"""Connecting by consent, apps and gates over a server in memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_cli_commands import DRIVER, Run, Server, run, server

from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault

__all__ = ["run", "server"]

CONSENT = {**DRIVER, "auth": "oauth_code", "settings": []}
FLOW = "GET tenants/t/oauth/flows/f1"
START = "POST tenants/t/oauth/acme/start"
URL = "http://127.0.0.1:8700/oauth/begin/abc"


class Turns(list[Any]):
    """Answers one after the other; the last one again and again."""

    def next(self) -> Any:
        return self.pop(0) if len(self) > 1 else self[0]


@pytest.fixture
def consent(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose driver connects by a link, and no pauses between looks."""
    monkeypatch.setattr("crmbridge.cli.consent._EVERY", 0.0)
    plain_send = server.send

    async def send(request: HttpRequest) -> HttpResponse:
        key = f"{request.method} {request.url.partition('/api/')[2]}"
        turns = server.answers.get(key)
        if not isinstance(turns, Turns):
            return await plain_send(request)
        server.answers[key] = turns.next()
        try:
            return await plain_send(request)
        finally:
            server.answers[key] = turns

    monkeypatch.setattr(server, "send", send)
    credential = {"id": "f1", "connection": "primary", "status": "pending", "account": "Ann's"}
    expires = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    server.answers |= {
        "GET drivers": {"drivers": [CONSENT]},
        START: {"url": URL, "flow_id": "f1", "expires_at": expires},
        FLOW: Turns([state(name) for name in ("waiting", "exchanging", "done")]),
        "POST tenants/t/credentials/f1/test": {"ok": True, "duration_ms": 3.2, "credential": credential},
        "POST tenants/t/credentials/f1/activate": {**credential, "status": "active"},
    }
    return server


def state(name: str, **more: Any) -> dict[str, Any]:
    return {"flow_id": "f1", "state": name, **more}


def called(server: Server) -> list[str]:
    return [f"{request.method} {request.url.partition('/api/')[2]}" for request in server.seen]


def test_connect_when_consent_is_given_then_waits_tests_and_activates(run: Run, consent: Server) -> None:
    shown = run("connect", "t", "acme", "--name", "second")
    assert URL in shown.stdout.splitlines() and "in use" in shown.stdout
    assert "waiting for consent" in shown.stderr and "consent is given" in shown.stderr
    assert called(consent).count(FLOW) == 3 and called(consent)[-1].endswith("/activate")
    assert consent.seen[1].json == {"settings": {}, "connection": "second"}


def test_connect_when_json_is_wanted_then_the_link_is_on_standard_error_alone(
    run: Run, consent: Server
) -> None:
    shown = run("connect", "t", "acme", "--json", "--no-activate")
    assert shown.stderr.strip() == URL
    assert json.loads(shown.stdout)["ok"] and called(consent)[-1].endswith("/test")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_connect_when_not_waiting_then_only_the_link(
    run: Run, consent: Server, options: tuple[str, ...]
) -> None:
    shown = run("connect", "t", "acme", "--no-wait", *options)
    assert called(consent) == ["GET drivers", START]
    assert json.loads(shown.stdout)["url"] == URL if options else "crmbridge activate t f1" in shown.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (
            state("failed", error={"code": "auth_error", "subcode": "insufficient_scope", "message": "No."}),
            "auth_error/insufficient_scope",
        ),
        (state("expired"), "link_expired"),
        (HttpResponse.of_json(404, {"code": "not_found", "message": "No such flow."}), "not_found"),
    ],
)
def test_connect_when_nothing_comes_of_it_then_says_why_and_tests_nothing(
    run: Run, consent: Server, end: Any, code: str
) -> None:
    consent.answers[FLOW] = Turns([state("waiting"), end])
    assert code in run("connect", "t", "acme", code=1).stderr
    assert called(consent)[-1] == FLOW


def test_connect_when_the_server_is_away_for_a_moment_then_goes_on_waiting(run: Run, consent: Server) -> None:
    away = TransportFailure(TransportFault.CONNECT_FAILED, "the connection is refused", was_sent=False)
    busy = HttpResponse.of_json(503, {"code": "unavailable", "message": "Busy."})
    consent.answers[FLOW] = Turns([away, busy, state("done")])
    shown = run("connect", "t", "acme")
    assert "trying again" in shown.stderr and "in use" in shown.stdout


def test_connect_when_the_app_is_missing_then_the_hint_is_shown(run: Run, consent: Server) -> None:
    body = {
        "code": "not_configured",
        "subcode": "oauth_app_missing",
        "message": "There is no OAuth app.",
        "fix": {"action": "set_oauth_app", "hint": "crmbridge oauth set-app acme"},
    }
    consent.answers[START] = HttpResponse.of_json(409, body)
    shown = run("connect", "t", "acme", code=1)
    assert "not_configured/oauth_app_missing" in shown.stderr and "oauth set-app acme" in shown.stderr


def test_connect_when_rights_are_missing_then_names_them(run: Run, consent: Server) -> None:
    report = consent.answers["POST tenants/t/credentials/f1/test"]
    report["credential"]["missing_rights"] = ["deals.write"]
    report["credential"]["status"] = "active"
    consent.answers["POST tenants/t/credentials/f1/activate"] = report["credential"]
    assert "deals.write" in run("connect", "t", "acme").stdout


@pytest.mark.parametrize("by_link", [True, False])
def test_connect_when_the_settings_decide_the_way_then_the_servers_word_counts(
    run: Run, consent: Server, by_link: bool
) -> None:
    """A driver that consents may take a key instead, and the reverse."""
    refusal = {
        "code": "conflict" if by_link else "validation_error",
        "message": "The other way.",
        "fix": {"action": "fill_in" if by_link else "start_oauth", "hint": "."},
    }
    first, second = (START, "POST tenants/t/credentials")[:: 1 if by_link else -1]
    consent.answers["GET drivers"] = {"drivers": [{**CONSENT, "auth": "oauth_code" if by_link else "bearer"}]}
    consent.answers["POST tenants/t/credentials"] = {"id": "f1", "generated": {}}
    consent.answers[first] = HttpResponse.of_json(409, refusal)
    run("connect", "t", "acme")
    assert called(consent)[1:3] == [first, second] and called(consent)[-1].endswith("/activate")


def test_connect_when_both_ways_are_refused_then_ends_with_the_refusal(run: Run, consent: Server) -> None:
    for path, action in ((START, "fill_in"), ("POST tenants/t/credentials", "start_oauth")):
        body = {"code": "conflict", "message": "No.", "fix": {"action": action, "hint": "."}}
        consent.answers[path] = HttpResponse.of_json(409, body)
    assert "conflict" in run("connect", "t", "acme", code=1).stderr
    assert called(consent) == ["GET drivers", START, "POST tenants/t/credentials"]


def test_activate_when_another_was_in_use_then_tells_the_way_back(run: Run, server: Server) -> None:
    made = {"id": "c2", "connection": "primary", "driver": "acme", "status": "active", "previous_id": "c1"}
    server.answers["POST tenants/t/credentials/c2/activate"] = made
    assert "crmbridge activate t c1" in run("activate", "t", "c2").stderr


# ---------------------------------------------------------------- apps


@pytest.mark.parametrize("way", ["file", "stdin", "environment"])
def test_app_when_set_then_the_secret_is_sent_not_shown_and_the_redirect_is_told(
    run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    redirect = "https://crm.example.com/oauth/callback"
    server.answers |= {
        "PUT oauth/apps/acme": {"driver": "acme", "client_id": "id1", "updated_by": "operator"},
        "GET oauth/apps": {"redirect_uri": redirect, "apps": []},
    }
    (tmp_path / "secret").write_text("s3cret\n")
    options: dict[str, tuple[str, ...]] = {
        "file": ("--secret-file", str(tmp_path / "secret")),
        "stdin": ("--secret-file", "-"),
        "environment": (),
    }
    if way == "environment":
        monkeypatch.setenv("CRMBRIDGE_CLIENT_SECRET", "s3cret")
    shown = run("oauth", "set-app", "acme", "--client-id", "id1", *options[way], text="s3cret\n")
    assert server.seen[0].json == {"client_id": "id1", "client_secret": "s3cret"}
    assert "s3cret" not in shown.output and redirect in shown.stdout.splitlines()


def test_app_when_no_secret_is_given_without_a_terminal_then_nothing_is_sent(
    run: Run, server: Server
) -> None:
    assert "--secret-file" in run("oauth", "set-app", "acme", "--client-id", "id1", code=2).stderr
    assert server.seen == []


def test_apps_when_listed_and_removed_then_shown(run: Run, server: Server) -> None:
    app = {"driver": "acme", "client_id": "id1", "updated_by": "op", "updated_at": "2026-11-23T10:00:00Z"}
    server.answers["GET oauth/apps"] = {"redirect_uri": "https://x.example/oauth/callback", "apps": [app]}
    server.answers["DELETE oauth/apps/acme"] = HttpResponse(status=204, headers={}, body=b"")
    shown = run("oauth", "apps").stdout
    assert "id1" in shown and "https://x.example/oauth/callback" in shown
    assert "forgotten" in run("oauth", "remove-app", "acme").stdout


# ---------------------------------------------------------------- gates

SHUT = {
    "is_open": False,
    "missing": ["reviewer", "reviewed_on"],
    "baa_reference": "DOC-1",
    "baa_signatory": "Dr. Ann",
    "baa_signed_on": "2026-11-01",
    "reviewer": "",
    "reviewed_on": None,
    "is_closed": False,
    "recorded_by": "",
    "recorded_at": None,
}


def test_gate_when_papers_come_one_by_one_then_those_recorded_before_stay(run: Run, server: Server) -> None:
    server.answers["GET tenants/t/gate"] = SHUT
    server.answers["PUT tenants/t/gate"] = {**SHUT, "is_open": True, "missing": []}
    shown = run("tenants", "gate", "t", "--reviewer", "Bo", "--reviewed-on", "2026-11-20")
    assert "is open" in shown.stdout
    assert server.seen[1].json == {
        "baa_reference": "DOC-1",
        "baa_signatory": "Dr. Ann",
        "baa_signed_on": "2026-11-01",
        "reviewer": "Bo",
        "reviewed_on": "2026-11-20",
    }


def test_gate_when_only_looked_at_then_names_what_is_missing_and_writes_nothing(
    run: Run, server: Server
) -> None:
    server.answers["GET tenants/t/gate"] = SHUT
    shown = run("tenants", "gate", "t")
    assert "is shut" in shown.stdout and "--reviewer ... --reviewed-on ..." in shown.stderr
    assert called(server) == ["GET tenants/t/gate"]
    assert json.loads(run("tenants", "gate", "t", "--json").stdout) == SHUT


def test_gate_when_closed_then_shut_and_not_together_with_papers(run: Run, server: Server) -> None:
    server.answers["DELETE tenants/t/gate"] = {**SHUT, "missing": [], "is_closed": True}
    assert "is shut" in run("tenants", "gate", "t", "--close").stdout
    run("tenants", "gate", "t", "--close", "--reviewer", "Bo", code=2)
    assert called(server) == ["DELETE tenants/t/gate"]
