"""The commands over a server in memory: what they send, what they print, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from crmbridge.cli.client import find_key
from crmbridge.cli.main import build
from crmbridge.cli.options import parse_links, parse_slots
from crmbridge.cli.output import plain, to_json
from crmbridge.cli.problems import UsageProblem
from crmbridge.cli.processes import Processes
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault

DRIVER = {
    "slug": "acme",
    "display_name": "Acme",
    "settings": [
        {"name": "url", "label": "URL", "help": "Where it is.", "secret": False, "required": True},
        {"name": "token", "label": "Token", "help": "Its token.", "secret": True, "required": True},
    ],
    "objects": {},
}


class Server:
    """Answers by method and path; remembers requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.seen: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        answer = self.answers[f"{request.method} {request.url.partition('/api/')[2]}"]
        if isinstance(answer, TransportFailure):
            raise answer
        return answer if isinstance(answer, HttpResponse) else HttpResponse.of_json(200, answer)

    async def close(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr("crmbridge.toolkit.egress.Egress", lambda *a, **k: made)
    monkeypatch.setenv("CRMBRIDGE_API_KEY", "crmb_live_x")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CRMBRIDGE_URL", raising=False)
    return made


Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def never(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("not in these tests")

    app = build(Processes(serve=never, work=never, services=never, command=()))

    def call(*arguments: str, code: int = 0, text: str | None = None) -> Result:
        result = CliRunner().invoke(app, arguments, input=text)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


def accepted(state: str = "applied") -> dict[str, Any]:
    return {"write_id": "w1", "replayed": False, "targets": [{"state": state, "remote_id": "7"}]}


def test_write_when_no_key_is_given_then_derives_the_same_one_and_says_so(run: Run, server: Server) -> None:
    server.answers["POST tenants/t/records/lead"] = accepted()
    first = run("write", "t", "lead", "--field", "email=a@b.example", "--field", "bedrooms:=3")
    run("write", "t", "lead", "--field", "email=a@b.example", "--field", "bedrooms:=3")
    run("write", "t", "lead", "--field", "email=c@b.example")
    keys = [request.headers["Idempotency-Key"] for request in server.seen]
    assert keys[0] == keys[1] != keys[2]
    assert "made from the content" in first.stderr and "applied" in first.stdout
    assert server.seen[0].json["fields"] == {"email": "a@b.example", "bedrooms": 3}
    assert server.seen[0].headers["Prefer"] == "wait=2"


def test_write_when_all_options_are_given_then_they_are_sent(
    run: Run, server: Server, tmp_path: Path
) -> None:
    server.answers["POST tenants/t/records/note"] = accepted("accepted")
    file = tmp_path / "body.json"
    file.write_text('{"body": "hi"}')
    link, options = "customer.email=a@b.example", ("--key", "K", "--wait", "0", "--match", "email")
    run("write", "t", "note", "--json-file", str(file), "--link", link, *options, "--connection", "second")
    request = server.seen[0]
    assert request.json == {
        "fields": {"body": "hi"},
        "links": {"customer": {"email": "a@b.example"}},
        "match": ["email"],
    }
    assert request.headers["Idempotency-Key"] == "K" and "Prefer" not in request.headers
    assert request.query == {"connection": "second"}


def test_update_when_no_key_is_given_then_none_is_made(run: Run, server: Server) -> None:
    server.answers["PATCH tenants/t/records/lead/a%2Fb"] = accepted()
    run("update", "t", "lead", "a/b", "--field", "email=a@b.example")
    assert "Idempotency-Key" not in server.seen[0].headers


def test_error_when_the_server_refuses_then_one_block_and_exit_1(run: Run, server: Server) -> None:
    body = {
        "code": "validation_error",
        "message": "The content is refused.",
        "fields": [{"field": "lead.email", "message": "is no address \x1b[2J"}],
        "fix": {"action": "correct_fields", "hint": "Correct it."},
        "request_id": "r1",
    }
    server.answers["POST tenants/t/records/lead"] = HttpResponse.of_json(422, body)
    shown = run("write", "t", "lead", "--field", "email=x", code=1)
    for text in ("validation_error", "The content is refused.", "lead.email", "Correct it.", "r1"):
        assert text in shown.stderr
    assert "\x1b" not in shown.stderr and "Traceback" not in shown.stderr
    told = run("write", "t", "lead", "--field", "email=x", "--json", code=1)
    assert json.loads(told.stdout)["error"]["code"] == "validation_error"


@pytest.mark.parametrize(
    "answer",
    [
        TransportFailure(TransportFault.CONNECT_FAILED, "the connection is refused", was_sent=False),
        HttpResponse(status=200, headers={"content-type": "text/html"}, body=b"<html>"),
        HttpResponse(status=502, headers={"content-type": "application/json"}, body=b"{broken"),
    ],
)
def test_error_when_no_crmbridge_answers_then_exit_3(run: Run, server: Server, answer: Any) -> None:
    server.answers["GET whoami"] = answer
    assert "server_unreachable" in run("whoami", code=3).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("write", "t", "lead", "--field", "email"),
        ("write", "t", "lead", "--field", "n:={"),
        ("write", "t", "lead", "--link", "customer=x"),
        ("lookup", "t"),
        ("writes", "redrive", "t"),
        ("whoami", "--url", "ftp://x"),
        ("whoami", "--url", "http://crm.example.com"),
        ("nonsense",),
    ],
)
def test_usage_when_wrong_then_exit_2_and_nothing_is_sent(
    run: Run, server: Server, arguments: tuple[str, ...]
) -> None:
    run(*arguments, code=2)
    assert server.seen == []


