"""Sign-in elsewhere: OpenID Connect, authorization code with PKCE, over our own Transport.

A flow lives in a cookie that only we can make and read: sealed under the installation key, bound to the visit's cookie,
its end and the page that was asked for. No secret is opened here: they are compared, or named by a SecretRef.

Sources: OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749, RFC 7636 (PKCE), RFC 9207 (``iss`` of the answer).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

import msgspec
import structlog

from crmbridge.core.driver import Access
from crmbridge.core.errors import CrmError, Fix, Unavailable
from crmbridge.core.manifest import Auth, AuthKind
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, Transport, TransportFailure
from crmbridge.services.operators.model import Identity, OidcRefused
from crmbridge.toolkit import auth as schemes

__all__ = ["FLOW_SECONDS", "Flow", "Oidc", "Seals"]

FLOW_SECONDS = 600
CACHE_SECONDS = 3600.0
# Keys are read again for a key id that is not known, but no stranger's tokens make us ask more often than this.
REFETCH_SECONDS = 60.0
# After a failure nobody asks again for so long: a provider that is down is not asked once per visitor.
PAUSE_SECONDS = 5.0
CALL_SECONDS = 10.0
_KIND = "oidc_flow"
_MOST_KEYS = 100
_LONGEST_URL = 2000
_CODE = re.compile(r"[\x21-\x7e]{1,4096}")
_NO_AUTH = Auth(kind=AuthKind.NONE)
_BASIC = Auth(kind=AuthKind.BASIC, user="client_id", secret="client_secret")  # noqa: S106 - names
_BEARER = Auth(kind=AuthKind.BEARER, secret="access_token")  # noqa: S106 - a name
_log = structlog.get_logger("crmbridge.oidc")


class Seals(Protocol):
    """What the vault does for flows."""

    async def seal_secrets(
        self, secrets: Mapping[str, Secret], *, tenant_id: UUID | None, kind: str, row: str
    ) -> bytes:
        """Seal, bound to kind and row."""
        ...

    async def open_secrets(
        self, sealed: bytes, *, tenant_id: UUID | None, kind: str, row: str
    ) -> dict[str, Secret]:
        """The inverse. Raises CrmError."""
        ...


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow whose answer has come, of this browser and in time. ``expires`` is seconds since 1970."""

    state_hash: bytes
    nonce: Secret
    verifier: Secret
    next: str
    expires: int


