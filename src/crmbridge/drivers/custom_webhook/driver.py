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
    Fix,
    UnexpectedResponse,
)
from crmbridge.core.manifest import (
    Auth,
    AuthKind,
    Manifest,
)
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Object, Write, WriteResult
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.custom_webhook.credential import SETTINGS
from crmbridge.drivers.custom_webhook.messages import answer_of, error_of
from crmbridge.drivers.custom_webhook.objects import OBJECTS, SPECIFICATION
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.signatures import sign_standard

MANIFEST = Manifest(
    slug="custom_webhook",
    display_name="Custom webhook",
    api_version="Standard Webhooks 1.0.0",
    pages=(SPECIFICATION,),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.HMAC, secret="secret"),  # noqa: S106 - the name of a setting
    settings=SETTINGS,
    base_url="{url}",
    objects=OBJECTS,
    verticals=("general", "clinic", "salon", "auto_service", "restaurant", "real_estate"),
    verification_note="signatures verified by the official standardwebhooks library on loopback",
    timeout_seconds=20.0,
    strict_ids=r"[^\x00-\x1f\x7f]{1,200}",
    setup_help="Build the receiver first, then enter its URL and give it the secret that is shown.",
)


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
        answer_of(response, self.manifest.slug, Operation.CREATE)
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
        answer = answer_of(response, self.manifest.slug, operation)
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
            problem = (
                "is missing: the receiver answered no remote_id when it took this record; let it answer one"
            )
            raise self.invalid("The record cannot be named.", f"{write.object.value}.remote_id", problem)
        if write.related:
            problem = "is mapped to another object; a webhook has one only"
            raise self.invalid("The mapping cannot be sent.", f"{write.object.value}.*", problem)
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
            raise error_of(
                response,
                provider=self.manifest.slug,
                operation=operation,
                is_write=is_write,
                obj=tree["object"],
                names_record=names_record,
                id_text=self.id_text,
                redactor=self.redactor_for(request),
            )
        return response

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
