"""Custom webhook: each write is POSTed, signed, to an https address of the customer's team.

Format and signature: Standard Webhooks 1.0.0,
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (read 2026-11-22).
The body is ``{object, fields, idempotency_key}`` plus ``operation``, ``remote_id``, ``match`` and ``links``;
the receiver translates it to whatever CRM stands behind. Reading back is not part of a write bridge.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import msgspec

from crmbridge.core.driver import Proof
from crmbridge.core.errors import (
    AuthError,
    CrmError,
    FieldError,
    Fix,
    NotConfigured,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Idempotency,
    IdempotencyKind,
    Manifest,
    ObjectSpec,
    Setting,
)
from crmbridge.core.operations import FULL, LIMITED, NEVER, DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.toolkit import failures
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.failures import StatusRule
from crmbridge.toolkit.signatures import sign_standard

SPECIFICATION = "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"
_NO_READS = NEVER("a webhook is a write bridge: the receiver is told, it is not asked", SPECIFICATION)
_NEEDS_ID = LIMITED("only records for which the receiver answered a remote id can be named again")

_NO_NOTE_KEY = NEVER("a note has no slot by which the same note could be found again", SPECIFICATION)

_OBJECT = {
    **dict.fromkeys(
        (
            Operation.DESCRIBE,
            Operation.LOOKUP,
            Operation.SEARCH,
            Operation.GET,
            Operation.LIST,
            Operation.CHANGES,
        ),
        _NO_READS,
    ),
    Operation.CREATE: FULL,
    Operation.UPSERT: FULL,
    Operation.UPDATE: _NEEDS_ID,
    Operation.DELETE: _NEEDS_ID,
    Operation.ERASE: _NEEDS_ID,
}

MANIFEST = Manifest(
    slug="custom_webhook",
    display_name="Custom webhook",
    api_version="Standard Webhooks 1.0.0",
    pages=(SPECIFICATION,),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.HMAC, secret="secret"),  # noqa: S106 - the name of a setting
    settings=(
        Setting(
            name="url",
            label="Receiver URL",
            help="The https address that takes POST requests with JSON. Redirects are not followed.",
            kind="url",
            pattern=r"https?://[^\s]{3,2000}",
            example="https://crm-bridge.example.com/hooks/crmbridge",
        ),
        Setting(
            name="secret",
            label="Signing secret",
            help="Made by crmbridge and shown once; the receiver verifies signatures with it. Paste one of "
            "your own (whsec_ and base64 of 24 to 64 bytes) to keep an existing receiver unchanged.",
            is_secret=True,
            is_generated=True,
            pattern=r"(whsec_)?[A-Za-z0-9+/]{32,88}={0,2}",
        ),
        Setting(
            name="previous_secret",
            label="Previous signing secret",
            help="Only while rotating, and filled in by crmbridge: requests then carry both signatures, so the "
            "receiver may change over at any moment. It ends when the old credential is revoked.",
            is_secret=True,
            is_required=False,
            follows="secret",
            pattern=r"(whsec_)?[A-Za-z0-9+/]{32,88}={0,2}",
        ),
    ),
    base_url="{url}",
    objects={
        obj: ObjectSpec(
            native=obj.value,
            id_field="remote_id",
            operations=_OBJECT | ({Operation.UPSERT: _NO_NOTE_KEY} if obj is Object.NOTE else {}),
            delete_level=DeleteLevel.PASS_THROUGH,
            erase_level=DeleteLevel.PASS_THROUGH,
            idempotency=Idempotency(kind=IdempotencyKind.KEY_SENT, field="webhook-id"),
        )
        for obj in Object
    },
    verticals=("general", "clinic", "salon", "auto_service", "restaurant", "real_estate"),
    verification_note="signatures verified by the official standardwebhooks library on loopback",
    timeout_seconds=20.0,
    strict_ids=r"[^\x00-\x1f\x7f]{1,200}",
    setup_help="Build the receiver first, then enter its URL and give it the secret that is shown.",
)

# What a status means when it comes from a receiver rather than from a CRM.
_MOVED = StatusRule(
    error=NotConfigured,
    outcome=Outcome.NOT_APPLIED,
    retry_safe=True,
    fix=Fix("correct_url", "The receiver redirects, which is not followed: enter its final address."),
)
_WRONG_PLACE = StatusRule(
    error=NotConfigured,
    fix=Fix("correct_url", "Nothing takes webhooks at this address: check the receiver's URL."),
)
_REFUSED = StatusRule(
    error=AuthError,
    subcode="invalid_credentials",
    fix=Fix("share_secret", "Give the receiver the current signing secret, or set previous_secret."),
)
_STATUSES = {
    **dict.fromkeys((300, 301, 302, 303, 304, 305, 307, 308), _MOVED),
    401: _REFUSED,
    403: _REFUSED,
    405: _WRONG_PLACE,
    410: StatusRule(
        error=NotConfigured,
        subcode="endpoint_gone",
        fix=Fix("correct_url", "The receiver says it is gone for good (410): enter a new address."),
    ),
}
_ON_NEW = {**_STATUSES, 404: _WRONG_PLACE}  # with a remote id, 404 means the record


class CustomWebhook(HttpDriver):
    """One POST per write. Sending again is safe: the same webhook-id tells the receiver of a repeat."""

    MANIFEST = MANIFEST

    async def test_connection(self) -> Proof:
        """POSTs a no-op event; only 200 passes."""
        message_id = f"test-{uuid.uuid4().hex}"
        tree = {"object": "test", "operation": "test", "fields": {}, "idempotency_key": message_id}
        response = await self._post(tree, message_id, operation="test", is_write=False)
        if response.status != 200:
            raise UnexpectedResponse(
                f"The receiver answered HTTP {response.status} to the test event; 200 is needed.",
                provider=self.manifest.slug,
                operation="test",
                outcome=Outcome.NOT_APPLIED,
                fix=Fix("answer_200", "Let the receiver answer 200 to events with the object test."),
            )
        self._answer(response, Operation.CREATE)
        return Proof(account=urlsplit(self.base_url()).hostname or "")

    async def create_record(self, write: Write) -> WriteResult:
        return await self._deliver(write, Operation.CREATE)

    async def update_record(self, write: Write) -> WriteResult:
        return await self._deliver(write, Operation.UPDATE)

    async def upsert_record(self, write: Write) -> WriteResult:
        return await self._deliver(write, Operation.UPSERT)

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        return await self._remove(obj, remote_id, Operation.DELETE)

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        return await self._remove(obj, remote_id, Operation.ERASE)

    async def write_one(self, write: Write) -> WriteResult:
        """Deletes carry the target id too, which the plain delete verb cannot hand over."""
        if write.operation not in (Operation.DELETE, Operation.ERASE):
            return await super().write_one(write)
        try:
            result = await self._deliver(write, write.operation)
        except CrmError as error:
            return WriteResult(outcome=error.outcome, remote_id=write.remote_id, error=error)
        return msgspec.structs.replace(result, delete_level=DeleteLevel.PASS_THROUGH.value)

    async def _remove(self, obj: Object, remote_id: str, operation: Operation) -> DeleteLevel:
        digest = hashlib.sha256(f"{operation.value}/{obj.value}/{remote_id}".encode()).hexdigest()[:32]
        write = Write(
            target_id=f"{operation.value}-{digest}", operation=operation, object=obj, remote_id=remote_id
        )
        await self._deliver(write, operation)
        return self.spec(obj, operation).delete_level

    async def _deliver(self, write: Write, operation: Operation) -> WriteResult:
        self.spec(write.object, operation)
        message_id = write.target_id.replace(".", "-")
        response = await self._post(
            self._envelope(write, operation),
            message_id,
            operation=operation.value,
            is_write=True,
            names_record=bool(write.remote_id),
        )
        answer = self._answer(response, operation)
        remote_id = self._remote_id(answer, operation) or write.remote_id
        url = answer.get("url")
        created = answer.get("created")
        return WriteResult(
            outcome=Outcome.APPLIED,
            remote_id=remote_id,
            url=url if isinstance(url, str) and url.startswith("https://") else "",
            was_created=created if isinstance(created, bool) else None,
        )

    def _envelope(self, write: Write, operation: Operation) -> dict[str, Any]:
        named = operation in (Operation.UPDATE, Operation.DELETE, Operation.ERASE)
        if named and not write.remote_id:
            problem = FieldError(
                f"{write.object.value}.remote_id",
                "is missing: the receiver answered no remote_id when it took this record; let it answer one",
            )
            raise ValidationError(
                "The record cannot be named.", provider=self.manifest.slug, fields=(problem,)
            )
        if write.related:
            problem = FieldError(
                f"{write.object.value}.*", "is mapped to another object; a webhook has one only"
            )
            raise ValidationError(
                "The mapping cannot be sent.", provider=self.manifest.slug, fields=(problem,)
            )
        tree: dict[str, Any] = {
            "object": write.object.value,
            "operation": operation.value,
            "fields": write.fields,
            "idempotency_key": write.idempotency_key or write.target_id,
        }
        extras = {"remote_id": write.remote_id, "match": write.match, "links": write.links}
        return tree | {name: value for name, value in extras.items() if value}

    async def _post(
        self,
        tree: dict[str, Any],
        message_id: str,
        *,
        operation: str,
        is_write: bool,
        names_record: bool = False,
    ) -> HttpResponse:
        body = msgspec.json.encode(tree)
        names = ("secret", "previous_secret")
        secrets = [self.access.secrets[name] for name in names if self.access.secrets.get(name)]
        try:
            headers = sign_standard(secrets, message_id, int(time.time()), body)
        except ValueError:
            raise AuthError(
                "The signing secret is missing or is not whsec_ and the base64 of 24 to 64 bytes.",
                subcode="invalid_credentials",
                provider=self.manifest.slug,
                fix=Fix("regenerate_secret", "Let crmbridge make a new secret and give it to the receiver."),
            ) from None
        headers["Content-Type"] = "application/json"
        request = HttpRequest(
            method="POST", url=self.access.settings.get("url", "").strip(), headers=headers, body=body
        )
        try:
            response = await self.exchange(
                request, operation=operation, is_write=is_write, ok_statuses=tuple(range(300, 600))
            )
        except CrmError as error:
            error.retry_safe = error.retry_safe or error.outcome is Outcome.UNKNOWN
            raise
        if response.status >= 300:
            statuses = _STATUSES if names_record else _ON_NEW
            raise self._refusal(request, response, operation, is_write, statuses, tree["object"])
        return response

    def _refusal(
        self,
        request: HttpRequest,
        response: HttpResponse,
        operation: str,
        is_write: bool,
        statuses: dict[int, StatusRule],
        obj: str,
    ) -> CrmError:
        """The receiver's no. Its JSON may hold ``message``, ``errors`` (slot → text) and ``remote_id``."""
        try:
            tree = response.json()
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            tree = {}
        tree = tree if isinstance(tree, dict) else {}
        errors = tree.get("errors")
        pairs = list(errors.items())[:50] if isinstance(errors, dict) else []
        existing = tree.get("remote_id")
        error = failures.error_for_status(
            response,
            provider=self.manifest.slug,
            operation=operation,
            is_write=is_write,
            overrides=statuses,
            fields=tuple(FieldError(f"{obj}.{slot}", str(text)) for slot, text in pairs),
            existing_remote_id=self.id_text(existing) if response.status == 409 else "",
            redactor=self.redactor_for(request),
        )
        error.retry_safe = error.retry_safe or error.outcome is Outcome.UNKNOWN
        return error

    def _answer(self, response: HttpResponse, operation: Operation) -> dict[str, Any]:
        """The JSON object of a 2xx; empty for an empty body or a plain text such as ``ok``.

        A web page is no acknowledgement: a login or parking page answers 200 to anything.
        """
        start = response.body[:200].lstrip().lower()
        is_page = start.startswith(b"<") or "html" in response.header("content-type").lower()
        if not start or not (is_page or response.is_json or start.startswith((b"{", b"["))):
            return {}
        try:
            tree = failures.parse_json(
                response, provider=self.manifest.slug, operation=operation.value, is_write=True
            )
        except CrmError as error:
            error.retry_safe = True
            error.fix = Fix(
                "answer_json", "Let the receiver answer 2xx with JSON or an empty body, no web page."
            )
            raise
        return tree if isinstance(tree, dict) else {}

    def _remote_id(self, answer: dict[str, Any], operation: Operation) -> str:
        found = answer.get("remote_id", answer.get("id"))
        remote_id = self.id_text(found)
        if found not in (None, "") and not remote_id:
            error = self.unexpected(
                "a remote_id that is not a text of 1 to 200 characters", operation, is_write=True
            )
            error.retry_safe = True
            raise error
        return remote_id

    def preview(self, write: Write) -> Any:
        """The body as it would leave; signatures are made when it does."""
        return {"method": "POST", "body": self._envelope(write, write.operation)}
