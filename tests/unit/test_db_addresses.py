"""Addresses, names and texts of the database room that need no database."""

from __future__ import annotations

import string
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.db.cluster import Postmaster, find_binaries
from crmbridge.db.errors import DatabaseMisconfigured, EmbeddedPostgresFailed, describe_dsn
from crmbridge.db.pool import _begin_as
from crmbridge.db.roles import RoleDsns, RolePasswords, dsn_for
from crmbridge.db.schema import migration_files


@given(st.text(min_size=1), st.text(alphabet=string.ascii_letters + string.digits + "_- %/@:?", min_size=1))
def test_dsn_for_when_password_and_database_are_odd_then_read_back_equal(
    password: str, database: str
) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in password):
        return
    dsn = dsn_for(
        "postgresql://a:b@db.example:6432/x?sslmode=require", user="u", password=password, database=database
    )
    parts = urlsplit(dsn)
    assert unquote(parts.password or "") == password
    assert unquote(parts.path[1:]) == database
    assert (parts.hostname, parts.port, parts.username) == ("db.example", 6432, "u")
    assert parse_qs(parts.query) == {"sslmode": ["require"]}


@given(st.text(alphabet=string.ascii_letters + string.digits, min_size=12))
def test_describe_dsn_when_password_is_there_then_not_shown(password: str) -> None:
    for base in ("postgresql://h:1/x", "postgresql:///x?host=/run/pg&port=5432"):
        shown = describe_dsn(dsn_for(base, user="crm", password=password, database="db"))
        assert password not in shown
        assert shown.endswith("/db as crm")


def test_describe_dsn_when_socket_then_folder_and_port() -> None:
    assert describe_dsn("postgresql://u:p@/x?host=/run/pg&port=5433") == "/run/pg:5433/x as u"
    assert describe_dsn("postgresql://u:p@h:bad/x").startswith("h:5432/x")


@given(st.lists(st.uuids(), min_size=1, max_size=5))
def test_begin_when_uuids_then_text_holds_nothing_else(ids: list[UUID]) -> None:
    text = _begin_as(ids)
    inside = text.removeprefix("begin; select set_config('crmbridge.tenants', '{").removesuffix("}', true)")
    assert [UUID(part) for part in inside.split(",")] == ids


def test_begin_when_uuid_subclass_lies_about_its_text_then_not_believed() -> None:
    class Liar(UUID):
        def __str__(self) -> str:
            return "'); drop table tenants; --"

    assert "drop" not in _begin_as([Liar(int=7)])


def test_passwords_when_shown_then_hidden() -> None:
    passwords = RolePasswords.generate()
    assert len({passwords.owner, passwords.app, passwords.scheduler}) == 3
    assert passwords.owner not in repr(passwords)
    assert "secret" not in repr(RoleDsns("secret", "secret", "secret"))


@pytest.mark.parametrize("name", ["1_create.sql", "0001-create.sql", "0001_Create.sql", "0002_create.sql"])
def test_migration_files_when_name_or_number_is_wrong_then_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1;")
    with pytest.raises(DatabaseMisconfigured, match=name.split(".")[0]):
        migration_files(tmp_path)


def test_migration_files_when_a_number_is_used_twice_then_named(tmp_path: Path) -> None:
    (tmp_path / "0001_create.sql").write_text("select 1;")
    (tmp_path / "0001_other.sql").write_text("select 1;")
    with pytest.raises(DatabaseMisconfigured, match="0001_other"):
        migration_files(tmp_path)


@pytest.mark.parametrize("text", ["", "x", "99999999\n/elsewhere\n", "-5"])
def test_postmaster_when_pid_file_is_broken_or_stale_then_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    assert Postmaster.read(tmp_path) is None


def test_find_binaries_when_variable_names_an_empty_folder_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRMBRIDGE_PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedPostgresFailed, match="holds no postgres and no initdb"):
        find_binaries()
