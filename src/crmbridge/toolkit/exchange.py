"""HttpDriver: one HTTP exchange of a driver, with every failure as one of our errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import quote

import msgspec

from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import Call, ObjectSpec
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.toolkit import auth, failures
from crmbridge.toolkit.calls import CompiledCall, compile_call, compiled_call
from crmbridge.toolkit.extraction import PathError
from crmbridge.toolkit.filling import fill_address, not_filled_in
from crmbridge.toolkit.hiding import hide_texts, sent_texts
from crmbridge.toolkit.templates import ABSENT, TemplateError

__all__ = ["HttpDriver"]

# What a new access token may cure.
_RENEWABLE = frozenset({"invalid_credentials", "expired"})


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


@lru_cache(maxsize=256)
def _split(template: str) -> tuple[list[str], list[str]]:
    """The texts of a template with ``{names}``, and the names between them."""
    parts = re.split(r"\{(\w+)\}", template)
    return parts[::2], parts[1::2]


def _hidden(error: CrmError, hide: Callable[[str], str]) -> CrmError:
    """The error without what the request said, wherever the provider repeated it. The provider's id of the call, which
    looks like a token, stays: it is what the provider's support asks for."""
    error.message = hide(error.message)
    error.args = (error.message,)
    error.provider_facts = {
        name: hide(value) if isinstance(value, str) and name != "provider_request_id" else value
        for name, value in error.provider_facts.items()
    }
    error.fields = tuple(
        FieldError(field.field, hide(field.message), hide(field.provider_code)) for field in error.fields
    )
    return error


