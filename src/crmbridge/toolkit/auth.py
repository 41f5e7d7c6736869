"""Puts a credential on a request: the one place of drivers' calls where a Secret is opened.

Sources: RFC 7617 (Basic, UTF-8), RFC 6750 (Bearer). API keys go where the provider's manifest says. HMAC
signing is :mod:`crmbridge.toolkit.signatures`; fetching and refreshing OAuth tokens is the oauth service,
which hands a live ``access_token`` in ``Access.secrets``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from crmbridge.core.driver import Access
from crmbridge.core.errors import AuthError
from crmbridge.core.manifest import Auth, AuthKind
from crmbridge.core.wire import HttpRequest
from crmbridge.toolkit.failures import redact
from crmbridge.toolkit.filling import not_filled_in

__all__ = ["SecretRef", "apply", "redactor"]

ACCESS_TOKEN = "access_token"  # noqa: S105 - the name of a secret, no secret


class SecretRef:
    """A leaf of ``json``, ``form``, ``query`` or ``headers`` that :func:`apply` replaces by the secret's text.

    For providers that want a secret in the body (a sign-in, an RPC password). ``json`` is searched only
    under the scheme ``sign_in``, because large batches pass here. An unfilled one cannot be encoded, so it
    never leaves by accident.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"SecretRef({self.name!r})"


async def apply(auth: Auth, access: Access, request: HttpRequest) -> None:
    """Sets the headers or the query of ``request`` in place and fills its SecretRef leaves.

    A header or parameter that the caller has set already stays. Raises NotConfigured when a secret or
    setting is missing, AuthError when it cannot stand in a header.
    """
    kind = auth.kind
    _fill_request(access, request, with_json=kind is AuthKind.SIGN_IN)
    if kind is AuthKind.API_KEY:
        secret = auth.prefix + _secret(access, auth.secret)
        if auth.query:
            request.query.setdefault(auth.query, secret)
        else:
            _set_header(request, auth.header or "X-Api-Key", secret, auth.secret)
    elif kind is AuthKind.BEARER:
        _set_bearer(auth, access, request, auth.secret or "token")
    elif kind in (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS):
        _set_bearer(auth, access, request, ACCESS_TOKEN)
    elif kind is AuthKind.BASIC:
        user = _setting(access, auth.user)
        password = _secret(access, auth.secret) if auth.secret else ""
        if ":" in user:
            raise AuthError(
                f"The user name ({auth.user}) holds a colon, which Basic authentication cannot carry.",
                subcode="invalid_credentials",
            )
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        _set_header(request, auth.header or "Authorization", f"Basic {pair}", auth.secret)
    elif kind is AuthKind.SIGN_IN and access.secrets.get(ACCESS_TOKEN):
        _set_bearer(auth, access, request, ACCESS_TOKEN)


def redactor(access: Access) -> Callable[[str], str]:
    """:func:`crmbridge.toolkit.failures.redact` that hides the secrets of this access as well."""

    def hide(text: str) -> str:
        texts: list[str] = []
        for secret in access.secrets.values():
            opened = secret.open()
            texts += (opened, base64.b64encode(opened.encode()).decode())
        return redact(text, texts)

    return hide


def _set_bearer(auth: Auth, access: Access, request: HttpRequest, name: str) -> None:
    token = _secret(access, name)
    if auth.query:
        request.query.setdefault(auth.query, token)
        return
    _set_header(request, auth.header or "Authorization", (auth.prefix or "Bearer ") + token, name)


def _set_header(request: HttpRequest, header: str, value: str, name: str) -> None:
    if header.lower() in map(str.lower, request.headers):
        return
    if not value.isascii() or not value.isprintable():
        raise AuthError(
            f"The secret {name!r} holds a line break or a letter outside ASCII; paste it again.",
            subcode="invalid_credentials",
        )
    request.headers[header] = value


def _secret(access: Access, name: str) -> str:
    secret = access.secrets.get(name)
    if not secret:
        raise not_filled_in(name, kind="secret")
    return secret.open().strip()


def _setting(access: Access, name: str) -> str:
    if name in access.secrets:
        return _secret(access, name)
    if name and name not in access.settings:
        raise not_filled_in(name)
    return access.settings.get(name, "")


def _fill_request(access: Access, request: HttpRequest, *, with_json: bool) -> None:
    if with_json and isinstance(request.json, (dict, list)):
        request.json = _filled(request.json, access)
    if request.form is not None:
        request.form = _filled(request.form, access)
    for part in (request.query, request.headers):
        for key, value in part.items():
            if isinstance(value, SecretRef):
                part[key] = _secret(access, value.name)


def _filled(tree: Any, access: Access) -> Any:
    """A copy with every SecretRef replaced."""
    if isinstance(tree, SecretRef):
        return _secret(access, tree.name)
    if isinstance(tree, dict):
        return {key: _filled(value, access) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, access) for value in tree]
    return tree
