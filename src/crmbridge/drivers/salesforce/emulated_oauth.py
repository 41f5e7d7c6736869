"""Consent page, token endpoint, introspection, revocation and userinfo of an emulated Salesforce.

https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_flows.htm (read 2026-11-22): codes are used
once, S256 challenges are checked, refreshing answers no refresh token unless the app rotates them, and then an old one
kills the grant with all its tokens. Sessions live for two hours after their last use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, Refusal, consent_page, route, sent_back, verifies

__all__ = ["OAuthPages"]

SESSION_SECONDS = 7200
CODE_SECONDS = 900
ORG = "00DHu0000000001EAA"
USER = "005Hu0000000001AAA"


class OAuthPages(Emulator):
    """The OAuth half. ``rotates``: refreshes answer a new refresh token. ``is_busy``: a refresh is under way."""

    client_id = "crmbridge-emulator"
    user_id = USER

    def seed(self) -> None:
        self.codes: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, float] = {}
        self.refresh_tokens: dict[str, bool] = {}
        self.is_first_session_alive = True
        self.scope = "api refresh_token"
        self.rotates = self.is_busy = False
        self.is_user_active = True
        self.issued = 0

    def session_problem(self, call: Incoming) -> HttpResponse | None:
        """None for a living session, which using keeps alive."""
        token = call.headers.get("authorization", "").removeprefix("Bearer ").removeprefix("OAuth ")
        now = self.clock.timestamp()
        if token == self.secret("access_token") and self.is_first_session_alive:
            return None
        if self.sessions.get(token, 0.0) > now and self.is_user_active:
            self.sessions[token] = now + SESSION_SECONDS
            return None
        if "/services/oauth2/userinfo" in call.path:
            text = b"Bad_OAuth_Token" if token else b"Missing_OAuth_Token"
            return HttpResponse(status=403, headers={"content-type": "text/html"}, body=text)
        problem = {"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}
        return self.answer([problem], 401)

    def expire_sessions(self) -> None:
        """All access tokens end, also the one of :meth:`secrets`; refresh tokens stay."""
        self.sessions.clear()
        self.is_first_session_alive = False

    # -- consent -------------------------------------------------------------------------------------------

    @route("GET", "/services/oauth2/authorize", operation="oauth.authorize")
    def authorize(self, call: Incoming) -> HttpResponse:
        problem = ""
        if call.first("client_id") != self.client_id:
            problem = "error=invalid_client_id: client identifier invalid"
        elif not call.first("redirect_uri"):
            problem = "error=redirect_uri_mismatch: redirect_uri must match configuration"
        elif call.first("response_type") != "code":
            problem = "error=unsupported_response_type: response type not supported"
        return consent_page(
            call,
            f"{self.base_url}/services/oauth2/authorize",
            provider="Salesforce",
            title="Allow Access?",
            asks=f"crmbridge asks for: {call.first('scope') or 'all scopes of the app'}",
            problem=problem,
        )

    @route("POST", "/services/oauth2/authorize", operation="oauth.decide", writes=False)
    def decide(self, call: Incoming) -> HttpResponse:
        form: dict[str, Any] = {**call.fields}
        back = {"state": form.get("state", "")}
        if form.get("decision") == "allow":
            code = self.secret(f"code {len(self.codes)} {self.issued}")
            self.codes[code] = {**form, "until": self.clock.timestamp() + CODE_SECONDS}
            back["code"] = code
        else:
            back |= {"error": "access_denied", "error_description": "end-user denied authorization"}
        return sent_back(form["redirect_uri"], back)

    # -- tokens --------------------------------------------------------------------------------------------

    @route("POST", "/services/oauth2/token", operation="oauth.token", writes=False)
    def token(self, call: Incoming) -> HttpResponse:
        form = call.fields
        kind = form.get("grant_type")
        if kind not in ("authorization_code", "refresh_token", "client_credentials"):
            raise self._refused("unsupported_grant_type", "grant type not supported")
        self._check_client({**_basic(call), **form})
        refresh = ""
        if kind == "authorization_code":
            self._check_code(form)
            refresh = self._new_refresh() if "refresh_token" in self.scope else ""
        elif kind == "refresh_token":
            refresh = self._refreshed(form)
        self.issued += 1
        access = f"{ORG[:15]}!{self.secret(f'access {self.issued}', 80)}"
        self.sessions[access] = self.clock.timestamp() + SESSION_SECONDS
        identity = f"{self.base_url}/id/{ORG}/{USER}"
        issued_at = str(int(self.clock.timestamp() * 1000))
        key = self.secret("client_secret").encode()
        signature = hmac.new(key, f"{identity}{issued_at}".encode(), hashlib.sha256).digest()
        tree = {
            "access_token": access,
            "signature": base64.b64encode(signature).decode(),
            "scope": self.scope,
            "instance_url": self.base_url,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
        }
        return self.answer({**tree, **({"refresh_token": refresh} if refresh else {})})

    def _new_refresh(self) -> str:
        made = self.secret(f"refresh {self.issued}", 60)
        self.refresh_tokens[made] = True
        return made

    def _refreshed(self, form: dict[str, str]) -> str:
        """The new refresh token, empty while they do not rotate."""
        if "scope" in form:
            raise self._refused("invalid_request", "scope parameter not supported")
        if self.is_busy:
            raise self._refused("invalid_grant", "token request is already being processed")
        if not self.is_user_active:
            raise self._refused("inactive_user", "user is inactive")
        given = form.get("refresh_token", "")
        if not self.refresh_tokens.get(given):
            if given in self.refresh_tokens:  # a rotated one comes back: the whole grant dies
                self.refresh_tokens = dict.fromkeys(self.refresh_tokens, False)
                self.sessions.clear()
            raise self._refused("invalid_grant", "expired access/refresh token")
        if not self.rotates:
            return ""
        self.refresh_tokens[given] = False
        return self._new_refresh()

    @route("POST", "/services/oauth2/introspect", operation="oauth.introspect", writes=False)
    def introspect(self, call: Incoming) -> HttpResponse:
        form = call.fields
        self._check_client(form)
        token = form.get("token", "")
        until = self.sessions.get(token, 0.0)
        if until <= self.clock.timestamp() and not self.refresh_tokens.get(token):
            return self.answer({"active": False})
        tree: dict[str, Any] = {"active": True, "scope": self.scope, "client_id": self.client_id}
        if until:
            tree["exp"] = int(until)
        return self.answer(tree)

    @route("POST", "/services/oauth2/revoke", operation="oauth.revoke", writes=False)
    def revoke(self, call: Incoming) -> HttpResponse:
        token = call.form.get("token", [""])[0] or call.first("token")
        if self.refresh_tokens.get(token):
            self.refresh_tokens[token] = False
            self.sessions.clear()
        elif token in self.sessions:
            del self.sessions[token]
        else:
            raise self._refused("unsupported_token_type", "this token type is not supported")
        return HttpResponse(status=200)

    @route("GET", "/services/oauth2/userinfo", operation="oauth.userinfo")
    @route("POST", "/services/oauth2/userinfo", operation="oauth.userinfo", writes=False)
    def userinfo(self, call: Incoming) -> HttpResponse:
        data = f"{self.base_url}/services/data/v{{version}}/"
        return self.answer(
            {
                "sub": f"{self.base_url}/id/{ORG}/{USER}",
                "user_id": USER,
                "organization_id": ORG,
                "preferred_username": "crmbridge@example.com",
                "name": "Integration User",
                "email": "crmbridge@example.com",
                "zoneinfo": "Asia/Dubai",
                "locale": "en_US",
                "active": True,
                "urls": {"rest": data, "sobjects": f"{data}sobjects/", "query": f"{data}query/"},
            }
        )

    def _check_client(self, form: dict[str, str]) -> None:
        if form.get("client_id") != self.client_id:
            raise self._refused("invalid_client_id", "client identifier invalid")
        if form.get("client_secret") != self.secret("client_secret"):
            raise self._refused("invalid_client", "invalid client credentials")

    def _check_code(self, form: dict[str, str]) -> None:
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            raise self._refused("invalid_grant", "invalid authorization code")
        if asked["until"] <= self.clock.timestamp():
            raise self._refused("invalid_grant", "expired authorization code")
        if form.get("redirect_uri") != asked["redirect_uri"]:
            raise self._refused("redirect_uri_mismatch", "redirect_uri must match configuration")
        if not verifies(asked.get("code_challenge", ""), form.get("code_verifier", "")):
            raise self._refused("invalid_grant", "invalid code verifier")
        self.scope = asked.get("scope") or self.scope

    def _refused(self, error: str, message: str) -> Refusal:
        return Refusal(self.answer({"error": error, "error_description": message}, 400))


def _basic(call: Incoming) -> dict[str, str]:
    """The client's id and secret from the Authorization header, which the token endpoint takes as well."""
    scheme, _, coded = call.headers.get("authorization", "").partition(" ")
    try:
        name, _, secret = base64.b64decode(coded, validate=True).decode().partition(":")
    except ValueError:
        return {}
    return {"client_id": name, "client_secret": secret} if scheme.lower() == "basic" else {}