class HttpDriver(CrmDriver):
    """What every driver that speaks HTTP needs: address, credential, one exchange, declared calls."""

    def base_url(self) -> str:
        """``manifest.base_url`` with ``{setting}`` and ``{fact}`` filled in, without a slash at its end.

        Raises NotConfigured for a missing value. Values that are not the whole URL are URL-quoted.
        """
        settings = {name: text for name, text in self.access.settings.items() if text}
        values = {**self.access.facts, **settings}
        return fill_address(self.manifest.base_url, values, self.manifest.slug).rstrip("/")

    def setting(self, name: str) -> str:
        """A setting as it is filled in, else its declared default; empty without either."""
        default = next((one.default for one in self.manifest.settings if one.name == name), "")
        return self.access.settings.get(name) or default

    def needed(self, name: str) -> str:
        """The same, of the declared pattern. Raises NotConfigured."""
        text = self.setting(name)
        pattern = next((one.pattern for one in self.manifest.settings if one.name == name), "")
        if not text or (pattern and not re.fullmatch(pattern, text)):
            problem = "not valid" if text else "missing"
            raise not_filled_in(name, self.manifest.slug, problem=problem)
        return text

    def error_from(self, response: HttpResponse, operation: str, is_write: bool) -> CrmError | None:
        """The driver's own reading of an answer, of a 2xx that is an error too; None = by status."""
        return None

    # -- one exchange --------------------------------------------------------------------------------------

    async def exchange(
        self,
        request: HttpRequest,
        *,
        operation: str,
        is_write: bool = False,
        ok_statuses: tuple[int, ...] = (),
    ) -> HttpResponse:
        """Base URL (for a ``url`` that begins with ``/``), auth, timeout, send; every failure as CrmError.

        Sends once. A write that was sent and not clearly answered has the outcome ``unknown``. A 401 on a token that
        can be renewed is the one exception: a refused call did nothing, so it goes once more with the new token; if
        that is refused too, the user lacks the right (``insufficient_scope``).
        """
        if self.access.renew is None:
            return await self._exchange_once(request, operation, is_write, ok_statuses)
        asked = msgspec.structs.replace(request, headers=dict(request.headers), query=dict(request.query))
        try:
            return await self._exchange_once(request, operation, is_write, ok_statuses)
        except AuthError as error:
            if error.subcode not in _RENEWABLE or not await self.access.renew():
                raise
        try:
            return await self._exchange_once(asked, operation, is_write, ok_statuses)
        except AuthError as error:
            if error.subcode in _RENEWABLE:
                error.subcode, error.http_status = "insufficient_scope", 403
                error.fix = Fix("grant_right", "Give the connected user the right to do this in the CRM.")
            raise

    async def _exchange_once(
        self, request: HttpRequest, operation: str, is_write: bool, ok_statuses: tuple[int, ...]
    ) -> HttpResponse:
        if request.url.startswith("/"):
            request.url = self.base_url() + request.url
        if request.timeout_seconds is None:
            request.timeout_seconds = self.manifest.timeout_seconds
        request.idempotent = not is_write
        request.headers.setdefault("Accept", "application/json")
        await auth.apply(self.manifest.auth, self.access, request)
        try:
            response = await self.access.transport.send(request)
        except TransportFailure as failure:
            error = failures.error_for_failure(
                failure, provider=self.manifest.slug, operation=operation, is_write=is_write
            )
            raise error from None
        if own := self.error_from(response, operation, is_write):
            raise _hidden(own, self.redactor_for(request))
        if 200 <= response.status < 300 or response.status in ok_statuses:
            return response
        raise failures.error_for_status(
            response,
            provider=self.manifest.slug,
            operation=operation,
            is_write=is_write,
            redactor=self.redactor_for(request),
        )

    def redactor_for(self, request: HttpRequest) -> Callable[[str], str]:
        """Hides what the request said from the provider's words: secrets, persons, all values that were sent."""
        hide = auth.redactor(self.access)
        hide_sent = hide_texts(chain(sent_texts(request), self.bare_texts(request)))
        return lambda text: hide(hide_sent(text))

    def bare_texts(self, request: HttpRequest) -> Iterable[str]:
        """Texts that this driver sends behind a label or a mark, without it: an echo may come without."""
        return ()

    def invalid(self, text: str, field: str, problem: str, *, operation: str = "") -> ValidationError:
        """The error for one field of a write or search that this provider cannot take."""
        return ValidationError(
            text, provider=self.manifest.slug, operation=operation, fields=(FieldError(field, problem),)
        )

    def tree_of(self, response: HttpResponse, *, operation: str, is_write: bool = False) -> Any:
        """The JSON tree, None for an empty body. Raises UnexpectedResponse for HTML or garbage."""
        if not response.body.strip():
            return None
        return failures.parse_json(
            response, provider=self.manifest.slug, operation=operation, is_write=is_write
        )

    async def exchange_json(
        self,
        request: HttpRequest,
        *,
        operation: str,
        is_write: bool = False,
        ok_statuses: tuple[int, ...] = (),
    ) -> Any:
        """:meth:`exchange`, then :meth:`tree_of`."""
        response = await self.exchange(
            request, operation=operation, is_write=is_write, ok_statuses=ok_statuses
        )
        return self.tree_of(response, operation=operation, is_write=is_write)

    async def revoke_at(self, url: str) -> bool:
        """Ends the grant at an address of RFC 7009: the refresh token with its access tokens, else the access token."""
        name = "refresh_token" if self.access.secrets.get("refresh_token") else "access_token"
        request = HttpRequest(method="POST", url=url, form={"token": auth.SecretRef(name)})
        await self.exchange(request, operation="revoke", is_write=True)
        return True

    def render(self, compiled: CompiledCall, scope: Mapping[str, Any]) -> HttpRequest:
        """The request of a compiled call. Raises ValidationError naming the place that cannot be filled."""
        full = {"settings": self.access.settings, **scope}
        try:
            path = compiled.path.render_path(full)
            request = HttpRequest(
                method=compiled.call.method,
                url=path if path.startswith(("/", "https:", "http:")) else f"/{path}",
                query=compiled.query.render_query(full) if compiled.call.query else {},
                headers=compiled.headers.render_headers(full) if compiled.call.headers else {},
            )
            if compiled.body is not None:
                body = compiled.body.render(full)
                request.json = {} if body is ABSENT else body
            elif compiled.form is not None:
                form = compiled.form.render(full)
                request.form = {} if form is ABSENT else form
        except TemplateError as error:
            text = f"The request cannot be made at {error.place}: {error.problem}."
            raise self.invalid(text, error.place, error.problem) from None
        return request

    def spec(self, obj: Object, operation: Operation) -> ObjectSpec:
        """The declared object. Raises Unsupported when the operation is not usable."""
        if self.manifest.why_unavailable or not self.manifest.supports(obj, operation).is_usable:
            raise refuse(self.manifest, obj, operation)
        return self.manifest.objects[obj]

    def call(self, obj: Object, operation: Operation) -> Call:
        """The declared call, or the REST default."""
        return compiled_call(self.manifest, obj, operation).call

    def check_id(self, obj: Object, remote_id: str) -> str:
        """The id, if it has the declared form: ids stand in URLs. Raises ValidationError."""
        if not _pattern(self.manifest.strict_ids).fullmatch(remote_id) or remote_id in (".", ".."):
            problem = "is not an id of this CRM; use one that it gave"
            raise self.invalid("The remote id is not valid.", f"{obj.value}.remote_id", problem)
        return remote_id

    def record_url(self, obj: Object, remote_id: str) -> str:
        """``ObjectSpec.url`` with ``{id}``, settings and facts filled in; empty when one is missing."""
        template = self.manifest.objects[obj].url
        if not template:
            return ""
        values = {**self.access.facts, **self.access.settings, "id": quote(remote_id, safe="")}
        texts, names = _split(template)
        url = texts[0]
        for name, text in zip(names, texts[1:], strict=True):
            value = values.get(name, "").rstrip("/")
            if not value:
                return ""
            url += value + text
        return url

    def id_text(self, found: Any) -> str:
        """A provider's id as a text, empty when it is no valid id."""
        if isinstance(found, bool) or not isinstance(found, (str, int)):
            return ""
        text = found if type(found) is str else str(found)
        return text if _pattern(self.manifest.strict_ids).fullmatch(text) else ""

    def mark(self, write: Write) -> str:
        """The text by which a record tells which write made it: the external id, or the key that is sent."""
        return f"{self.access.mark_prefix}-{write.target_id}"

    def ambiguous(self, remote_id: str, how_many: str) -> Conflict:
        """The error for an upsert whose match fits several records; ``remote_id`` is one of them."""
        name = self.manifest.display_name
        return Conflict(
            f"The match fits {how_many} records of {name}; an upsert needs one.",
            provider=self.manifest.slug,
            operation=Operation.UPSERT.value,
            existing_remote_id=remote_id,
            fix=Fix("narrow_match", f"Match by more fields, or merge the records in {name}."),
        )

    def unexpected(self, what: str, operation: Operation, *, is_write: bool) -> UnexpectedResponse:
        """The error for an answer of a wrong shape; a write that was answered so has an unknown outcome."""
        return UnexpectedResponse(
            f"{self.manifest.display_name} answered {what}.",
            provider=self.manifest.slug,
            operation=operation.value,
            outcome=Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED,
            retry_safe=not is_write,
        )

    async def test_connection(self) -> Proof:
        """The declared test call; ``Call.result`` may name the account in its answer."""
        if self.manifest.test_call is None or self.manifest.why_unavailable:
            raise refuse(self.manifest, None, Operation.GET)
        compiled = compile_call(self.manifest.test_call, "test.")
        request = self.render(compiled, {})
        tree = await self.exchange_json(
            request, operation="test", ok_statuses=self.manifest.test_call.ok_statuses
        )
        try:
            account = compiled.result(tree) if compiled.result else None
        except PathError:
            account = None
        return Proof(account=str(account)[:200] if isinstance(account, (str, int)) else "")
