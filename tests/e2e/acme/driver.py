"""Three drivers of an invented provider: by consent, by client credentials behind a gate, by its own sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crmbridge.core.driver import Proof
from crmbridge.core.errors import EgressRefused
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Setting,
)
from crmbridge.core.operations import FULL, DeleteLevel, Operation
from crmbridge.core.records import Object
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest
from crmbridge.toolkit.auth import SecretRef
from crmbridge.toolkit.rest import RestDriver

_USABLE = (Operation.GET, Operation.LIST, Operation.SEARCH, Operation.CREATE, Operation.UPDATE)
_OBJECTS = {
    Object.CUSTOMER: ObjectSpec(
        native="contacts",
        path="/v1/contacts",
        operations=dict.fromkeys(_USABLE, FULL),
        delete_level=DeleteLevel.UNSUPPORTED,
        idempotency=Idempotency(kind=IdempotencyKind.EXTERNAL_ID, field="external_id"),
    )
}
_URL = Setting(name="url", label="Address", help="Where Acme is.", kind="url")


def _manifest(slug: str, auth: Auth, *settings: Setting, gate: str = "") -> Manifest:
    return Manifest(
        slug=slug,
        display_name="Acme",
        api_version="1",
        pages=("https://acme.example/api",),
        read_on="2026-11-23",
        auth=auth,
        settings=(_URL, *settings),
        base_url="{url}",
        objects=_OBJECTS,
        gate=gate,
    )


class _Acme(RestDriver):
    async def test_connection(self) -> Proof:
        tree = await self.exchange_json(HttpRequest(method="GET", url="/v1/me"), operation="test")
        return Proof(account=tree["name"])


class Acme(_Acme):
    """Authorization code with PKCE; refresh tokens rotate."""

    MANIFEST = _manifest(
        "acme",
        Auth(
            kind=AuthKind.OAUTH_CODE,
            authorize_url="{url}/authorize",
            token_url="{url}/{centre}/token",
            scopes=("contacts.read", "contacts.write"),
            authorize_extra={"access_type": "offline"},
            uses_pkce=True,
            refresh_rotates=True,
        ),
        Setting(name="client_id", label="Client id", help="Of your own app.", is_required=False),
        Setting(
            name="client_secret", label="Client secret", help="Its secret.", is_required=False, is_secret=True
        ),
        Setting(name="access_token", label="Service key", help="Instead.", is_required=False, is_secret=True),
    )

    async def prepare(self) -> dict[str, str]:
        request = HttpRequest(method="POST", url="/v1/fields", json={"name": "external_id"})
        tree = await self.exchange_json(request, operation="prepare", is_write=True)
        return {"mark": str(tree["name"])}

    @classmethod
    def callback_facts(cls, parameters: Mapping[str, str]) -> dict[str, str]:
        centre = parameters.get("location", "eu")
        if centre not in ("eu", "us"):
            raise EgressRefused("Acme has no such data centre.")
        return {"centre": centre}

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        return {"instance": str(answer["instance"])} if "instance" in answer else {}

    @classmethod
    def token_fault(cls, status: int, answer: Mapping[str, Any]) -> TokenFault | None:
        return TokenFault.THROTTLED if answer.get("error") == "Access Denied" else None


class AcmeMachine(_Acme):
    """Client credentials, Basic at the token endpoint, health data."""

    MANIFEST = _manifest(
        "acme_machine",
        Auth(
            kind=AuthKind.CLIENT_CREDENTIALS,
            token_url="{url}/eu/token",
            scopes=("contacts.read", "contacts.write"),
            client_auth="basic",
            token_calls_per_minute=5,
        ),
        Setting(name="client_id", label="Client id", help="Of your app."),
        Setting(name="client_secret", label="Client secret", help="Its secret.", is_secret=True),
        gate="phi",
    )


class AcmeLogin(_Acme):
    """A JSON login of its own; the token is kept by the house."""

    MANIFEST = _manifest(
        "acme_login",
        Auth(kind=AuthKind.SIGN_IN),
        Setting(name="user", label="User", help="Who signs in."),
        Setting(name="password", label="Password", help="Of the user.", is_secret=True),
    )

    async def sign_in(self) -> dict[str, Any]:
        body = {"user": self.access.settings["user"], "password": SecretRef("password")}
        tree = await self.exchange_json(
            HttpRequest(method="POST", url="/login", json=body), operation="sign_in"
        )
        return {"access_token": tree["token"]["accessToken"], "expires_in": tree["token"]["expiresIn"]}
