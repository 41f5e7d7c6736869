"""``crmbridge operators`` over a stand-in for the services: what it asks for, prints and refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from typer.testing import CliRunner

from crmbridge.cli.main import build
from crmbridge.cli.processes import Processes
from crmbridge.core.errors import NotFound
from crmbridge.services.operators.model import Operator, Role

ANN = Operator(
    id=UUID(int=7),
    email="ann@example.com",
    name="Ann",
    role=Role.ADMIN,
    created_by="system",
    created_at=datetime(2026, 11, 25, tzinfo=UTC),
    password_changed_at=datetime(2026, 11, 25, tzinfo=UTC),
    disabled_at=None,
    locked_until=None,
    signed_in_at=None,
)


class People:
    """Remembers calls; knows Ann."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def add(self, *given: Any) -> tuple[Operator, str]:
        self.calls.append(("add", *given))
        return ANN, "" if given[3] else "made-pass-word-once"

    async def get(self, email: str) -> Operator:
        if email != ANN.email:
            raise NotFound("There is no such operator.")
        return ANN

    async def list(self) -> list[Operator]:
        return [ANN]

    async def disable(self, *given: Any) -> Operator:
        self.calls.append(("disable", *given))
        return msgspec.structs.replace(ANN, disabled_at=ANN.created_at)

    async def enable(self, *given: Any) -> Operator:
        self.calls.append(("enable", *given))
        return ANN

    async def set_role(self, *given: Any) -> Operator:
        self.calls.append(("role", *given))
        return msgspec.structs.replace(ANN, role=Role(given[1]))

    async def set_password(self, *given: Any) -> tuple[Operator, str]:
        self.calls.append(("password", *given))
        return ANN, "" if given[1] else "made-pass-word-once"


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def run(people: People, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("CRMBRIDGE_OPERATOR_PASSWORD", "CRMBRIDGE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    @asynccontextmanager
    async def services(settings: Any) -> AsyncIterator[Any]:
        yield type("House", (), {"operators": people})()

    async def never(*given: Any, **named: Any) -> None:
        raise AssertionError

    app = build(Processes(serve=never, work=never, services=services, command=("crmbridge",)))

    def call(*arguments: str, stdin: str = "") -> Any:
        return CliRunner().invoke(app, ["operators", *arguments], input=stdin)

    return call


def test_add_when_the_password_comes_from_stdin_or_the_environment_then_never_printed(
    run: Any, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("add", "ann@example.com", "--role", "admin", "--password-stdin", stdin="seven quiet herons\n")
    assert done.exit_code == 0 and "herons" not in done.output
    assert people.calls == [("add", "ann@example.com", "ann", "admin", "seven quiet herons", "system")]
    monkeypatch.setenv("CRMBRIDGE_OPERATOR_PASSWORD", "nine loud geese swim")
    done = run("add", "ann@example.com", "--name", "Ann", "--json")
    assert people.calls[1] == ("add", "ann@example.com", "Ann", "operator", "nine loud geese swim", "system")
    assert json.loads(done.stdout)["email"] == "ann@example.com" and "geese" not in done.output


def test_add_when_generated_then_shown_once(run: Any) -> None:
    assert "made-pass-word-once" in run("add", "ann@example.com", "--generate").stdout
    tree = json.loads(run("add", "ann@example.com", "--generate", "--json").stdout)
    assert tree["password"] == "made-pass-word-once" and tree["role"] == "admin"


@pytest.mark.parametrize("extra", [[], ["--json"], ["--generate", "--password-stdin"]])
def test_add_when_there_is_no_password_or_two_ways_then_refused(
    run: Any, people: People, extra: list[str]
) -> None:
    done = run("add", "ann@example.com", *extra)
    assert done.exit_code != 0 and people.calls == []


def test_steps_when_taken_then_by_id_and_shown(run: Any, people: People) -> None:
    assert "disabled" in run("disable", "ann@example.com").stdout
    assert "disabled" not in run("enable", "ann@example.com").stdout
    assert "auditor" in run("role", "ann@example.com", "auditor").stdout
    assert "made-pass-word-once" in run("password", "ann@example.com", "--generate").stdout
    assert [call[:2] for call in people.calls] == [
        (step, ANN.id) for step in ("disable", "enable", "role", "password")
    ]
    assert "ann@example.com" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)["operators"][0]["role"] == "admin"


def test_step_when_nobody_has_the_address_then_told(run: Any) -> None:
    done = run("disable", "eve@example.com")
    assert done.exit_code != 0 and "no such operator" in done.output
