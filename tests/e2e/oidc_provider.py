"""An OpenID provider for tests: discovery, keys, token endpoint and UserInfo on loopback, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from tests.faults.process import free_ports

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "Provider", "running_provider"]

CLIENT_ID = "crmbridge-console"
CLIENT_SECRET = "the client's own secret ~ 42"
_ACCESS_TOKEN = "an-access-token"


def new_key(alg: str, kid: str) -> Key:
    """A key pair for one algorithm."""
    parameters: Any = {"kid": kid, "use": "sig", "alg": alg}
    if alg == "ES256":
        return ECKey.generate_key("P-256", parameters)
    if alg == "EdDSA":
        return OKPKey.generate_key("Ed25519", parameters)
    return RSAKey.generate_key(2048, parameters)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _part(tree: dict[str, Any]) -> str:
    return _encoded(json.dumps(tree).encode())


class Provider:
    """What a test changes: ``claims`` are laid over the true ones (None takes one away), ``document`` over discovery.

    ``make`` makes the ID token of claims; ``status`` is the token endpoint's; ``seen`` counts requests by path.
    """

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.alg, self.kid = "RS256", "k1"
        self.key: Key = new_key(self.alg, self.kid)
        self.published: list[dict[str, Any]] = []
        self.publish()
        self.document: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.person: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.make: Callable[[dict[str, Any]], str] = self.sign
        self.status, self.refusal = 200, "invalid_grant"
        self.seen: dict[str, int] = {}
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self._flows: dict[str, dict[str, str]] = {}

    def publish(self) -> None:
        self.published = [dict(self.key.as_dict(private=False))]

    def use(self, alg: str, kid: str) -> None:
        """Sign with a new key, which is published."""
        self.alg, self.kid, self.key = alg, kid, new_key(alg, kid)
        self.publish()

    def consent(self, location: str, **changes: str) -> str:
        """What a person does at the authorization endpoint; answers the query of the way back."""
        parts = urlsplit(location)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        assert asked["client_id"] == CLIENT_ID and asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._flows[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.issuer, **changes}
        return "&".join(f"{name}={value}" for name, value in answer.items() if value)

    def true_claims(self, asked: dict[str, str]) -> dict[str, Any]:
        now = int(time.time())
        true = {
            "iss": self.issuer,
            "sub": "subject-1",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "email": "ann@example.com",
            "email_verified": True,
        }
        return {name: value for name, value in {**true, **self.claims}.items() if value is not None}

    def sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.alg, "kid": self.kid, **self.header}
        header = {name: value for name, value in header.items() if value is not None}
        return jwt.encode(header, claims, self.key, algorithms=[self.alg])

    def loose(self, claims: dict[str, Any]) -> str:
        """Genuine, with a header that the library would not write."""
        text = f"{_part({'alg': self.alg, 'kid': self.kid, **self.header})}.{_part(claims)}"
        signed = jws.JWSRegistry.algorithms[self.alg].sign(text.encode(), self.key)
        return f"{text}.{_encoded(signed)}"

    def unsigned(self, claims: dict[str, Any]) -> str:
        return f"{_part({'alg': 'none', 'kid': self.kid})}.{_part(claims)}."

    def confused(self, claims: dict[str, Any]) -> str:
        """Signed with HS256, the public key's PEM being the shared secret: what a confused verifier takes for right."""
        assert isinstance(self.key, RSAKey)
        pem = self.key.as_pem(private=False)
        text = f"{_part({'alg': 'HS256', 'kid': self.kid})}.{_part(claims)}"
        mark = hmac.new(pem, text.encode(), hashlib.sha256).digest()
        return f"{text}.{_encoded(mark)}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen[request.path] = self.seen.get(request.path, 0) + 1
        if request.path == "/.well-known/openid-configuration":
            return web.json_response(
                {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/keys",
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                    **self.document,
                }
            )
        if request.path == "/keys":
            return web.json_response({"keys": self.published})
        if request.path == "/userinfo":
            is_right = request.headers.get("Authorization") == f"Bearer {_ACCESS_TOKEN}"
            return web.json_response(self.person, status=200 if is_right else 401)
        return await self._token(request)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.authorizations.append(request.headers.get("Authorization", ""))
        self.forms.append(form)
        if self.status != 200:
            return web.json_response({"error": self.refusal}, status=self.status)
        asked = self._flows.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or asked["code_challenge"] != _encoded(digest)
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if form.get("client_secret") != CLIENT_SECRET and self.authorizations[-1] != f"Basic {basic}":
            return web.json_response({"error": "invalid_client"}, status=401)
        token = self.make(self.true_claims(asked))
        return web.json_response({"access_token": _ACCESS_TOKEN, "token_type": "Bearer", "id_token": token})


@asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    """The provider on a free loopback port, until the block ends."""
    port = free_ports()
    provider = Provider(port)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", provider.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield provider
    finally:
        await runner.cleanup()
