"""Master keys: read from the environment or a file, refused with the command that makes one."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from crmbridge.core.secret import Secret
from crmbridge.services.vault import (
    EnvKeyProvider,
    FileKeyProvider,
    MasterKeyMissing,
    SealBroken,
    new_master_key,
    provider_from,
    write_master_key_file,
)
from crmbridge.settings import Settings

KEY = base64.b64encode(bytes(range(32))).decode()


def env(text: str) -> EnvKeyProvider:
    return EnvKeyProvider(Secret(text))


def test_provider_when_no_key_is_set_then_refused_with_the_command() -> None:
    with pytest.raises(MasterKeyMissing, match="crmbridge keys init"):
        provider_from(Settings())


def test_new_master_key_when_made_then_usable_and_never_the_same() -> None:
    made = {new_master_key() for _ in range(50)}
    assert len(made) == 50
    provider = provider_from(Settings(master_key=Secret(made.pop())))
    assert provider.ids == (provider.current_id,)


def test_several_keys_when_given_then_the_first_is_current() -> None:
    provider = env(f"k2:{base64.b64encode(os.urandom(32)).decode()}, k1:{KEY}")
    assert provider.current_id == "k2"
    assert provider.ids == ("k2", "k1")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (KEY, "id:base64"),
        (f":{KEY}", "id:base64"),
        (f"k 1:{KEY}", "id:base64"),
        ("k1:not base64 at all!", "not base64"),
        (f"k1:{KEY[:-8]}", "29 bytes|26 bytes|not base64|bytes instead of 32"),
        (f"k1:{KEY},k1:{KEY}", "again"),
        (" , ", "no master key"),
    ],
)
def test_bad_key_when_read_then_shape_and_command_are_told_and_never_the_key(text: str, what: str) -> None:
    with pytest.raises(MasterKeyMissing, match=what) as caught:
        env(text)
    assert "crmbridge keys init" in caught.value.message
    assert KEY[:12] not in str(caught.value)


def test_provider_when_printed_then_only_ids_are_told() -> None:
    assert repr(env(f"k1:{KEY}")) == "EnvKeyProvider(ids=('k1',))"


async def test_wrapped_key_when_unwrapped_with_another_binding_or_key_then_broken() -> None:
    provider = env(f"k1:{KEY}")
    wrapped = await provider.wrap(b"x" * 32, b"tenant 1")
    assert await provider.unwrap("k1", wrapped, b"tenant 1") == b"x" * 32
    with pytest.raises(SealBroken):
        await provider.unwrap("k1", wrapped, b"tenant 2")
    with pytest.raises(SealBroken):
        await env(f"k1:{base64.b64encode(os.urandom(32)).decode()}").unwrap("k1", wrapped, b"tenant 1")
    with pytest.raises(SealBroken):
        await provider.unwrap("k1", b"", b"tenant 1")


async def test_unknown_key_id_when_unwrapped_then_the_missing_id_is_named() -> None:
    with pytest.raises(MasterKeyMissing, match="'k9'"):
        await env(f"k1:{KEY}").unwrap("k9", b"x" * 61, b"")


def test_key_file_when_written_then_private_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    key_id = write_master_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert provider_from(Settings(master_key_file=path)).ids == (key_id,)
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_key_file_when_it_exists_then_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    write_master_key_file(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_master_key_file(path)
    assert path.read_bytes() == before


def test_key_file_when_rotated_then_the_new_key_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    old = write_master_key_file(path)
    new = write_master_key_file(path, rotate=True)
    assert FileKeyProvider(path).ids == (new, old)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_key_file_when_others_may_use_it_then_refused_with_chmod(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    write_master_key_file(path)
    path.chmod(mode)
    with pytest.raises(MasterKeyMissing) as caught:
        FileKeyProvider(path)
    assert f"{mode:04o}" in caught.value.message
    assert "chmod 600" in caught.value.fix.hint


def test_key_file_when_missing_or_a_folder_then_clear(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyMissing, match="does not exist"):
        FileKeyProvider(tmp_path / "nothing")
    with pytest.raises(MasterKeyMissing, match="cannot be read"):
        FileKeyProvider(tmp_path)


def test_key_file_when_it_has_comments_then_they_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_text(f"# made on Monday\nk1:{KEY}\n\n")
    path.chmod(0o600)
    assert FileKeyProvider(path).ids == ("k1",)
