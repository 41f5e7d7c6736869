"""What every call of the emulated Toast has in common: the sign-in, the restaurant's header, scopes, limits, errors."""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec

from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, Quota, Refusal, route
from crmbridge.emulation.faults import Fault

__all__ = ["LOGIN", "OTHER_RESTAURANT", "RESTAURANT", "EmulatedTill", "stamp"]

LOGIN = "/authentication/v1/authentication/login"
RESTAURANT = "a1b2c3d4-0000-4000-8000-000000000001"
OTHER_RESTAURANT = "a1b2c3d4-0000-4000-8000-000000000002"
LIFE_SECONDS = 86_400
RENEWED_WITHIN_SECONDS = 60
GUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
ALL_SCOPES = ("restaurants:read", "orders:read", "guest.pi:read", "delivery_info.address:read")


class EmulatedTill(Emulator):
    """One partner client, connected by one of two restaurants. ``is_standard`` makes it a client that only reads."""

    slug = "toast"
    display_name = "Toast"
    is_standard: ClassVar[bool] = False

    def __init__(self, clock: Clock | None = None) -> None:
        self.scopes = list(ALL_SCOPES)
        self.connected = {RESTAURANT}
        self.issued_at = 0.0
        super().__init__(clock)
        self.quotas += [
            Quota(limit=20, per_seconds=1, name="GLOBAL"),
            Quota(limit=10_000, per_seconds=900, name="GLOBAL"),
            Quota(limit=5, per_seconds=1, name="ENDPOINT", only="orders.bulk"),
        ]

    def seed(self) -> None:
        self.scopes = list(ALL_SCOPES)
        self.connected = {RESTAURANT}
        self.issued_at = 0.0

    def settings(self) -> dict[str, str]:
        return {"restaurant_guid": RESTAURANT, "client_id": "emulated-partner", "base_url": self.base_url}

    def secrets(self) -> dict[str, str]:
        return {"client_secret": self.secret("client_secret"), "access_token": self.token()}

    # -- sign-in -------------------------------------------------------------------------------------------

    def token(self) -> str:
        """The token in force: a JWT whose claim ``scope`` holds what the client may do."""
        now = self.clock.timestamp()
        if not self.issued_at or now >= self.issued_at + LIFE_SECONDS:
            self.issued_at = now
        start = int(self.issued_at)
        claims = {
            "https://toasttab.com/access_type": "TOAST_MACHINE_CLIENT",
            "https://toasttab.com/partner_guid": "5e8c0000-0000-4000-8000-00000000c0de",
            "sub": "emulated-partner@clients",
            "aud": "https://toast-services-api/",
            "iat": start,
            "exp": start + LIFE_SECONDS,
            "scope": " ".join(self.scopes),
            "gty": "client-credentials",
        }
        parts = [msgspec.json.encode(part) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
        signature = self.secret(f"signature-{start}", 64).encode()
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))

    @route("POST", LOGIN, operation="login", writes=False)
    def login(self, call: Incoming) -> HttpResponse:
        given = call.json if isinstance(call.json, dict) else {}
        if given.get("userAccessType") != "TOAST_MACHINE_CLIENT":
            raise self.refusal(400, "userAccessType is not valid")
        secret = str(given.get("clientSecret"))
        if given.get("clientId") != "emulated-partner" or not hmac.compare_digest(
            secret.encode(), self.secret("client_secret").encode()
        ):
            raise self.refusal(401, "Client credentials are not valid")
        now = self.clock.timestamp()
        if self.issued_at and self.issued_at + LIFE_SECONDS - now <= RENEWED_WITHIN_SECONDS:
            self.issued_at = now
        token = self.token()
        shown = {
            "tokenType": "Bearer",
            "scope": None,
            "expiresIn": int(self.issued_at + LIFE_SECONDS - now),
            "accessToken": token,
            "idToken": None,
            "refreshToken": None,
        }
        return self.answer({"@class": ".SuccessfulResponse", "token": shown, "status": "SUCCESS"})

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        if call.path == LOGIN:
            return None
        given = call.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token()}".encode()):
            return self.error(401, "The authentication token is not valid or has expired")
        if call.method != "GET" and self.is_standard:
            return self.error(403, "Standard API access allows GET requests only")
        restaurant = call.headers.get("toast-restaurant-external-id", "")
        if not restaurant:
            return self.error(400, "The Toast-Restaurant-External-ID header is missing")
        if not re.fullmatch(GUID, restaurant):
            return self.error(400, "Invalid restaurant GUID")
        if restaurant not in (RESTAURANT, OTHER_RESTAURANT):
            return self.error(404, "InvalidRestaurant")
        if restaurant not in self.connected:
            return self.error(403, "The restaurant is not connected to this client")
        return None

    def need(self, scope: str) -> None:
        if scope not in self.scopes:
            raise self.refusal(403, "UnauthorizedOperation: a scope is missing")

    # -- limits and errors ---------------------------------------------------------------------------------

    async def handle(self, request: HttpRequest) -> HttpResponse:
        answer = await super().handle(request)
        if not request.url.endswith(LOGIN):  # the login alone carries none
            answer.headers = {**answer.headers, **self.limits()}
        return answer

    def limits(self) -> dict[str, str]:
        quota = min(self.quotas[:2], key=lambda one: one.remaining)
        return {
            "x-toast-ratelimit-by": quota.name,
            "x-toast-ratelimit-remaining": str(quota.remaining),
            "x-toast-ratelimit-reset": str(int(quota.window_start + quota.per_seconds) + 1),
        }

    def on_limited(self, quota: Quota, wait_seconds: float, call: Incoming) -> HttpResponse:
        answer = self.error(429, "Too many requests")
        if call.path != LOGIN:
            answer.headers["retry-after"] = str(int(wait_seconds) + 1)
        return answer

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        return self.error(fault.status, "Fault on demand")

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        return self.error(404, "Resource not found")

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.error(400, "The request body is not valid JSON")

    def error(self, status: int, message: str, errors: list[str] | None = None) -> HttpResponse:
        """An ErrorMessage, with all of its nulls."""

        def said(text: str) -> dict[str, Any]:
            return {
                "status": status,
                "code": 10_000 + status,
                "message": text,
                "messageKey": None,
                "fieldName": None,
                "link": None,
                "requestId": str(uuid.UUID(int=len(self.requests) + 1, version=4)),
                "developerMessage": None,
                "errors": [],
                "canRetry": None,
            }

        return self.answer({**said(message), "errors": [said(text) for text in errors or ()]}, status)

    def refusal(self, status: int, message: str, errors: list[str] | None = None) -> Refusal:
        return Refusal(self.error(status, message, errors))

    def guid(self, text: str) -> str:
        if not re.fullmatch(GUID, text):
            raise self.refusal(400, "Malformed GUID")
        return text.lower()


def stamp(moment: datetime) -> str:
    """Milliseconds, and an offset without its colon."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}+0000"
