"""Zoho's accounts server: consent page, tokens, revocation, and what a token may do.

https://www.zoho.com/accounts/protocol/oauth.html and
https://www.zoho.com/crm/developer/docs/api/v8/access-refresh.html: access tokens live for an hour, refresh tokens
until they are revoked and do not rotate; refusals of the token endpoint are HTTP 200 with ``error``; a code works
once, for two minutes; a user keeps 20 refresh tokens per client and 10 access tokens per refresh token (the oldest
goes); more than 10 token calls per refresh token in 10 minutes are "Access Denied" (HTTP 400).
"""

from __future__ import annotations

from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Emulator, Incoming, Refusal, consent_page, route, sent_back

__all__ = ["CENTRES", "OAuthPages"]

CENTRES = {
    "us": ("https://accounts.zoho.com", "https://www.zohoapis.com"),
    "eu": ("https://accounts.zoho.eu", "https://www.zohoapis.eu"),
    "in": ("https://accounts.zoho.in", "https://www.zohoapis.in"),
    "au": ("https://accounts.zoho.com.au", "https://www.zohoapis.com.au"),
    "jp": ("https://accounts.zoho.jp", "https://www.zohoapis.jp"),
    "cn": ("https://accounts.zoho.com.cn", "https://www.zohoapis.com.cn"),
    "ca": ("https://accounts.zohocloud.ca", "https://www.zohoapis.ca"),
    "sa": ("https://accounts.zoho.sa", "https://www.zohoapis.sa"),
}
LIFE_SECONDS = 3600
CODE_SECONDS = 120
MOST_REFRESH, MOST_ACCESS, MOST_CALLS, CALLS_WINDOW = 20, 10, 10, 600.0
EVERYTHING = ("ZohoCRM.modules.ALL", "ZohoCRM.settings.ALL", "ZohoCRM.coql.READ", "ZohoCRM.org.READ")
MORE = ("ZohoCRM.users.READ", "ZohoSearch.securesearch.READ", "ZohoCRM.settings.recycle_bin.ALL")
_AREAS = {"fields": "fields", "layouts": "layouts", "modules": "modules", "related_lists": "related_lists"}
_VERBS = {"GET": "READ", "POST": "CREATE", "PUT": "UPDATE", "PATCH": "UPDATE", "DELETE": "DELETE"}


class Grant:
    """One refresh token: what was consented to, its access tokens, and when it was used."""

    def __init__(self, scopes: list[str]) -> None:
        self.scopes = scopes
        self.access: list[str] = []
        self.calls: list[float] = []


