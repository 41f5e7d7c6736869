"""Consent pages and what belongs to them (RFC 6749 section 4.1, RFC 7636), for emulators of OAuth providers."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from urllib.parse import urlencode

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation.emulator import Incoming

__all__ = ["consent_page", "sent_back", "verifies"]


def consent_page(
    call: Incoming,
    action: str,
    *,
    provider: str,
    title: str,
    asks: str,
    problem: str = "",
    buttons: Mapping[str, str] | None = None,
) -> HttpResponse:
    """The page on which a person decides; 400 with ``problem`` alone where the request is wrong.

    The form posts what was asked, and ``decision`` with the name of the button, to ``action``. ``buttons`` are labels
    by name, Allow and Deny where not given.
    """
    if problem:
        body = f"<p>{html.escape(problem)}</p>"
    else:
        hidden = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(values[0])}">'
            for name, values in call.query.items()
        )
        choices = " ".join(
            f'<button name="decision" value="{name}">{label}</button>'
            for name, label in (buttons or {"allow": "Allow", "deny": "Deny"}).items()
        )
        body = f'<p>{html.escape(asks)}</p><form method="post" action="{action}">{hidden}{choices}</form>'
    page = f"<!doctype html><title>{title}</title><h1>Emulated {provider}</h1>{body}"
    headers = {"content-type": "text/html; charset=utf-8"}
    return HttpResponse(status=400 if problem else 200, headers=headers, body=page.encode())


def sent_back(redirect_uri: str, answer: Mapping[str, str]) -> HttpResponse:
    """The redirect to the app with a code or an error."""
    location = f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(answer)}"
    return HttpResponse(status=302, headers={"location": location})


def verifies(challenge: str, verifier: str) -> bool:
    """Whether a PKCE verifier is the one of an S256 challenge; a request without challenge needs none."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    return not challenge or digest.rstrip(b"=").decode() == challenge