def test_connect_when_settings_are_missing_without_a_terminal_then_each_is_named(
    run: Run, server: Server
) -> None:
    server.answers["GET drivers"] = {"drivers": [DRIVER]}
    shown = run("connect", "t", "acme", "--set", "url=https://x.example", code=2)
    assert "token" in shown.stderr and "Its token." in shown.stderr and "Where it is." not in shown.stderr


def test_connect_when_the_test_passes_then_activates_and_secrets_are_not_shown(
    run: Run, server: Server, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    credential = {"id": "c1", "connection": "primary", "status": "pending", "generated": {"hook": "whsec_1"}}
    server.answers |= {
        "GET drivers": {"drivers": [DRIVER]},
        "POST tenants/t/credentials": credential,
        "POST tenants/t/credentials/c1/test": {"ok": True, "duration_ms": 3.2, "credential": credential},
        "POST tenants/t/credentials/c1/activate": {**credential, "status": "active"},
    }
    shown = run("connect", "t", "acme", "--set", "url=-", "--set-file", f"token={secret}", text="https://x\n")
    assert server.seen[1].json["settings"] == {"url": "https://x", "token": "s3cret"}
    assert "s3cret" not in shown.output and "whsec_1" in shown.stdout and "in use" in shown.stdout
    run("connect", "t", "acme", "--set", "url=https://x", "--set", "token=a", "--no-activate")
    assert server.seen[-1].url.endswith("/test")


def test_connect_when_the_test_fails_then_shows_the_error_and_does_not_activate(
    run: Run, server: Server
) -> None:
    credential = {"id": "c1", "connection": "primary", "status": "pending"}
    error = {"code": "auth_error", "subcode": "invalid_credentials", "message": "The key is wrong."}
    report = {"ok": False, "duration_ms": 3.2, "credential": credential, "error": error}
    server.answers |= {
        "GET drivers": {"drivers": [DRIVER]},
        "POST tenants/t/credentials": credential,
        "POST tenants/t/credentials/c1/test": report,
    }
    shown = run("connect", "t", "acme", "--set", "url=https://x", "--set", "token=a", code=1)
    assert "auth_error/invalid_credentials" in shown.stderr and "stays pending" in shown.stdout


def test_drivers_when_shown_then_the_matrix_tells_all_columns(run: Run, server: Server) -> None:
    from crmbridge.api.catalogue import drivers

    server.answers["GET drivers"] = {**drivers(), "problems": ["The driver 'x' of y 1 is left aside: why."]}
    shown = run("drivers")
    for text in (
        "form (bearer key)",
        "n/a, long-lived",
        "pass_through",
        "live: Odoo",
        "delete reaches",
        "unavailable",
    ):
        assert text in shown.stdout, text
    assert "The driver 'x' of y 1 is left aside" in shown.stderr
    one = run("drivers", "odoo")
    for text in (
        "largest batch",
        "200",
        "verified against",
        "JSON-RPC",
        "n/a, long-lived",
        "customer.upsert",
    ):
        assert text in one.stdout, text
    assert json.loads(run("drivers", "odoo", "--json").stdout)["drivers"][0]["largest_batch"] == 200


def test_mapping_when_set_and_unset_then_sends_rule_and_null(run: Run, server: Server) -> None:
    line = {"object": "lead", "slot": "value", "type": "money", "origin": "tenant", "rule": {"path": "x_v"}}
    server.answers["PUT tenants/t/mappings"] = {"driver": "acme", "mappings": [line]}
    shown = run("mapping", "set", "t", "lead.value=x_v", "--format", "money_text", "--value", "a=b")
    run("mapping", "unset", "t", "lead.value")
    assert server.seen[0].json["changes"]["lead.value"] == {
        "path": "x_v",
        "format": "money_text",
        "values": {"a": "b"},
        "direction": "both",
    }
    assert server.seen[1].json["changes"] == {"lead.value": None} and "x_v" in shown.stdout


def test_incident_when_shown_then_how_many_are_parked_which_and_how_to_list_them(
    run: Run, server: Server
) -> None:
    ends = {"write_id": "w1", "what": "create of a lead", "parked_at": "2026-11-25T10:00:00+00:00"}
    command = "crmbridge writes list acme --state parked --connection primary"
    server.answers["GET incidents/acme/i1"] = {
        "id": "i1",
        "title": "Fake: whether 12 writes took effect cannot be told",
        "kind": "write_parked",
        "state": "open",
        "times_seen": 12,
        "opened_at": "2026-11-25T10:00:00+00:00",
        "last_seen_at": "2026-11-25T12:00:00+00:00",
        "details": {"parked": 12, "oldest": ends, "newest": {**ends, "write_id": "w12"}, "list": command},
    }
    shown = run("incidents", "show", "acme", "i1").stdout
    assert "whether 12 writes" in shown and command in shown
    assert "w1  what=create of a lead" in shown and "write_id=w12" in shown


def test_key_when_the_server_is_elsewhere_then_the_local_key_file_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("crmb_live_local\n")
    environ = {"CRMBRIDGE_DATA_DIR": str(tmp_path), "HOME": "/nonexistent", "CRMBRIDGE_PORT": "nonsense"}
    assert find_key("http://127.0.0.1:8700", environ) == "crmb_live_local"
    with pytest.raises(UsageProblem):
        find_key("https://crm.example.com", environ)
    assert find_key("https://crm.example.com", {**environ, "CRMBRIDGE_API_KEY": " k "}) == "k"


def test_keys_init_when_the_file_exists_then_it_is_not_written_over(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    run("keys", "init", "--file", str(file))
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "file_exists" in run("keys", "init", "--file", str(file), code=1).stderr
    assert file.read_text() == first
    run("keys", "init", "--file", str(file), "--rotate")
    assert file.read_text().endswith(first)


def test_terminal_when_a_text_steers_it_then_the_signs_are_shown_not_sent() -> None:
    assert plain("a\x1b[31m\x9b\u202eb\tc") == "a\\x1b[31m\\x9bb\\x09c"
    assert json.loads(to_json({"x": "\x1b\x9b\u00e9"})) == {"x": "\x1b\x9b\u00e9"}
    assert "\x9b" not in to_json({"x": "\x9b"})


def test_pairs_when_written_in_all_forms_then_parsed() -> None:
    assert parse_slots(["a=1=2", "b:=[1]", "c="]) == {"a": "1=2", "b": [1], "c": ""}
    assert parse_links(["customer.phone=+1", "deal.write_id=w"]) == {
        "customer": {"phone": "+1"},
        "deal": {"write_id": "w"},
    }


def test_help_when_shown_then_neither_database_nor_web_library_is_imported() -> None:
    script = (
        "import sys\nfrom crmbridge.app import main\nsys.argv = ['crmbridge', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'asyncpg', 'litestar', 'uvicorn', 'cryptography', 'phonenumbers', 'pgqueuer'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
