"""HubSpot's consent page and token endpoints, from its OAuth pages and published spec.

https://developers.hubspot.com/docs/guides/api/app-management/oauth-tokens: access tokens live for 30 minutes, refresh
tokens until the app is uninstalled; one account has one refresh token per app, however often it is connected.
"""

from __future__ import annotations

from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, Refusal, consent_page, route, sent_back, verifies

__all__ = ["OAuthPages"]

LIFE_SECONDS = 1800
PORTAL = 62515


class OAuthPages(Emulator):
    """The OAuth half of the emulator. ``rotates`` lets a refresh answer a new refresh token."""

    client_id = "crmbridge-emulator"
    rotates = False

    def seed(self) -> None:
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, tuple[float, list[str]]] = {}
        self.refresh_token = self.secret("refresh_token")
        self.granted: list[str] = []
        self.is_installed = True
        self.issued = 0

    def bearer_problem(self, call: Incoming) -> HttpResponse | None:
        """None for a service key or a living token."""
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if token == self.secret("access_token"):
            return None
        if token not in self.tokens:
            text = "Authentication credentials not found. This API supports OAuth 2.0 authentication"
            return self.problem(401, "INVALID_AUTHENTICATION", text)
        late = self.clock.timestamp() - self.tokens[token][0]
        if late < 0:
            return None
        text = f"The OAuth token used to make this call expired {int(late // 60)} minute(s) ago."
        return self.problem(401, "EXPIRED_AUTHENTICATION", text)

    def problem(self, status: int, category: str, message: str, **more: Any) -> HttpResponse:
        """HubSpot's error body."""
        self.issued += 1
        correlation = f"aeb5f871-7f07-4993-9211-{self.issued:012d}"
        tree = {"status": "error", "message": message, "correlationId": correlation}
        if category:
            tree["category"] = category
        return self.answer({**tree, **more}, status, {"X-HubSpot-Correlation-Id": correlation})

    # -- consent -------------------------------------------------------------------------------------------

    @route("GET", "/oauth/authorize", operation="oauth.authorize")
    def authorize(self, call: Incoming) -> HttpResponse:
        problem = ""
        if call.first("client_id") != self.client_id:
            problem = "This app doesn't exist."
        elif not call.first("redirect_uri") or not call.first("scope"):
            problem = "The redirect_uri or the scope is missing."
        return consent_page(
            call,
            f"{self.base_url}/oauth/authorize",
            provider="HubSpot",
            title="Connect an app",
            asks=f"crmbridge asks for: {call.first('scope')}",
            problem=problem,
        )

    @route("POST", "/oauth/authorize", operation="oauth.decide", writes=False)
    def decide(self, call: Incoming) -> HttpResponse:
        form = call.fields
        back = {"state": form.get("state", "")}
        if form.get("decision") == "allow":
            code = self.secret(f"code {len(self.codes)}")
            self.codes[code] = form
            back["code"] = code
        else:
            back |= {"error": "access_denied", "error_description": "The user denied access."}
        return sent_back(form["redirect_uri"], back)

    # -- tokens --------------------------------------------------------------------------------------------

    @route("POST", "/oauth/{version}/token", operation="oauth.token", writes=False)
    def token(self, call: Incoming) -> HttpResponse:
        form = self._form(call)
        self._check_client(form)
        kind = form.get("grant_type")
        if kind == "authorization_code":
            self._check_code(form)
        elif kind == "refresh_token":
            if form.get("refresh_token") != self.refresh_token or not self.is_installed:
                text = "refresh token is invalid, expired or revoked"
                raise self._refused("BAD_REFRESH_TOKEN", "invalid_grant", text)
            if self.rotates:
                self.refresh_token = self.secret(f"refresh_token {self.issued}")
        elif kind == "client_credentials":  # the app itself, for its webhooks journal; no account's records
            return self.answer(
                {
                    "token_type": "bearer",
                    "token_use": "client_credentials",
                    "access_token": self.secret("app token"),
                    "expires_in": LIFE_SECONDS,
                }
            )
        else:
            raise self._refused("BAD_GRANT_TYPE", "unsupported_grant_type", "unknown grant type")
        self.issued += 1
        access = self.secret(f"access {self.issued}", 80)
        self.tokens[access] = (self.clock.timestamp() + LIFE_SECONDS, list(self.granted))
        return self.answer(
            {
                "token_type": "bearer",
                "token_use": "access_token",
                "access_token": access,
                "refresh_token": self.refresh_token,
                "expires_in": LIFE_SECONDS,
                "hub_id": PORTAL,
                "scopes": self.granted,
            }
        )

    @route("POST", "/oauth/{version}/token/introspect", operation="oauth.introspect", writes=False)
    def introspect(self, call: Incoming) -> HttpResponse:
        form = self._form(call)
        self._check_client(form)
        known = self.tokens.get(form.get("token", ""))
        if known is None or known[0] <= self.clock.timestamp():
            return self.answer({"active": form.get("token") == self.refresh_token and self.is_installed})
        return self.answer(
            {"active": True, "hub_id": PORTAL, "scopes": known[1], "token_use": "access_token"}
        )

    @route("GET", "/oauth/v1/access-tokens/{token}", operation="oauth.introspect")
    def access_token(self, call: Incoming) -> HttpResponse:
        """The older way to ask about a token."""
        known = self.tokens.get(call.params["token"])
        if known is None or known[0] <= self.clock.timestamp():
            return self.problem(404, "OBJECT_NOT_FOUND", "access token not found")
        return self.answer(
            {
                "token": call.params["token"],
                "user": "admin@agency.example",
                "hub_domain": "agency.example",
                "scopes": known[1],
                "hub_id": PORTAL,
                "app_id": 54321,
                "expires_in": int(known[0] - self.clock.timestamp()),
                "user_id": 77001,
                "token_type": "access",
            }
        )

    @route("DELETE", "/oauth/v1/refresh-tokens/{token}", operation="oauth.revoke", writes=False)
    def forget_refresh_token(self, call: Incoming) -> HttpResponse:
        """The older way to revoke."""
        if call.params["token"] == self.refresh_token:
            self.is_installed = False
        return HttpResponse(status=204)

    @route("POST", "/oauth/{version}/token/revoke", operation="oauth.revoke", writes=False)
    def revoke(self, call: Incoming) -> HttpResponse:
        form = self._form(call)
        self._check_client(form)
        if form.get("token") == self.refresh_token:  # access tokens that are out go on until they expire
            self.is_installed = False
        return HttpResponse(status=200)

    @route("DELETE", "/appinstalls/{version}/external-install", operation="oauth.uninstall", writes=False)
    def uninstall(self, call: Incoming) -> HttpResponse:
        self.is_installed = False
        self.tokens.clear()
        return HttpResponse(status=204)

    def _form(self, call: Incoming) -> dict[str, str]:
        if "application/x-www-form-urlencoded" not in call.headers.get("content-type", ""):
            raise Refusal(HttpResponse(status=415))
        return call.fields

    def _check_client(self, form: dict[str, str]) -> None:
        if form.get("client_id") != self.client_id:
            raise self._refused("BAD_CLIENT_ID", "invalid_client", "missing or unknown client id")
        if form.get("client_secret") != self.secret("client_secret"):
            raise self._refused("BAD_CLIENT_SECRET", "invalid_client", "missing or invalid client secret")

    def _check_code(self, form: dict[str, str]) -> None:
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            raise self._refused("BAD_AUTH_CODE", "invalid_grant", "missing or unknown auth code")
        if form.get("redirect_uri") != asked["redirect_uri"]:
            raise self._refused("BAD_REDIRECT_URI", "invalid_request", "missing or invalid redirect uri")
        if not verifies(asked.get("code_challenge", ""), form.get("code_verifier", "")):
            raise self._refused("BAD_CODE_VERIFIER", "invalid_grant", "the code verifier does not match")
        self.granted = f"{asked.get('scope', '')} {asked.get('optional_scope', '')}".split()
        self.is_installed = True

    def _refused(self, status: str, error: str, message: str) -> Refusal:
        tree = {"status": status, "message": message, "error": error, "error_description": message}
        return Refusal(self.answer(tree, 400))
