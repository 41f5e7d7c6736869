"""Acme's side: consent page, token endpoint with rotation and reuse detection, records behind bearer tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, Refusal, route

CLIENT = {"acme-app": "s3cret-of-the-app", "tenants-own": "s3cret-of-the-tenant"}


class AcmeEmulator(Emulator):
    """``grants`` counts token answers by grant type, ``deaths`` families killed by the reuse of an old token."""

    slug = "acme"

    def seed(self) -> None:
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.access: dict[str, int] = {}
        self.dead: set[int] = set()
        self.grants: Counter[str] = Counter()
        self.deaths = 0
        self.serial = 0
        self.life: Any = 1800
        self.scope: Any = "contacts.read contacts.write"
        self.denies = ""
        self.refuses_all_tokens = False
        self.token_seconds = 0.0
        self.token_error: tuple[int, dict[str, Any]] | None = None
        self.gives_refresh = True
        self.rotates = True
        self.token_arrived = 0
        self.token_gate: asyncio.Event | None = None
        self.lost_token_calls: set[int] = set()
        self.token_html = False
        self.fields: list[str] = []
        self.refuses_fields = False

    def settings(self) -> dict[str, str]:
        return {"url": self.base_url}

    def expire_access(self) -> None:
        """What an hour does."""
        self.access.clear()

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if not call.path.startswith("/v1/"):
            return None
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self.refuses_all_tokens or self.access.get(token, 0) in (0, *self.dead):
            return self.answer({"message": "token unknown or expired"}, 401)
        return None

    @route("GET", "/authorize")
    def authorize(self, call: Incoming) -> HttpResponse:
        asked = {name: values[0] for name, values in call.query.items()}
        if asked["client_id"] not in CLIENT or asked["response_type"] != "code":
            return self.answer({"error": "unknown app"}, 400)
        if self.denies:
            back = {"error": self.denies, "error_description": "<b>no</b>", "state": asked["state"]}
        else:
            self.serial += 1
            code = f"code-{self.serial}"
            self.codes[code] = asked
            back = {"code": code, "state": asked["state"], "location": "us"}
        return HttpResponse(status=302, headers={"location": f"{asked['redirect_uri']}?{urlencode(back)}"})

    @route("POST", "/{centre}/token")
    async def token(self, call: Incoming) -> HttpResponse:
        given = {name: values[0] for name, values in call.form.items()}
        self._client(call, given)
        self.token_arrived += 1
        number = self.token_arrived
        if self.token_gate is not None:
            await self.token_gate.wait()
        if number in self.lost_token_calls:
            return self.answer({"error": "server_error"}, 503)
        if self.token_html:
            page = b"<html><body>Bad gateway</body></html>"
            return HttpResponse(status=200, headers={"content-type": "text/html"}, body=page)
        if self.token_error is not None:
            status, tree = self.token_error
            self.grants["refused"] += 1
            return self.answer(tree, status)
        grant = given["grant_type"]
        self.grants[grant] += 1
        if self.token_seconds:
            await asyncio.sleep(self.token_seconds)
        if grant == "client_credentials":
            return self._issue(0, with_refresh=False)
        family = self._by_code(given) if grant == "authorization_code" else self._by_refresh(given)
        is_new = grant == "authorization_code" or self.rotates
        return self._issue(family, with_refresh=self.gives_refresh and is_new)

    def _client(self, call: Incoming, given: dict[str, str]) -> None:
        name, secret = given.get("client_id", ""), given.get("client_secret", "")
        if basic := call.headers.get("authorization", "").removeprefix("Basic "):
            name, _, secret = base64.b64decode(basic).decode().partition(":")
        if not secret or CLIENT.get(name) != secret:
            self.grants["bad_client"] += 1
            raise Refusal(self.answer({"error": "invalid_client"}, 401))

    def _by_code(self, given: dict[str, str]) -> int:
        asked = self.codes.pop(given["code"], None)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or asked["redirect_uri"] != given["redirect_uri"]
            or asked["code_challenge_method"] != "S256"
            or asked["code_challenge"] != proof
        ):
            raise Refusal(self.answer({"error": "invalid_grant"}, 400))
        self.serial += 1
        return self.serial

    def _by_refresh(self, given: dict[str, str]) -> int:
        old = given["refresh_token"]
        if old in self.used:
            # A thief or a bad client: the whole family dies.
            self.dead.add(self.used[old])
            self.deaths += 1
        family = self.refresh.get(old, 0)
        if not family or family in self.dead:
            raise Refusal(self.answer({"error": "invalid_grant"}, 400))
        if self.rotates:
            del self.refresh[old]
            self.used[old] = family
        return family

    def _issue(self, family: int, *, with_refresh: bool) -> HttpResponse:
        self.serial += 1
        token, refresh = f"at-{self.serial}-{'x' * 30}", f"rt-{self.serial}-{'y' * 30}"
        self.access[token] = family or -1
        answer = {"access_token": token, "token_type": "bearer", "instance": f"i{self.serial}"}
        if self.life is not None:
            answer["expires_in"] = self.life
        if self.scope is not None:
            answer["scope"] = self.scope
        if with_refresh:
            self.refresh[refresh] = family
            answer["refresh_token"] = refresh
        return self.answer(answer)

    @route("POST", "/login")
    def login(self, call: Incoming) -> HttpResponse:
        self.grants["login"] += 1
        if call.json != {"user": "ann", "password": "opensesame"}:
            return self.answer({"message": "bad login"}, 401)
        self.serial += 1
        token = f"jwt-{self.serial}-{'z' * 30}"
        self.access[token] = -1
        return self.answer({"token": {"accessToken": token, "expiresIn": 3600}})

    @route("GET", "/v1/me")
    def me(self, call: Incoming) -> HttpResponse:
        return self.answer({"name": "Acme of Ann"})

    @route("POST", "/v1/fields")
    def add_field(self, call: Incoming) -> HttpResponse:
        if self.refuses_fields:
            return self.answer({"message": "not allowed"}, 403)
        self.fields.append(call.json["name"])
        return self.answer({"name": call.json["name"]}, 201)

    @route("GET", "/v1/contacts")
    def contacts(self, call: Incoming) -> HttpResponse:
        rows = [{"id": str(row.id), **row.fields} for row in self.store.numbered("contacts")]
        wanted = call.first("external_id")
        return self.answer([row for row in rows if not wanted or row.get("external_id") == wanted])

    @route("GET", "/v1/contacts/{id}")
    def contact(self, call: Incoming) -> HttpResponse:
        row = self.store.numbered("contacts").get(int(call.params["id"]))
        if row is None:
            return self.answer({"message": "no such contact"}, 404)
        return self.answer({"id": str(row.id), **row.fields})

    @route("POST", "/v1/contacts")
    def create(self, call: Incoming) -> HttpResponse:
        row = self.store.numbered("contacts").insert(dict(call.json))
        return self.answer({"id": str(row.id), **row.fields}, 201)