class OAuthPages(Emulator):
    """The accounts half of the emulator. It says that it is data centre ``data_centre``, wherever it listens.

    ``secret("refresh_token")`` is a grant that stands from the beginning, for clients that are given one.
    ``missing_scopes``: scopes that every token lacks.
    """

    client_id = "1000.CRMBRIDGEEMULATOR"

    def seed(self) -> None:
        self.data_centre = "us"
        self.codes: dict[str, tuple[float, dict[str, str]]] = {}
        self.grants: dict[str, Grant] = {}
        self.is_first_grant_dead = False
        self.tokens: dict[str, tuple[float, str]] = {}
        self.missing_scopes: set[str] = set()
        self.issued = 0

    # -- the door ------------------------------------------------------------------------------------------

    def token_problem(self, call: Incoming) -> HttpResponse | None:
        """None for the fixed token of this emulator or a living one with the scope for this call."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if not token:
            return self.problem(401, "AUTHENTICATION_FAILURE", "Authentication failed")
        scopes = [*EVERYTHING, *MORE]
        if scheme not in ("Zoho-oauthtoken", "Bearer") or token != self.secret("access_token"):
            known = self.tokens.get(token)
            if (
                known is None
                or known[0] <= self.clock.timestamp()
                or scheme not in ("Zoho-oauthtoken", "Bearer")
            ):
                return self.problem(401, "INVALID_TOKEN", "invalid oauth token")
            scopes = self.grants[known[1]].scopes
        for needed in self._needed(call):
            if needed in self.missing_scopes or not _covers(scopes, needed):
                return self.problem(401, "OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL")
        return None

    def _needed(self, call: Incoming) -> list[str]:
        parts = call.path.strip("/").split("/")[2:]
        verb = _VERBS.get(call.method, "READ")
        if not parts or parts[0] in ("org", "users"):
            return [f"ZohoCRM.{parts[0]}.READ"] if parts else []
        if parts[0] == "coql":
            return ["ZohoCRM.coql.READ", "ZohoCRM.settings.fields.READ"]
        if parts[0] == "settings":
            area = parts[1] if len(parts) > 1 else "modules"
            return [f"ZohoCRM.settings.{_AREAS.get(area, area)}.{verb}"]
        needed = [f"ZohoCRM.modules.{parts[0].lower()}.{verb}"]
        if parts[-1] in ("search", "count"):
            needed.append("ZohoSearch.securesearch.READ")
        return needed

    def problem(
        self, status: int, code: str, message: str, details: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Zoho's error body."""
        tree = {"code": code, "details": details or {}, "message": message, "status": "error"}
        return self.answer(tree, status)

    # -- consent -------------------------------------------------------------------------------------------

    @route("GET", "/oauth/v2/auth", operation="oauth.authorize")
    def authorize(self, call: Incoming) -> HttpResponse:
        problem = ""
        if call.first("client_id") != self.client_id:
            problem = "Invalid Client Id"
        elif (
            call.first("response_type") != "code" or not call.first("redirect_uri") or not call.first("scope")
        ):
            problem = "Invalid request: response_type, redirect_uri and scope are needed"
        elif " " in call.first("scope"):
            problem = "Scope does not exist"  # scopes are separated by commas
        return consent_page(
            call,
            f"{self.base_url}/oauth/v2/auth",
            provider="Zoho",
            title="Zoho Accounts",
            asks=f"crmbridge would like to access: {call.first('scope')}",
            problem=problem,
            buttons={"accept": "Accept", "reject": "Reject"},
        )

    @route("POST", "/oauth/v2/auth", operation="oauth.decide", writes=False)
    def decide(self, call: Incoming) -> HttpResponse:
        form = call.fields
        back = {"state": form.get("state", "")}
        if form.get("decision") in ("accept", "allow"):
            self.issued += 1
            code = f"1000.{self.secret(f'code {self.issued}', 32)}"
            self.codes[code] = (self.clock.timestamp() + CODE_SECONDS, form)
            back |= {
                "code": code,
                "location": self.data_centre,
                "accounts-server": CENTRES[self.data_centre][0],
            }
        else:
            back["error"] = "access_denied"
        return sent_back(form["redirect_uri"], back)

    @route("GET", "/oauth/serverinfo", operation="oauth.servers")
    def servers(self, call: Incoming) -> HttpResponse:
        locations = {name: accounts for name, (accounts, _) in CENTRES.items()}
        return self.answer({"result": "success", "locations": locations})

    # -- tokens --------------------------------------------------------------------------------------------

    @route("POST", "/oauth/v2/token", operation="oauth.token", writes=False)
    def token(self, call: Incoming) -> HttpResponse:
        form = self._form(call)
        if form.get("client_id") != self.client_id:
            return self.answer({"error": "invalid_client"})
        if form.get("client_secret") != self.secret("client_secret"):
            return self.answer({"error": "invalid_client_secret"})
        kind = form.get("grant_type")
        if kind == "authorization_code":
            return self._exchange(form)
        if kind == "refresh_token":
            refresh = form.get("refresh_token", "")
            if refresh == self.secret("refresh_token") and not self.is_first_grant_dead:
                self.grants.setdefault(refresh, Grant([*EVERYTHING, *MORE]))
            if refresh not in self.grants:
                return self.answer({"error": "invalid_code"})
            return self.answer(self._issue(refresh))
        return self.answer({"error": "unsupported_grant_type"})

    def _exchange(self, form: dict[str, str]) -> HttpResponse:
        until, asked = self.codes.pop(form.get("code", ""), (0.0, {}))
        if until <= self.clock.timestamp():
            return self.answer({"error": "invalid_code"})
        if form.get("redirect_uri") != asked["redirect_uri"]:
            return self.answer({"error": "invalid_redirect_uri"})
        self.issued += 1
        refresh = f"1000.{self.secret(f'refresh {self.issued}', 32)}"
        self.grants[refresh] = Grant([scope for scope in asked["scope"].split(",") if scope])
        while len(self.grants) > MOST_REFRESH:
            self._forget(next(iter(self.grants)))
        tree = self._issue(refresh)
        # Without access_type=offline there is an access token alone.
        return self.answer(
            {**tree, "refresh_token": refresh} if asked.get("access_type") == "offline" else tree
        )

    def _issue(self, refresh: str) -> dict[str, Any]:
        grant, now = self.grants[refresh], self.clock.timestamp()
        grant.calls = [at for at in grant.calls if at > now - CALLS_WINDOW]
        if len(grant.calls) >= MOST_CALLS:
            text = "You have made too many requests continuously. Please try again after some time."
            tree = {"error_description": text, "error": "Access Denied", "status": "failure"}
            raise Refusal(self.answer(tree, 400))
        grant.calls.append(now)
        self.issued += 1
        access = f"1000.{self.secret(f'access {self.issued}', 64)}"
        self.tokens[access] = (now + LIFE_SECONDS, refresh)
        grant.access.append(access)
        while len(grant.access) > MOST_ACCESS:
            self.tokens.pop(grant.access.pop(0), None)
        return {
            "access_token": access,
            "scope": " ".join(grant.scopes),
            "api_domain": CENTRES[self.data_centre][1],
            "token_type": "Bearer",
            "expires_in": LIFE_SECONDS,
        }

    @route("POST", "/oauth/v2/token/revoke", operation="oauth.revoke", writes=False)
    def revoke(self, call: Incoming) -> HttpResponse:
        token = self._form(call).get("token", "")
        if token == self.secret("refresh_token") and not self.is_first_grant_dead:
            self.grants.setdefault(token, Grant([*EVERYTHING, *MORE]))
        if token in self.grants:
            self._forget(token)
        elif token in self.tokens:
            del self.tokens[token]
        else:
            return self.answer({"error": "invalid_token", "status": "failure"}, 400)
        return self.answer({"status": "success"})

    def _forget(self, refresh: str) -> None:
        self.is_first_grant_dead |= refresh == self.secret("refresh_token")
        for access in self.grants.pop(refresh).access:
            self.tokens.pop(access, None)

    def _form(self, call: Incoming) -> dict[str, str]:
        """Fields of the body, or of the address as the pages show it."""
        given = {name: values[0] for name, values in call.query.items()}
        if "application/x-www-form-urlencoded" in call.headers.get("content-type", ""):
            given |= call.fields
        return given


def _covers(scopes: list[str], needed: str) -> bool:
    parts = needed.split(".")
    wider = {".".join([*parts[:place], "ALL"]) for place in range(2, len(parts))}
    if parts[-1] in ("CREATE", "UPDATE"):
        wider.add(".".join([*parts[:-1], "WRITE"]))
    return bool(({needed} | wider) & set(scopes))
