"""``crmbridge connections`` and the steps on many writes: what they send and show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.test_cli_commands import Run, Server, run, server

from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest, HttpResponse

__all__ = ["run", "server"]


def connection(name: str, is_paused: bool = False, **routes: str) -> dict[str, Any]:
    return {
        "name": name,
        "driver": "acme",
        "status": "active",
        "account": "Acme Ltd",
        "routes": routes,
        "is_paused": is_paused,
    }


TWO = {
    "connections": [
        connection("primary", False, **{obj.value: "primary" for obj in Object}),
        connection("second", lead="also", note="also", deal="primary"),
    ]
}


@pytest.mark.parametrize("words", [("connections", "t"), ("connections", "list", "t")])
def test_connections_when_a_tenant_is_named_then_listed_with_what_each_gets(
    run: Run, server: Server, words: tuple[str, ...]
) -> None:
    server.answers |= {"GET tenants/t/connections": TWO, "GET tenants/t/credentials": {"credentials": []}}
    shown = run(*words).stdout
    assert "primary: all" in shown and "primary: deal; also: lead, note" in shown
    assert json.loads(run(*words, "--json").stdout)["connections"] == TWO["connections"]
    assert json.loads(run("connections", "--json", "t").stdout)["connections"] == TWO["connections"]


def test_routes_when_given_then_sent_and_without_any_then_shown(run: Run, server: Server) -> None:
    server.answers |= {
        "PUT tenants/t/connections/second/routes": TWO,
        "GET tenants/t/connections": TWO,
    }
    shown = run("connections", "routes", "t", "second", "lead=also", "note=none")
    assert server.seen[-1].json == {"routes": {"lead": "also", "note": "none"}}
    assert "also: lead, note" in shown.stdout
    assert "second" not in run("connections", "routes", "t", "primary").stdout
    assert "second" in run("connections", "routes", "t").stdout
    lost = run("connections", "routes", "t", "nobody", code=1).stderr
    assert "not_found" in lost and "primary, second" in lost
    run("connections", "routes", "t", "lead=also", code=2)


def test_pause_and_resume_when_ordered_then_shown(run: Run, server: Server) -> None:
    server.answers |= {
        "POST tenants/t/connections/second/pause": {"connections": [connection("second", True)]},
        "POST tenants/t/connections/second/resume": {"connections": [connection("second")]},
    }
    paused = run("connections", "pause", "t", "second")
    assert "paused" in paused.stdout and "connections resume t second" in paused.stderr
    assert "paused" not in run("connections", "resume", "t", "second").stdout
    assert server.seen[-1].json == {}
    told = run("connections", "pause", "t", "second", "--json", "--reason", "moves")
    assert server.seen[-1].json == {"reason": "moves"}
    assert json.loads(told.stdout)["connections"][0]["is_paused"] is True


def test_step_on_all_when_there_are_many_then_in_parts_with_progress_and_each_once(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2_500, 1_500, 500, 0]

    async def send(request: HttpRequest) -> HttpResponse:
        server.seen.append(request)
        moved = 1_000 if left[0] > 500 else left[0]
        left.pop(0)
        return HttpResponse.of_json(
            200, {"redriven": moved, "left": left[0], "until": "2026-11-25T10:00:00Z"}
        )

    monkeypatch.setattr(server, "send", send)
    shown = run("writes", "redrive", "t", "--all", "--connection", "second", "--code", "conflict")
    assert "2,500 targets are tried again." in shown.stdout
    assert "1,000 of 2,500" in shown.stderr and "2,000 of 2,500" in shown.stderr
    first, second, third = (request.json for request in server.seen)
    assert first == {"state": "dead_letter", "code": "conflict", "connection": "second", "limit": 1_000}
    assert second == third == {**first, "until": "2026-11-25T10:00:00Z"}


def write_with(*targets: dict[str, str]) -> dict[str, Any]:
    """A write as the server shows it."""
    return {
        "id": "w1",
        "operation": "create",
        "object": "lead",
        "actor": "key:1",
        "source": "api",
        "accepted_at": "2026-11-25T10:00:00Z",
        "targets": list(targets),
    }


@pytest.mark.parametrize("step", ["redrive", "cancel", "discard"])
def test_step_when_one_connection_is_named_then_its_target_alone(run: Run, server: Server, step: str) -> None:
    target = {"id": "t1", "connection": "second", "state": "retrying"}
    server.answers[f"POST tenants/t/writes/w1/{step}"] = write_with(target)
    options = ("--yes",) if step == "discard" else ()
    shown = run("writes", step, "t", "w1", "--connection", "second", *options)
    assert server.seen[0].query == {"connection": "second"} and "second" in shown.stdout


def test_redrive_when_without_looking_then_warned_first_and_said_to_the_server(
    run: Run, server: Server
) -> None:
    refused = run("writes", "redrive", "t", "w1", "--without-looking", code=1, text="n\n")
    assert server.seen == [] and "will be there twice" in refused.stderr
    server.answers["POST tenants/t/writes/w1/redrive"] = write_with()
    run("writes", "redrive", "t", "w1", "--without-looking", "--yes")
    assert server.seen[0].query == {"without_looking": "true"}
    run("writes", "redrive", "t", "w1")
    assert server.seen[1].query == {}
    server.answers["POST tenants/t/writes/redrive"] = {"redriven": 2, "left": 0, "until": ""}
    run("writes", "redrive", "t", "--all", "--state", "parked", "--without-looking", "--yes")
    assert server.seen[2].json == {"state": "parked", "without_looking": True, "limit": 1_000}


@pytest.mark.parametrize("which", ["w1", "--all"])
def test_discard_when_a_reason_is_given_then_it_goes_along_for_one_and_for_all(
    run: Run, server: Server, which: str
) -> None:
    server.answers["POST tenants/t/writes/w1/discard"] = write_with()
    server.answers["POST tenants/t/writes/discard"] = {"discarded": 1, "left": 0, "until": ""}
    run("writes", "discard", "t", which, "--reason", "a test of ours", "--yes")
    rest = {} if which == "w1" else {"state": "dead_letter", "limit": 1_000}
    assert server.seen[0].json == {**rest, "reason": "a test of ours"}


@pytest.mark.parametrize("step", ["cancel", "discard"])
def test_step_on_all_when_not_confirmed_then_nothing_is_sent(run: Run, server: Server, step: str) -> None:
    run("writes", step, "t", "--all", code=1, text="n\n")
    assert server.seen == []
    server.answers[f"POST tenants/t/writes/{step}"] = {
        f"{step}led": 1,
        f"{step}ed": 1,
        "left": 0,
        "until": "",
    }
    told = run("writes", step, "t", "--all", "--yes", "--json")
    assert list(json.loads(told.stdout).values()) == [1]


def test_test_when_the_connection_is_unknown_then_not_found_names_those_there_are(
    run: Run, server: Server
) -> None:
    held = [{"id": "c1", "connection": name, "status": "active"} for name in ("second", "primary")]
    server.answers |= {"GET tenants/t/credentials": {"credentials": held}}
    lost = run("test", "t", "--connection", "nobody", code=1).stderr
    assert "not_found" in lost and "'nobody'" in lost and "primary, second" in lost
