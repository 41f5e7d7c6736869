"""The token endpoint: RFC 6749 (code, refresh, client credentials), RFC 7636 (PKCE), over our own Transport.

No secret is opened here: a request names its secrets and :func:`crmbridge.toolkit.auth.apply` fills them in.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import structlog

from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.errors import (
    AuthError,
    CrmError,
    Fix,
    NotConfigured,
    RateLimited,
    Unavailable,
    UnexpectedResponse,
)
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.operations import Outcome
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpRequest, HttpResponse, Transport, TransportFailure
from crmbridge.services.oauth.model import Client, TokenRefused, TokenSet
from crmbridge.toolkit import auth as schemes
from crmbridge.toolkit.failures import error_for_failure, retry_after_seconds
from crmbridge.toolkit.filling import fill_address

__all__ = ["ask", "authorize_url", "challenge", "read_tokens", "refused", "renewed_facts"]

TOKEN_SECONDS = 15.0
THROTTLED_SECONDS = 60.0
_LONGEST_TOKEN = 16_384
_LONGEST_LIFE = 10 * 365 * 86_400.0
_TOKEN_NAMES = frozenset({"access_token", "refresh_token", "id_token"})
_NO_AUTH = Auth(kind=AuthKind.NONE)
_BASIC = Auth(kind=AuthKind.BASIC, user="client_id", secret="client_secret")  # noqa: S106 - names
_FAULTS = {
    "invalid_grant": TokenFault.REVOKED,
    "invalid_client": TokenFault.MISCONFIGURED,
    "unauthorized_client": TokenFault.MISCONFIGURED,
    "unsupported_grant_type": TokenFault.MISCONFIGURED,
    "invalid_scope": TokenFault.MISCONFIGURED,
    "invalid_request": TokenFault.MISCONFIGURED,
    "redirect_uri_mismatch": TokenFault.MISCONFIGURED,
    "slow_down": TokenFault.THROTTLED,
    "temporarily_unavailable": TokenFault.TRANSIENT,
    "server_error": TokenFault.TRANSIENT,
}
_log = structlog.get_logger("crmbridge.oauth")


def challenge(verifier: str) -> str:
    """The S256 code challenge of a verifier (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorize_url(
    manifest: Manifest,
    client_id: str,
    settings: Mapping[str, str],
    *,
    redirect_uri: str,
    state: str,
    code_challenge: str = "",
) -> str:
    """Where the browser goes for consent. Raises NotConfigured for a setting that the URL needs."""
    auth = manifest.auth
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        **auth.authorize_extra,
    }
    if auth.scopes:
        query["scope"] = auth.scope_separator.join(auth.scopes)
    if code_challenge:
        query.update(code_challenge=code_challenge, code_challenge_method="S256")
    url = _filled(auth.authorize_url, manifest, settings)
    # quote_via: providers are known that take a plus sign in a scope for a plus sign.
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote)}"


async def ask(
    driver: type[CrmDriver],
    grant: dict[str, Any],
    *,
    client: Client,
    secrets: Mapping[str, Secret],
    settings: Mapping[str, str],
    facts: Mapping[str, str],
    transport: Transport,
) -> dict[str, Any]:
    """One call to the token endpoint. ``grant`` is the form; its SecretRef leaves name entries of ``secrets``.

    Returns the provider's answer, which holds an access token. Raises TokenRefused.
    """
    manifest = driver.manifest_for(settings)
    form: dict[str, Any] = dict(grant)
    scheme = _NO_AUTH
    if manifest.auth.client_auth == "basic":
        scheme = _BASIC
    else:
        form["client_id"] = schemes.SecretRef("client_id")
        form["client_secret"] = schemes.SecretRef("client_secret")
    given = {**secrets, "client_id": client.client_id, "client_secret": client.client_secret}
    access = Access(settings={}, secrets=given, transport=transport)
    request = HttpRequest(
        method="POST",
        url=_filled(manifest.auth.token_url, manifest, {**settings, **facts}),
        form=form,
        headers={"Accept": "application/json"},
        timeout_seconds=TOKEN_SECONDS,
    )
    await schemes.apply(scheme, access, request)
    try:
        response = await transport.send(request)
    except TransportFailure as failure:
        error = error_for_failure(failure, provider=manifest.slug, operation="token", is_write=False)
        raise TokenRefused(TokenFault.TRANSIENT, error) from None
    tree = _tree(response)
    token = tree.get("access_token")
    # Decided by the token, not by the status: providers answer 200 to a refusal.
    if response.status < 300 and isinstance(token, str) and token.strip():
        return tree
    raise refused(driver, manifest, response, tree, client)


