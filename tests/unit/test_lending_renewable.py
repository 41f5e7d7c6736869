"""Which credentials live on tokens that we can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from crmbridge.core.driver import CrmDriver
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.services.connections.lending import is_renewable

MANIFEST = Manifest(
    slug="specimen",
    display_name="Specimen",
    api_version="1",
    pages=("https://example.com/docs",),
    read_on="2026-11-25",
    auth=Auth(kind=AuthKind.SIGN_IN),
)


class OptionalLogin(CrmDriver):
    MANIFEST = MANIFEST

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        kind = AuthKind(settings.get("kind", "sign_in"))
        return msgspec.structs.replace(MANIFEST, auth=Auth(kind=kind, secret="key"))

    async def sign_in(self) -> dict[str, Any]:
        return {"access_token": "x"}


class Keeper(CrmDriver):
    MANIFEST = MANIFEST


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sign_in", True),
        ("client_credentials", True),
        ("oauth_code", True),
        ("api_key", False),
        ("bearer", False),
    ],
)
def test_renewable_when_the_sign_in_is_optional_then_by_the_auth_of_these_settings(
    kind: str, expected: bool
) -> None:
    assert is_renewable(OptionalLogin, {"kind": kind}) is expected


def test_renewable_when_sign_in_is_declared_without_one_then_not() -> None:
    assert not is_renewable(Keeper, {})
