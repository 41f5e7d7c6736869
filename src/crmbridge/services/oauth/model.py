"""Types of the oauth room."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.errors import CrmError, Fix, NotConfigured
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault

__all__ = [
    "App",
    "Client",
    "Flow",
    "FlowRefused",
    "FlowState",
    "Link",
    "Redirect",
    "TokenRefused",
    "TokenSet",
]


class FlowRefused(NotConfigured):
    """A link or a callback that leads nowhere: unknown, used, too old, or opened in another browser."""

    http_status = 400
    default_fix = Fix("start_again", "Ask for a new link: start the connection again.")


class App(msgspec.Struct, frozen=True, kw_only=True):
    """Our app at one provider, as it may be shown."""

    driver: str
    client_id: str
    updated_by: str
    updated_at: datetime


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for tokens. ``is_tenants`` when the tenant brought its own client id and secret."""

    client_id: Secret
    client_secret: Secret
    is_tenants: bool


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link to consent on our own host; ``flow_id`` is what to ask about it, and the id of the credential to be."""

    url: str
    flow_id: UUID
    expires_at: datetime


class Redirect(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send the browser, and the cookie that binds it."""

    url: str
    cookie: str


class Flow(msgspec.Struct, kw_only=True):
    """A flow whose callback has come. ``secrets`` are the form's; ``verifier`` is empty without PKCE."""

    id: UUID
    tenant_id: UUID
    driver: str
    connection: str
    settings: dict[str, str]
    secrets: dict[str, Secret]
    verifier: Secret
    actor: str


class FlowState(msgspec.Struct, kw_only=True):
    """How far a flow is: ``waiting`` for the person, ``exchanging`` the code, ``failed``, ``expired``, ``done``."""

    flow_id: UUID
    state: str
    expires_at: datetime | None = None
    error: dict[str, Any] | None = None


class TokenSet(msgspec.Struct, kw_only=True):
    """What a token endpoint gave. ``expires_in`` and ``scopes`` are None when it did not say."""

    access_token: Secret
    refresh_token: Secret | None
    expires_in: float | None
    scopes: list[str] | None
    facts: dict[str, str]


class TokenRefused(Exception):
    """No token. ``error`` is for the caller of the CRM call, ``fault`` for the credential's state."""

    def __init__(self, fault: TokenFault, error: CrmError) -> None:
        super().__init__(str(error))
        self.fault = fault
        self.error = error