def read_tokens(auth: Auth, answer: Mapping[str, Any]) -> TokenSet:
    """The parts of an answer, checked. Raises UnexpectedResponse for a token that cannot be one. Facts are empty."""
    access, refresh = answer.get("access_token"), answer.get("refresh_token")
    if not _is_token(access):
        raise UnexpectedResponse(
            "The token endpoint answered no usable access token.",
            operation="token",
            outcome=Outcome.NOT_APPLIED,
            retry_safe=True,
        )
    return TokenSet(
        access_token=Secret(str(access)),
        refresh_token=Secret(str(refresh)) if _is_token(refresh) else None,
        expires_in=_seconds(answer.get("expires_in")) or (float(auth.access_seconds) or None),
        scopes=_scopes(answer),
        facts={},
    )


def facts_of(driver: type[CrmDriver], answer: Mapping[str, Any]) -> dict[str, str]:
    """What the driver reads beside the tokens. Raises CrmError where the driver refuses it."""
    return driver.token_facts({name: value for name, value in answer.items() if name not in _TOKEN_NAMES})


def renewed_facts(driver: type[CrmDriver], answer: Mapping[str, Any]) -> dict[str, str]:
    """The same at a refresh, where nothing may keep the new tokens from being saved: a refusal leaves the old facts."""
    try:
        return facts_of(driver, answer)
    except Exception as error:
        _log.warning("token.facts_refused", driver=driver.MANIFEST.slug, kind=type(error).__name__)
        return {}


def refused(
    driver: type[CrmDriver],
    manifest: Manifest,
    response: HttpResponse,
    tree: Mapping[str, Any],
    client: Client,
) -> TokenRefused:
    """What an answer without a token means, for the credential and for the caller."""
    fault = driver.token_fault(response.status, tree) or _fault(response.status, tree)
    code = str(tree.get("error", ""))
    code = code if re.fullmatch(r"[A-Za-z0-9_ .-]{1,60}", code) else ""
    facts: dict[str, Any] = {"http_status": response.status}
    if code:
        facts["provider_code"] = code
    said = f" ({code}, HTTP {response.status})" if code else f" (HTTP {response.status})"
    error = _error(fault, manifest, said, client)
    error.provider, error.operation, error.provider_facts = manifest.slug, "token", facts
    if fault is TokenFault.THROTTLED:
        error.retry_after_seconds = retry_after_seconds(response.headers) or _pause(manifest)
    return TokenRefused(fault, error)


def _error(fault: TokenFault, manifest: Manifest, said: str, client: Client) -> CrmError:
    name = manifest.display_name
    if fault is TokenFault.REVOKED:
        return AuthError(
            f"{name} no longer accepts this connection's grant{said}.",
            subcode="refresh_failed",
            fix=Fix("reconnect", f"Connect {name} again; a person must consent."),
        )
    if fault is TokenFault.MISCONFIGURED and client.is_tenants:
        return AuthError(f"{name} refuses the client id or secret{said}.", subcode="invalid_credentials")
    if fault is TokenFault.MISCONFIGURED:
        return NotConfigured(
            f"{name} refuses this installation's OAuth app{said}; the connection itself may be well.",
            subcode="oauth_app_refused",
            fix=Fix(
                "check_oauth_app",
                f"Correct the app: `crmbridge oauth set-app {manifest.slug}` or PUT /api/oauth/apps/{manifest.slug}.",
            ),
        )
    if fault is TokenFault.THROTTLED:
        return RateLimited(f"{name} asks for fewer token calls{said}.")
    return Unavailable(f"{name} gave no token{said}.", retry_safe=True)


def _fault(status: int, tree: Mapping[str, Any]) -> TokenFault:
    if status == 429:
        return TokenFault.THROTTLED
    if status >= 500:
        return TokenFault.TRANSIENT
    known = _FAULTS.get(str(tree.get("error", "")))
    if known is not None:
        return known
    return TokenFault.MISCONFIGURED if status in (401, 403) else TokenFault.TRANSIENT


def _pause(manifest: Manifest) -> float:
    per_minute = manifest.auth.token_calls_per_minute
    return max(60.0 / per_minute, 1.0) if per_minute else THROTTLED_SECONDS


def _filled(template: str, manifest: Manifest, values: Mapping[str, str]) -> str:
    where = "when you start the connection"
    return fill_address(template, values, manifest.slug, whose=manifest.display_name, where=where)


def _tree(response: HttpResponse) -> dict[str, Any]:
    try:
        tree = response.json()
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _is_token(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= _LONGEST_TOKEN
        and value.isascii()
        and value.isprintable()
    )


def _seconds(value: Any) -> float | None:
    """Providers send numbers and texts of numbers."""
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
    except ValueError:
        return None
    return seconds if 0 < seconds <= _LONGEST_LIFE else None


def _scopes(answer: Mapping[str, Any]) -> list[str] | None:
    for name in ("scope", "scopes"):
        given = answer.get(name)
        if isinstance(given, str) and given.strip():
            return [scope for scope in re.split(r"[\s,]+", given) if scope][:500]
        if isinstance(given, list):
            return [scope for scope in given if isinstance(scope, str)][:500]
    return None
