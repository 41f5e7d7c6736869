"""``compose.yaml`` and ``Dockerfile`` against the product, as far as that goes without a container engine."""

from __future__ import annotations

import os
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
# Read by the command line, so no settings of a process.
_OPTIONS = {"CRMBRIDGE_ADMIN_URL", "CRMBRIDGE_URL", "CRMBRIDGE_API_KEY"}


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


def test_file_when_read_then_says_which_engine_ran_it_and_on_what() -> None:
    for name in ("compose.yaml", "Dockerfile"):
        head = (ROOT / name).read_text()[:500]
        assert re.search(r"on \d{4}-\d\d-\d\d with Docker Engine \d+\.\d+\.\d+", head), name
        assert "untried" in head, name


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
        if name == "api":
            own += int(service["environment"]["CRMBRIDGE_SHUTDOWN_DELAY_SECONDS"])
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
    # In an upgrade the old ones and the new ones run side by side.
    assert most is not None and int(most[1]) >= 2 * total + 20


def test_probes_when_asked_then_by_readiness_at_the_port_of_the_process(tree: dict[str, Any]) -> None:
    for name, variable in (("api", "CRMBRIDGE_PORT"), ("worker", "CRMBRIDGE_WORKER_PORT")):
        service = tree["services"][name]
        [code] = [part for part in service["healthcheck"]["test"] if "urlopen" in part]
        assert f":{service['environment'][variable]}/readyz" in code
        compile(code, name, "exec")


def test_scripts_when_read_by_a_shell_then_they_parse(tree: dict[str, Any]) -> None:
    scripts = {name: tree["services"][name]["command"][0] for name in ("setup", "api", "worker")}
    scripts["cli"] = tree["services"]["cli"]["entrypoint"][2]
    for name, script in scripts.items():
        script = script.replace("$$", "$")
        done = subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (name, done.stderr)


