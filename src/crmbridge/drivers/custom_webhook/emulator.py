"""A webhook receiver of a customer's team, written from the Standard Webhooks specification 1.0.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: signed content is
``id.timestamp.body``, HMAC-SHA256 with the decoded secret, base64; any signature of the list may match;
timestamps beyond five minutes are refused; a repeated id is acknowledged again and not processed again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, route

__all__ = ["CustomWebhookEmulator"]

TOLERANCE_SECONDS = 300
OBJECTS = ("customer", "lead", "deal", "appointment", "case", "note", "activity")


class CustomWebhookEmulator(Emulator):
    """Keeps what it is told. ``answers`` chooses how a genuine event is answered: ``json`` with a remote id,
    ``created`` (the same with 201), ``empty`` (204), ``text`` ("ok"), ``html`` (200 with a page), ``redirect``
    (308) or ``gone`` (410).
    """

    slug = "custom_webhook"
    display_name = "Custom webhook receiver"

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.answers = "json"
        self.accepted_secrets: list[str] | None = None
        self.events: list[dict[str, Any]] = []
        self.repeats = 0
        self._answered: dict[str, HttpResponse] = {}

    def settings(self) -> dict[str, str]:
        return {"url": f"{self.base_url}/receive"}

    def secrets(self) -> dict[str, str]:
        return {"secret": self.signing_secret()}

    def signing_secret(self, name: str = "secret") -> str:
        """A secret in the form of the specification: ``whsec_`` and the base64 of 32 bytes."""
        return "whsec_" + base64.b64encode(hashlib.sha256(self.secret(name).encode()).digest()).decode()

    def reset(self) -> None:
        super().reset()
        self.answers, self.accepted_secrets, self.repeats = "json", None, 0
        self.events.clear()
        self._answered.clear()

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        problem = self._problem(call)
        return self.answer({"message": problem}, 401) if problem else None

    def _problem(self, call: Incoming) -> str:
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        message_id, timestamp, signatures = (call.headers.get(name, "") for name in names)
        if not (message_id and timestamp and signatures) or "." in message_id:
            return "the webhook headers are missing or malformed"
        if not timestamp.isdigit() or abs(int(timestamp) - self.clock.timestamp()) > TOLERANCE_SECONDS:
            return "the timestamp is outside the tolerance"
        signed = f"{message_id}.{timestamp}.".encode() + call.body
        for text in self.accepted_secrets or [self.signing_secret()]:
            key = base64.b64decode(text.removeprefix("whsec_"))
            expected = hmac.new(key, signed, hashlib.sha256).digest()
            if any(_is_equal(item, expected) for item in signatures.split(" ")):
                return ""
        return "no signature matches"

    @route("POST", "/receive", operation="receive")
    def receive(self, call: Incoming) -> HttpResponse:
        message_id = call.headers["webhook-id"]
        if message_id in self._answered:
            self.repeats += 1
            return self._answered[message_id]
        event = call.json
        if not isinstance(event, dict):
            return self.answer({"message": "the body is not an event"}, 400)
        if event.get("object") == "test":
            return self._shaped({"received": True}, 200)
        response = self._process(event)
        if response.status < 300:
            self._answered[message_id] = response
        return response

    def _process(self, event: dict[str, Any]) -> HttpResponse:
        kind = event.get("object")
        if (
            kind not in OBJECTS
            or not isinstance(event.get("fields"), dict)
            or not event.get("idempotency_key")
        ):
            return self.answer({"message": "object, fields and idempotency_key are needed"}, 422)
        if errors := {name: "is refused here" for name in event["fields"] if name.startswith("refused")}:
            return self.answer({"message": "some fields are refused", "errors": errors}, 422)
        if self.answers in ("redirect", "gone"):
            return self._shaped({}, 200)
        self.events.append(event)
        table = self.store.named(kind, lambda count: f"crm-{kind}-{count}")
        operation = event.get("operation", "create")
        remote_id = event.get("remote_id", "")
        if operation in ("update", "delete", "erase"):
            if table.get(remote_id) is None:
                return self.answer({"message": "no such record"}, 404)
            if operation == "update":
                table.update(remote_id, event["fields"])
            else:
                table.remove(remote_id)
            return self._shaped({"remote_id": remote_id}, 200)
        found = [
            row for row in table if operation == "upsert" and _matches(row.fields, event.get("match", {}))
        ]
        if len(found) > 1:
            return self.answer({"message": "several records match", "remote_id": found[0].id}, 409)
        if found:
            table.update(found[0].id, event["fields"])
            return self._shaped({"remote_id": found[0].id, "created": False}, 200)
        fields = {**event["fields"], **({"links": event["links"]} if event.get("links") else {})}
        row = table.insert(fields)
        answer = {"remote_id": row.id, "url": f"{self.base_url}/records/{row.id}", "created": True}
        return self._shaped(answer, 201 if self.answers == "created" else 200)

    def _shaped(self, tree: dict[str, Any], status: int) -> HttpResponse:
        if self.answers == "empty":
            return HttpResponse(status=204)
        if self.answers == "text":
            return HttpResponse(status=200, headers={"content-type": "text/plain"}, body=b"ok")
        if self.answers == "html":
            page = b"<!doctype html><title>Welcome</title><p>This domain is parked."
            return HttpResponse(status=200, headers={"content-type": "text/html; charset=utf-8"}, body=page)
        if self.answers == "redirect":
            return HttpResponse(status=308, headers={"location": f"{self.base_url}/elsewhere"})
        if self.answers == "gone":
            return HttpResponse(status=410)
        return self.answer(tree, status)


def _matches(fields: dict[str, Any], match: dict[str, Any]) -> bool:
    return bool(match) and all(fields.get(name) == value for name, value in match.items())


def _is_equal(item: str, expected: bytes) -> bool:
    version, _, text = item.partition(",")
    if version != "v1":
        return False
    try:
        return hmac.compare_digest(base64.b64decode(text, validate=True), expected)
    except binascii.Error:
        return False
