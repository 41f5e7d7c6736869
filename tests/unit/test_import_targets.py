"""Where an import's rows go, and what each connection would refuse of them, before any is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from crmbridge.cli.main import build
from crmbridge.cli.processes import Processes
from crmbridge.core.wire import HttpRequest, HttpResponse

TYPES = {"email": "email", "last_name": "text", "bedrooms": "integer", "message": "long_text"}
TENANT = {"slug": "acme", "vertical": "real_estate", "region": "AE", "unknown_slots": "refuse"}


def mappings(*slots: str) -> dict[str, Any]:
    return {
        "mappings": [
            {"object": "lead", "slot": slot, "type": kind, "rule": {"path": slot} if slot in slots else None}
            for slot, kind in TYPES.items()
        ]
    }


class Server:
    """A tenant whose leads go to Main, and to Second also. It plans, and counts what it was asked."""

    def __init__(self) -> None:
        self.tenant = dict(TENANT)
        self.routes = {"main": "primary", "second": "also", "third": "none"}
        self.mapped = {"main": tuple(TYPES), "second": ("email", "last_name", "message"), "third": ("email",)}
        self.plans: list[dict[str, Any]] = []
        self.plan: Callable[[dict[str, Any]], HttpResponse] = lambda body: HttpResponse.of_json(
            200, {"payload": {}}
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        path = request.url.partition("/api/")[2]
        if path == "tenants/acme":
            return HttpResponse.of_json(200, self.tenant)
        if path == "tenants/acme/connections":
            rows = [
                {"name": name, "routes": {} if role == "none" else {"lead": role}}
                for name, role in self.routes.items()
            ]
            return HttpResponse.of_json(200, {"connections": rows})
        if path == "tenants/acme/mappings":
            return HttpResponse.of_json(200, mappings(*self.mapped[request.query["connection"]]))
        assert path == "tenants/acme/records/lead" and request.json["mode"] == "plan"
        self.plans.append({**request.json, **request.query})
        return self.plan(request.json)

    async def close(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr("crmbridge.toolkit.egress.Egress", lambda *a, **k: made)
    monkeypatch.setenv("CRMBRIDGE_API_KEY", "crmb_live_x")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CRMBRIDGE_URL", raising=False)
    return made


def dry_run(file: Path, *arguments: str, code: int = 0) -> Result:
    def never(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("not in these tests")

    app = build(Processes(serve=never, work=never, services=never, command=()))
    words = ["import", str(file), "--tenant", "acme", "--dry-run", *arguments]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "leads.csv"
    made.write_text(
        "E-Mail,Last Name,Bedrooms\na@example.com,Chen,2\nb@example.com,Okafor,\nc@example.com,Reyes,3\n"
    )
    return made


def test_dry_run_when_another_connection_lacks_a_slot_then_its_rows_are_counted(
    server: Server, file: Path
) -> None:
    told = json.loads(dry_run(file, "--json").stdout)
    assert told["good"] == 3 and told["connections"] == ["main", "second"]
    assert told["would_refuse"] == [
        {"connection": "second", "rows": 2, "reason": "no place there for lead.bedrooms"}
    ]
    shown = dry_run(file).stdout
    assert "refused by second: no place there" in shown and "2 rows" in shown
    assert "Each goes to main, second." in shown


def test_dry_run_when_a_connection_is_named_then_it_alone_is_asked(server: Server, file: Path) -> None:
    told = json.loads(dry_run(file, "--json", "--connection", "second").stdout)
    assert told["connections"] == ["second"] and told["would_refuse"] == []
    assert {plan["connection"] for plan in server.plans} == {"second"}
    # What has no place in that CRM is kept in its free text, as before.
    assert told["example"]["message"] == "Bedrooms: 2" and "bedrooms" not in told["example"]


def test_dry_run_when_a_connection_refuses_a_row_otherwise_then_said_with_its_line(
    server: Server, file: Path
) -> None:
    def plan(body: dict[str, Any]) -> HttpResponse:
        fields = [{"field": "lead.bedrooms", "message": "has no place in this CRM"}]
        also: dict[str, Any] = {"connection": "second", "error": {"code": "validation_error"}}
        if "bedrooms" not in body["fields"]:
            fields = [{"field": "lead.bedrooms", "message": "is required"}]
        also["error"]["fields"] = fields
        return HttpResponse.of_json(200, {"payload": {}, "also": [also]})

    server.plan = plan
    told = json.loads(dry_run(file, "--json").stdout)
    # The first row's refusal says no more than what is counted; the second row's is another one.
    assert [each for each in told["would_refuse"] if "line" in each] == [
        {"connection": "second", "line": 3, "reason": "validation_error: lead.bedrooms: is required"}
    ]
    assert [len(each["fields"]) for each in server.plans] == [3, 2]


def test_dry_run_when_the_primary_refuses_then_said_under_its_name(server: Server, file: Path) -> None:
    body = {"code": "unsupported", "message": "Main takes no upsert of leads."}
    server.plan = lambda _: HttpResponse.of_json(422, body)
    told = json.loads(dry_run(file, "--json", "--match", "email").stdout)
    assert {each["connection"] for each in told["would_refuse"] if "line" in each} == {"main"}
    assert "takes no upsert" in told["would_refuse"][-1]["reason"] and server.plans[0]["match"] == ["email"]


def test_dry_run_when_the_policy_keeps_unknown_slots_then_none_is_counted(server: Server, file: Path) -> None:
    server.tenant["unknown_slots"] = "note"
    assert json.loads(dry_run(file, "--json").stdout)["would_refuse"] == []


def test_dry_run_when_nothing_is_primary_then_says_how_to_route(server: Server, file: Path) -> None:
    server.routes = {"second": "also"}
    refused = json.loads(dry_run(file, "--json", code=2).stdout)["error"]
    assert "connections routes acme NAME lead=primary" in refused["fix"]["hint"]