@pytest.mark.parametrize(
    ("given", "kept", "expected"),
    [
        ("", "crmb_first", "crmb_first"),
        ("crmb_mine", "crmb_first", "crmb_mine"),
        ("crmb_mine", "", "crmb_mine"),
    ],
)
def test_command_line_when_run_then_it_has_addresses_and_a_key_and_all_words(
    tree: dict[str, Any], tmp_path: Path, given: str, kept: str, expected: str
) -> None:
    (tmp_path / "database.env").write_text("CRMBRIDGE_DATABASE_URL=postgresql://app@database/x\n")
    if kept:
        (tmp_path / "admin.key").write_text(kept + "\n")
    program = tmp_path / "crmbridge"
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$CRMBRIDGE_DATABASE_URL" "$CRMBRIDGE_API_KEY" "$#" "$1" "$2"\n'
    )
    program.chmod(0o755)
    shell, flags, script, name = tree["services"]["cli"]["entrypoint"]
    script = script.replace("$$", "$").replace("/keys/", f"{tmp_path}/")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CRMBRIDGE_DATA_DIR": str(tmp_path)}
    if given:
        environment["CRMBRIDGE_API_KEY"] = given
    done = subprocess.run(
        [shell, flags, script, name, "tenants", "two words"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["postgresql://app@database/x", expected, "2", "tenants", "two words"]


# Stands for every program that the script calls; kills the script at the call that is asked for, and does nothing then.
_MORTAL = """#!/bin/sh
echo x >> "$CALLS"
[ "$(wc -l < "$CALLS")" -ne "$DIE_AT" ] || kill -9 $PPID
case "${0##*/} $*" in
    "crmbridge keys init"*) echo key > "$4" ;;
    "crmbridge db init") printf 'CRMBRIDGE_DATABASE_%s=made\\n' URL SCHEDULER_URL OWNER_URL ;;
    "crmbridge db migrate") test -n "$CRMBRIDGE_DATABASE_URL$CRMBRIDGE_DATABASE_OWNER_URL" ;;
    chown*) ;;
    *) exec "/bin/${0##*/}" "$@" ;;
esac
"""


@pytest.mark.parametrize("die_at", range(1, 10))
def test_setup_when_killed_at_any_step_then_the_next_run_ends_whole(
    tree: dict[str, Any], tmp_path: Path, die_at: int
) -> None:
    for name in ("keys", "owner", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "postgres_password").write_text("secret")
    for name in ("crmbridge", "grep", "rm", "mv", "chown", "cat"):
        (tmp_path / "bin" / name).write_text(_MORTAL)
        (tmp_path / "bin" / name).chmod(0o755)
    script = tree["services"]["setup"]["command"][0].replace("$$", "$")
    for folder, place in (("/keys", "keys"), ("/owner", "owner"), ("/run/secrets", ".")):
        script = re.sub(rf"(?<=[ .]){folder}(?=[/\s])", str(tmp_path / place), script)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls")}
    run = ["/bin/sh", "-euc", script]
    first = subprocess.run(run, env={**environment, "DIE_AT": str(die_at)}, capture_output=True, check=False)
    calls = len((tmp_path / "calls").read_text().splitlines())
    assert (first.returncode == -9) == (calls == die_at), first.stderr
    done = subprocess.run(run, env={**environment, "DIE_AT": "0"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    addresses = (tmp_path / "keys/database.env").read_text()
    assert addresses == "CRMBRIDGE_DATABASE_URL=made\nCRMBRIDGE_DATABASE_SCHEDULER_URL=made\n"
    assert (tmp_path / "owner/database.env").read_text() == "CRMBRIDGE_DATABASE_OWNER_URL=made\n"
    assert (tmp_path / "keys/master.key").read_text() == "key\n"
    assert sorted(one.name for one in (tmp_path / "owner").iterdir()) == ["database.env"]


def test_image_when_several_services_use_it_then_one_builds_it_and_the_command_line_waits_for_nobody(
    tree: dict[str, Any],
) -> None:
    services = tree["services"]
    ours = {name for name, service in services.items() if service["image"] == "crmbridge:local"}
    assert ours == {"setup", "api", "worker", "cli"}
    # Built by each, they are images with different labels under one name: every `up` would make containers anew.
    assert [name for name in services if "build" in services[name]] == ["setup"]
    assert services["cli"]["profiles"] and not services["cli"]["depends_on"]
    assert services["cli"]["restart"] == "no"


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
        if name in ("api", "worker", "cli"):
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
    assert dockerfile.count("--require-hashes") == 2


def test_image_when_built_then_it_runs_as_a_number_and_needs_nothing_but_the_base_and_an_index() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    assert bases == {"python:3.11-slim-bookworm"}
    # A frontend named here would be fetched from a registry before anything is built.
    assert "# syntax" not in dockerfile
    [user] = re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE)
    number, _, group = user.partition(":")
    assert number.isdigit() and group.isdigit() and f"--uid {number} --gid {group}" in dockerfile
    # The index and its password come by a secret mount or not at all: arguments and variables stay in the history.
    steps = [
        step for step in re.split(r"^(?=[A-Z]+ )", dockerfile, flags=re.MULTILINE) if "pip install" in step
    ]
    steps += [
        step for step in re.split(r"^(?=[A-Z]+ )", dockerfile, flags=re.MULTILINE) if "/pip --python" in step
    ]
    assert len(steps) >= 2
    assert all(step.startswith("RUN --mount=type=secret,id=pip,target=/etc/pip.conf ") for step in steps)
    assert not re.search(r"^ARG |index-url|PIP_", dockerfile, re.MULTILINE)


def test_howto_when_it_names_compose_commands_then_their_services_are_there(tree: dict[str, Any]) -> None:
    page = (ROOT / "docs/howto/several-machines.md").read_text()
    found = re.findall(
        r"docker compose (?:run --rm|exec|port --index \d|rm --force|cp) (?:-T )?([a-z]+)", page
    )
    assert set(found) >= {"cli", "api", "setup", "database"} and set(found) <= set(tree["services"])
    scaled = {name: int(count) for name, count in re.findall(r"--scale ([a-z]+)=(\d+)", page)}
    for name in ("api", "worker"):
        assert scaled[name] == 2 * tree["services"][name]["deploy"]["replicas"]
    low, high = re.findall(r"127\.0\.0\.1:(\d+)-(\d+):8700", tree["services"]["api"]["ports"][0])[0]
    assert f"{low} to {high}" in page and int(high) - int(low) + 1 >= scaled["api"]
