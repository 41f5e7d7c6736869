"""``compose.yaml`` and ``Dockerfile`` against the product, as far as that goes without a container engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from crmbridge.cli.main import build
from crmbridge.cli.processes import Processes
from crmbridge.settings import Settings, describe_settings

ROOT = Path(__file__).parents[2]
# Read by the command line for one command, so no setting of a process.
_OPTIONS = {"CRMBRIDGE_ADMIN_URL"}


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def tree(text: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def commands_in(text: str) -> list[list[str]]:
    """Every ``crmbridge ...`` that is run, by its words, up to a redirection."""
    found = re.findall(r"(?:^|exec |\|\| |do )crmbridge ([a-z][^\n>|;]*)", text, re.MULTILINE)
    return [line.split() for line in found]


def lines_of(command: list[str]) -> list[list[str]]:
    return commands_in("\n".join(line.strip() for line in "\n".join(command).splitlines()))


def test_file_when_read_then_says_that_no_engine_ran_it(text: str) -> None:
    for name in ("compose.yaml", "Dockerfile"):
        assert "NOT RUN ON A CONTAINER ENGINE YET" in (ROOT / name).read_text()[:300], name


def test_commands_when_named_then_the_product_has_them_and_their_options(tree: dict[str, Any]) -> None:
    nothing: Any = None
    root: Any = get_command(build(Processes(serve=nothing, work=nothing, services=nothing, command=())))
    seen = [words for service in tree["services"].values() for words in lines_of(service.get("command", []))]
    assert sorted(words[0] for words in seen) == ["db", "db", "keys", "serve", "worker"]
    for words in seen:
        command = root
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        options = {name for parameter in command.params for name in parameter.opts}
        assert all(word in options for word in words if word.startswith("-")), words


def test_variables_when_named_then_they_are_settings_and_their_values_are_read(
    text: str, tree: dict[str, Any]
) -> None:
    known = {fact.variable for fact in describe_settings()} | _OPTIONS
    assert set(re.findall(r"CRMBRIDGE_[A-Z_]+", text)) <= known
    assert set(re.findall(r"CRMBRIDGE_[A-Z_]+", (ROOT / "Dockerfile").read_text())) <= known
    for name in ("api", "worker"):
        # ${NAME:-default} as compose fills it in when nothing is set.
        environment = {
            variable: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)
            for variable, value in tree["services"][name]["environment"].items()
        }
        assert Settings.from_environment(environment).host == "0.0.0.0"


def test_stop_when_asked_then_the_engine_waits_longer_than_the_process(tree: dict[str, Any]) -> None:
    for name in ("api", "worker"):
        service = tree["services"][name]
        own = int(service["environment"]["CRMBRIDGE_SHUTDOWN_SECONDS"])
        # Connections are closed afterwards: 5 s for each of the two pools, 2 for each of the engine's.
        assert int(service["stop_grace_period"].removesuffix("s")) >= own + 5 + 5 + 2 + 2
        # A shell in front would keep the signal to itself.
        assert f"exec crmbridge {'serve' if name == 'api' else 'worker'}" in service["command"][0]


def test_connections_when_all_are_open_then_the_server_has_room(tree: dict[str, Any]) -> None:
    total = 0
    # The engine's, and one that listens for signals.
    for name, engine in (("api", 2 + 1), ("worker", 6 + 1)):
        service = tree["services"][name]
        pools = ("CRMBRIDGE_POOL_SIZE", "CRMBRIDGE_SCHEDULER_POOL_SIZE")
        each = sum(int(service["environment"][pool]) for pool in pools) + engine
        total += each * service["deploy"]["replicas"]
    assert total == 84
    most = re.search(r"max_connections=(\d+)", " ".join(tree["services"]["database"]["command"]))
    assert most is not None and int(most[1]) >= total + 20


def test_probes_when_asked_then_by_readiness_at_the_port_of_the_process(tree: dict[str, Any]) -> None:
    for name, variable in (("api", "CRMBRIDGE_PORT"), ("worker", "CRMBRIDGE_WORKER_PORT")):
        service = tree["services"][name]
        [code] = [part for part in service["healthcheck"]["test"] if "urlopen" in part]
        assert f":{service['environment'][variable]}/readyz" in code
        compile(code, name, "exec")


def test_scripts_when_read_by_a_shell_then_they_parse(tree: dict[str, Any]) -> None:
    for name in ("setup", "api", "worker"):
        script = tree["services"][name]["command"][0].replace("$$", "$")
        done = subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, done.stderr)


def test_secrets_when_looked_for_then_none_is_in_the_file(text: str, tree: dict[str, Any]) -> None:
    assert tree["secrets"] == {"postgres_password": {"file": "./secrets/postgres_password"}}
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    named = {fact.variable for fact in describe_settings() if fact.is_secret}
    for service in tree["services"].values():
        assert not named & set(service.get("environment", {}))
    assert re.findall(r"[a-z]+://[^:/\s]+:(.+?)@", text) == ["$$(cat /run/secrets/postgres_password)"]


def test_rights_when_compared_then_the_owner_is_no_server_and_all_volumes_are_declared(
    tree: dict[str, Any],
) -> None:
    for name, service in tree["services"].items():
        mounts = {mount.split(":")[0]: mount for mount in service["volumes"]}
        assert set(mounts) <= set(tree["volumes"])
        assert ("owner" in mounts) == (name == "setup")
        if name in ("api", "worker"):
            assert mounts["keys"].endswith(":ro") and service["read_only"] and service["cap_drop"] == ["ALL"]


def test_image_when_built_then_what_it_copies_is_there_and_let_through() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for word in line.split()
    }
    assert copied == let
    assert all((ROOT / name).exists() for name in copied)
    assert "USER crmbridge" in dockerfile and dockerfile.count("--require-hashes") == 2