class _Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What the discovery document says, checked."""

    authorize: str
    token: str
    keys: str
    person: str
    has_basic: bool
    names_itself: bool


class Oidc:
    """One provider. ``label`` is the text of the button; ``is_required`` shuts sign-in by password.

    ``clock`` is seconds since 1970, ``now`` a steady clock; both are for tests.
    """

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: Secret,
        redirect_uri: str,
        seals: Seals,
        transport: Transport,
        label: str = "Single sign-on",
        is_required: bool = False,
        clock: Callable[[], float] = time,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.issuer = issuer
        self.label = label
        self.is_required = is_required
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._seals = seals
        self._transport = transport
        self._clock = clock
        self._now = now
        self._gate = asyncio.Lock()
        self._provider: tuple[float, _Provider] | None = None
        self._keys: tuple[float, list[dict[str, Any]]] | None = None
        self._failure: tuple[float, str, str] | None = None

    # -- there and back ----------------------------------------------------------------------------------------

    async def begin(self, visit: str, next_page: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie to give it. ``visit`` is the secret of its visit's cookie.

        Raises CrmError when the provider cannot be reached or describes itself badly.
        """
        provider = await self._described()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        expires = int(self._clock()) + FLOW_SECONDS
        sealed = await self._seals.seal_secrets(
            {"state": Secret(state), "nonce": Secret(nonce), "verifier": Secret(verifier)},
            tenant_id=None,
            kind=_KIND,
            row=_row(visit, str(expires), next_page),
        )
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": "openid email",
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        mark = "&" if "?" in provider.authorize else "?"
        url = f"{provider.authorize}{mark}{urlencode(query, quote_via=quote)}"
        return url, f"{expires}.{_packed(next_page.encode())}.{_packed(sealed)}"

    async def open(self, cookie: str, visit: str, state: str) -> Flow:
        """The flow that the answer belongs to. Raises OidcRefused: another browser, another state, too old."""
        try:
            expires, next_page, sealed = cookie.split(".")
            wish = _unpacked(next_page).decode()
            raw, until = _unpacked(sealed), int(expires)
        except ValueError:
            raise OidcRefused("no_flow") from None
        if not visit or not self._clock() < until <= self._clock() + FLOW_SECONDS:
            raise OidcRefused("flow_expired" if visit else "no_flow")
        try:
            opened = await self._seals.open_secrets(
                raw, tenant_id=None, kind=_KIND, row=_row(visit, expires, wish)
            )
        except CrmError:
            raise OidcRefused("other_browser") from None
        if Secret(state) != opened["state"]:
            raise OidcRefused("wrong_state")
        return Flow(
            state_hash=hashlib.sha256(state.encode()).digest(),
            nonce=opened["nonce"],
            verifier=opened["verifier"],
            next=wish,
            expires=until,
        )

    async def identify(self, flow: Flow, answer: Mapping[str, str]) -> Identity:
        """Who came back. ``answer`` is the callback's query. Raises OidcRefused, CrmError."""
        provider = await self._described()
        named = answer.get("iss")
        if named != self.issuer and (named is not None or provider.names_itself):
            raise OidcRefused("wrong_issuer")
        if answer.get("error"):
            raise OidcRefused("denied" if answer["error"] == "access_denied" else "provider_refused")
        if not _CODE.fullmatch(answer.get("code", "")):
            raise OidcRefused("no_code")
        tokens = await self._exchange(provider, answer["code"], flow.verifier)
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise OidcRefused("no_id_token")
        claims = await self._claims(provider, token, flow.nonce)
        if "email" not in claims and provider.person:
            claims = {**claims, **await self._person(provider, tokens, claims["sub"])}
        email = claims.get("email")
        return Identity(
            subject=f"{self.issuer} {claims['sub']}",
            email=email if isinstance(email, str) else "",
            is_verified=claims.get("email_verified") is True,
        )

    # -- tokens ------------------------------------------------------------------------------------------------

    async def _exchange(self, provider: _Provider, code: str, verifier: Secret) -> dict[str, Any]:
        form: dict[str, Any] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": schemes.SecretRef("code_verifier"),
        }
        if not provider.has_basic:
            form["client_id"] = self._client_id
            form["client_secret"] = schemes.SecretRef("client_secret")
        held = {
            "client_id": Secret(self._client_id),
            "client_secret": self._client_secret,
            "code_verifier": verifier,
        }
        request = HttpRequest(method="POST", url=provider.token, form=form)
        status, tree = await self._call(request, _BASIC if provider.has_basic else _NO_AUTH, held)
        if status == 200:
            return tree
        if status in (429, 500, 502, 503, 504):
            raise self._down(f"its token endpoint answered HTTP {status}")
        error = tree.get("error")
        _log.warning("oidc.code_refused", status=status, is_ours=error == "invalid_client")
        raise OidcRefused("client_refused" if error == "invalid_client" or status == 401 else "code_refused")

    async def _claims(self, provider: _Provider, token: str, nonce: Secret) -> dict[str, Any]:
        # joserfc takes a fifth of a second to import; a process where nobody signs in so never pays it.
        from crmbridge.services.operators.id_tokens import UnknownKey, read_id_token

        keys = await self._published(provider, again=False)
        for is_last in (False, True):
            try:
                return read_id_token(
                    token,
                    keys,
                    issuer=self.issuer,
                    client_id=self._client_id,
                    nonce=nonce,
                    now=int(self._clock()),
                )
            except UnknownKey:
                if not is_last:
                    keys = await self._published(provider, again=True)
        raise OidcRefused("key_unknown")

    async def _person(self, provider: _Provider, tokens: Mapping[str, Any], subject: str) -> dict[str, Any]:
        """E-mail claims of the UserInfo endpoint, for providers that leave them out of the token (Core 5.4)."""
        given = tokens.get("access_token")
        if not isinstance(given, str) or not given:
            return {}
        request = HttpRequest(method="GET", url=provider.person)
        status, tree = await self._call(request, _BEARER, {"access_token": Secret(given)})
        if status != 200 or tree.get("sub") != subject:
            raise OidcRefused("userinfo")
        return {name: tree[name] for name in ("email", "email_verified") if name in tree}

    # -- what the provider publishes ---------------------------------------------------------------------------

    async def _described(self) -> _Provider:
        async with self._gate:
            if self._provider is None or self._now() - self._provider[0] > CACHE_SECONDS:
                document = await self._fetch(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
                self._provider = self._now(), self._read(document)
            return self._provider[1]

    async def _published(self, provider: _Provider, *, again: bool) -> list[dict[str, Any]]:
        async with self._gate:
            age = self._now() - self._keys[0] if self._keys else CACHE_SECONDS
            if self._keys is None or age >= (REFETCH_SECONDS if again else CACHE_SECONDS):
                found = (await self._fetch(provider.keys)).get("keys")
                if not isinstance(found, list):
                    raise self._misdescribed("its key set holds no list of keys")
                self._keys = self._now(), [key for key in found[:_MOST_KEYS] if isinstance(key, dict)]
            return self._keys[1]

    def _read(self, document: Mapping[str, Any]) -> _Provider:
        if document.get("issuer") != self.issuer:
            raise self._misdescribed("it calls itself by another issuer than CRMBRIDGE_OIDC_ISSUER")
        urls = {}
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            url = document.get(name)
            if name == "userinfo_endpoint" and url is None:
                url = ""
            elif not isinstance(url, str) or not self._is_usable(url):
                raise self._misdescribed(f"its {name} is no https address")
            urls[name] = url
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        known = [each for each in ("client_secret_post", "client_secret_basic") if each in methods]
        if not known:
            raise self._misdescribed("it accepts neither client_secret_basic nor client_secret_post")
        return _Provider(
            authorize=urls["authorization_endpoint"],
            token=urls["token_endpoint"],
            keys=urls["jwks_uri"],
            person=urls["userinfo_endpoint"],
            has_basic=known[0] == "client_secret_basic",
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _is_usable(self, url: str) -> bool:
        if not re.fullmatch(r"[\x21-\x7e]+", url) or len(url) > _LONGEST_URL or "#" in url or "\\" in url:
            return False
        try:
            parts, own = urlsplit(url), urlsplit(self.issuer)
        except ValueError:
            return False
        # Plain http only where the settings allow it for the issuer: on this machine.
        is_local = own.scheme == "http" and parts.scheme == "http" and parts.hostname == own.hostname
        return bool(parts.hostname) and not parts.username and (parts.scheme == "https" or is_local)

    async def _fetch(self, url: str) -> dict[str, Any]:
        if self._failure is not None and self._now() - self._failure[0] < PAUSE_SECONDS:
            raise Unavailable(self._failure[1], fix=Fix("check_oidc", self._failure[2]))
        status, tree = await self._call(HttpRequest(method="GET", url=url), _NO_AUTH, {})
        if status != 200 or not tree:
            raise self._down(f"{urlsplit(url).path} answered HTTP {status} without a JSON document")
        return tree

    async def _call(
        self, request: HttpRequest, scheme: Auth, held: Mapping[str, Secret]
    ) -> tuple[int, dict[str, Any]]:
        request.headers["Accept"] = "application/json"
        request.timeout_seconds = CALL_SECONDS
        await schemes.apply(
            scheme, Access(settings={}, secrets=dict(held), transport=self._transport), request
        )
        try:
            response = await self._transport.send(request)
        except TransportFailure as failure:
            raise self._down(failure.message) from None
        try:
            tree = response.json()
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
            tree = None
        return response.status, tree if isinstance(tree, dict) else {}

    def _down(self, why: str) -> CrmError:
        return self._failed(
            "The sign-in service cannot be reached.",
            "Try again in a minute. Whoever runs this server finds the reason in the log.",
            why,
        )

    def _misdescribed(self, why: str) -> CrmError:
        return self._failed(
            "The sign-in service is not set up rightly.",
            "Whoever runs this server finds the reason in the log and corrects CRMBRIDGE_OIDC_ISSUER.",
            why,
        )

    def _failed(self, message: str, hint: str, why: str) -> CrmError:
        _log.warning("oidc.failed", why=why)
        self._failure = self._now(), message, hint
        return Unavailable(message, fix=Fix("check_oidc", hint))


def _row(visit: str, expires: str, next_page: str) -> str:
    """All that a flow is bound to, as one text: two of them are never alike by chance or by a separator."""
    return hashlib.sha256(msgspec.json.encode([visit, expires, next_page])).hexdigest()


def _challenge(verifier: str) -> str:
    from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

    return str(create_s256_code_challenge(verifier))


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _unpacked(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
