"""Who may pass: the session's cookie, the token of every form, where a form came from, and the role of a route."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import msgspec

from crmbridge.core.errors import AuthError, Fix, ValidationError

__all__ = [
    "Cookies",
    "Flash",
    "FormRefused",
    "NotAllowed",
    "SignInNeeded",
    "check_form",
    "client_address",
    "form_token",
    "new_token",
    "next_page",
    "open_flash",
    "sealed_flash",
]

_NEXT = re.compile(r"/admin(/[A-Za-z0-9._~%/-]*)?(\?[A-Za-z0-9._~%&=:+-]*)?")
# A browser drops a cookie over 4,096 bytes.
_MOST_FLASH, _MOST_COOKIE = 700, 3600


class SignInNeeded(Exception):
    """Nobody is signed in, or the session has ended: the visitor is sent to the sign-in page."""


class NotAllowed(AuthError):
    """The operator's role does not reach so far."""

    http_status = 403
    default_fix = Fix("ask_admin", "Ask an admin for another role, or to do this for you.")


class FormRefused(ValidationError):
    """A form without the token of this session, or sent from another site. Nothing was done."""

    http_status = 403
    default_fix = Fix("send_again", "Go back, load the page again, and send the form once more.")


class Cookies:
    """Names of our cookies. A browser takes a ``__Host-`` cookie over https alone; plain http is for loopback only."""

    def __init__(self, is_secure: bool) -> None:
        prefix = "__Host-" if is_secure else ""
        self.is_secure = is_secure
        self.session = f"{prefix}crmbridge-session"
        self.visit = f"{prefix}crmbridge-visit"
        self.flash = f"{prefix}crmbridge-flash"
        self.flow = f"{prefix}crmbridge-flow"


def new_token() -> str:
    """256 random bits for a cookie."""
    return secrets.token_urlsafe(32)


def _keyed(token: str, purpose: str, text: str = "") -> str:
    return hmac.new(token.encode(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def form_token(token: str) -> str:
    """What every form of this session carries: derived from the cookie, which no other site can read."""
    return _keyed(token, "form")


def check_form(headers: Mapping[str, str], form: Mapping[str, str], token: str, base_url: str) -> None:
    """Raises FormRefused unless the form comes from our own page and carries its token."""
    origin = headers.get("origin", "")
    netloc = urlsplit(origin).netloc if origin not in ("", "null") else ""
    if not netloc or netloc not in (headers.get("host", ""), urlsplit(base_url).netloc):
        raise FormRefused("This form was not sent from a page of this console.")
    given = form.get("form_token", "")
    if not token or not hmac.compare_digest(given.encode(), form_token(token).encode()):
        raise FormRefused("This form is out of date: it belongs to another sign-in.")


def client_address(scope: Any, trusted: Sequence[str]) -> str:
    """The network address of the visitor; what X-Forwarded-For says counts only from a trusted proxy."""
    client = scope.get("client")
    address = str(client[0]) if client else ""
    if not trusted or not _is_in(address, trusted):
        return address
    named = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for hop in reversed([part.strip() for part in named.decode("latin-1").split(",") if part.strip()]):
        address = hop
        if not _is_in(hop, trusted):
            break
    return address


def _is_in(address: str, networks: Sequence[str]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in ip_network(network) for network in networks)


def next_page(wish: str) -> str:
    """Where to go after sign-in: a page of the console, never another site."""
    return wish if _NEXT.fullmatch(wish) and "//" not in wish and len(wish) <= 500 else "/admin"


class Flash(msgspec.Struct, frozen=True):
    """One message for the next page. ``kind`` is ``done`` or ``problem``; ``hint`` says what to do."""

    kind: str
    text: str
    hint: str = ""


def sealed_flash(flash: Flash, token: str) -> str:
    """A cookie's value that only we can have made, for this session; long texts are cut."""
    text, most = "", _MOST_FLASH
    while not text or len(text) > _MOST_COOKIE:
        cut = Flash(flash.kind, flash.text[:most], flash.hint[:most])
        text, most = base64.urlsafe_b64encode(msgspec.json.encode(cut)).decode(), most // 2
    return f"{text}.{_keyed(token, 'flash', text)}"


def open_flash(value: str, token: str) -> Flash | None:
    """None for anything that we did not make for this session."""
    text, _, mark = value.partition(".")
    if not token or not hmac.compare_digest(mark.encode(), _keyed(token, "flash", text).encode()):
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=Flash)
    except (ValueError, msgspec.MsgspecError):
        return None
