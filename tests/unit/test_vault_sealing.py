"""Sealing: what was sealed opens exactly there, and nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.services.vault.keys import (
    SealBroken,
    SealingKeys,
    TenantKeys,
    bound,
    credential_aad,
    write_aad,
)

TENANT = UUID(int=1)
DATA = {1: os.urandom(32), 2: os.urandom(32)}
INDEX = os.urandom(32)
KEYS = TenantKeys(TENANT, DATA, 2, INDEX)
AAD = write_aad(TENANT, UUID(int=7))

both_forms = pytest.mark.parametrize("form", ["", "_enveloped"])


def seal(form: str, keys: SealingKeys, text: bytes, aad: bytes) -> bytes:
    sealed: bytes = getattr(keys, f"seal{form}")(text, aad)
    return sealed


def open_(form: str, keys: SealingKeys, sealed: bytes, aad: bytes) -> bytes:
    opened: bytes = getattr(keys, f"open{form}")(sealed, aad)
    return opened


@both_forms
@given(text=st.binary(max_size=500), aad=st.binary(max_size=60))
def test_sealed_when_opened_with_the_same_binding_then_the_same(form: str, text: bytes, aad: bytes) -> None:
    sealed = seal(form, KEYS, text, aad)
    assert open_(form, KEYS, sealed, aad) == text
    assert len(sealed) == len(text) + (91 if form else 31)
    if len(text) > 8:
        assert text not in sealed


@both_forms
@given(data=st.data())
def test_sealed_when_any_bit_is_flipped_then_broken(form: str, data: st.DataObject) -> None:
    sealed = bytearray(seal(form, KEYS, b"secret settings", AAD))
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(SealBroken):
        open_(form, KEYS, bytes(sealed), AAD)


@both_forms
@given(data=st.data())
def test_sealed_when_cut_or_lengthened_then_broken(form: str, data: st.DataObject) -> None:
    sealed = seal(form, KEYS, b"x", AAD)
    for wrong in (sealed[: data.draw(st.integers(0, len(sealed) - 1))], sealed + b"\0"):
        with pytest.raises(SealBroken):
            open_(form, KEYS, wrong, AAD)


@given(st.binary(max_size=200))
def test_any_bytes_when_opened_then_broken(noise: bytes) -> None:
    for form in ("", "_enveloped"):
        with pytest.raises(SealBroken):
            open_(form, KEYS, noise, AAD)


@both_forms
def test_sealed_when_moved_to_another_tenant_with_the_same_key_then_broken(form: str) -> None:
    other = TenantKeys(UUID(int=2), DATA, 2, INDEX)
    with pytest.raises(SealBroken):
        open_(form, other, seal(form, KEYS, b"x", AAD), AAD)


def test_sealed_when_opened_as_the_other_form_then_broken() -> None:
    with pytest.raises(SealBroken):
        KEYS.open(KEYS.seal_enveloped(b"x", AAD), AAD)
    with pytest.raises(SealBroken):
        KEYS.open_enveloped(KEYS.seal(b"x" * 100, AAD), AAD)


@both_forms
def test_sealed_when_its_version_is_retired_then_still_opens_and_when_gone_then_broken(form: str) -> None:
    sealed = seal(form, TenantKeys(TENANT, DATA, 1, INDEX), b"old", AAD)
    assert open_(form, KEYS, sealed, AAD) == b"old"
    without = TenantKeys(TENANT, {2: DATA[2]}, 2, INDEX)
    with pytest.raises(SealBroken, match="version 1"):
        open_(form, without, sealed, AAD)


def test_sealed_twice_when_compared_then_different() -> None:
    assert len({KEYS.seal(b"x", AAD) for _ in range(200)}) == 200


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=4),
    st.lists(st.text(max_size=5), min_size=1, max_size=4),
)
def test_bound_when_the_parts_differ_then_the_bytes_differ(one: list[str], two: list[str]) -> None:
    assert (bound(*one) == bound(*two)) == (one == two)


@given(st.text(max_size=60), st.integers(0, 10**9))
def test_credential_aad_when_made_then_bound_of_its_parts(driver: str, version: int) -> None:
    credential = uuid4()
    parts = ("credential", TENANT, driver, credential, version)
    assert credential_aad(TENANT, driver, credential, version) == bound(*parts)


def test_credential_aad_when_any_part_changes_then_it_does_not_open() -> None:
    credential = uuid4()
    sealed = KEYS.seal_enveloped(b"{}", credential_aad(TENANT, "odoo", credential, 1))
    for wrong in (
        credential_aad(UUID(int=2), "odoo", credential, 1),
        credential_aad(TENANT, "zoho", credential, 1),
        credential_aad(TENANT, "odoo", uuid4(), 1),
        credential_aad(TENANT, "odoo", credential, 2),
        write_aad(TENANT, credential),
    ):
        with pytest.raises(SealBroken):
            KEYS.open_enveloped(sealed, wrong)


def test_hash_when_kind_text_or_tenant_differs_then_differs() -> None:
    same = KEYS.hash("email", "jane@example.com")
    assert same == TenantKeys(TENANT, {1: os.urandom(32)}, 1, INDEX).hash("email", "jane@example.com")
    assert len(same) == 32
    others = [
        KEYS.hash("phone", "jane@example.com"),
        KEYS.hash("email", "jane@example.co"),
        KEYS.hash("emailj", "ane@example.com"),
        TenantKeys(UUID(int=2), DATA, 2, INDEX).hash("email", "jane@example.com"),
        TenantKeys(TENANT, DATA, 2, os.urandom(32)).hash("email", "jane@example.com"),
    ]
    assert len({same, *others}) == 6


def test_hash_when_compared_with_the_plain_construction_then_the_same() -> None:
    """Hashes are kept for years: tombstones and idempotency keys must be found by every release."""
    for kind, text in (("subject.email", "jane@example.com"), ("é", "ü" * 300), ("", "")):
        whole = bound(bound("tenant", TENANT), kind, text)
        assert KEYS.hash(kind, text) == hmac.new(INDEX, whole, hashlib.sha256).digest()


def test_keys_when_printed_or_pickled_then_nothing_is_told() -> None:
    assert repr(KEYS) == "TenantKeys(***)"
    with pytest.raises(TypeError):
        pickle.dumps(KEYS)
