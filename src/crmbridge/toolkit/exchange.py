"""HttpDriver: one HTTP exchange of a driver, with every failure as one of our errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.errors import (
    AuthError,
    CrmError,
    FieldError,
    Fix,
    NotConfigured,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import Call, ObjectSpec
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.toolkit import auth, failures
from crmbridge.toolkit.calls import CompiledCall, compile_call, compiled_call
from crmbridge.toolkit.extraction import PathError
from crmbridge.toolkit.templates import ABSENT, TemplateError

__all__ = ["HttpDriver"]

MAX_HIDDEN = 500
_SHORTEST_HIDDEN = 3
# What a new access token may cure.
_RENEWABLE = frozenset({"invalid_credentials", "expired"})


def _sent_texts(request: HttpRequest) -> Iterator[str]:
    """The texts and long numbers among the values of a request, also in the spelling of JSON."""
    tree: Any = [request.query, request.form, request.json]
    if request.body:
        try:
            tree.append(msgspec.json.decode(request.body))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, (str, int, float)) and not isinstance(item, bool):
            text = str(item).strip()
            if len(text) >= _SHORTEST_HIDDEN:
                yield text
                yield from (line for line in text.splitlines() if len(line) >= _SHORTEST_HIDDEN)


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
        template = self.manifest.base_url

        def fill(found: re.Match[str]) -> str:
            value = self.access.settings.get(found[1]) or self.access.facts.get(found[1], "")
            if not value:
                raise NotConfigured(
                    f"The setting {found[1]!r} of this connection is missing.",
                    provider=self.manifest.slug,
                    fix=Fix("fill_in", f"Fill in {found[1]!r} in the credential form and test it again."),
                )
            return value.strip() if found.start() == 0 else quote(value.strip(), safe="")

        return re.sub(r"\{(\w+)\}", fill, template).rstrip("/")

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
        asked = msgspec.structs.replace(request, headers=dict(request.headers), query=dict(request.query))
        try:
            return await self._exchange_once(request, operation, is_write, ok_statuses)
        except AuthError as error:
            if error.subcode not in _RENEWABLE or self.access.renew is None or not await self.access.renew():
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
        """Hides what the request said from the provider's words: secrets, persons, all values that were sent.

        Providers repeat values in their messages; people read our errors.
        """
        hide = auth.redactor(self.access)
        values = sorted(set(_sent_texts(request)), key=len, reverse=True)[:MAX_HIDDEN]
        if not values:
            return hide
        pattern = "|".join(re.escape(value) for value in values)
        sent = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)
        return lambda text: hide(sent.sub("[value]", text[:4_000]))

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

    def render(self, compiled: CompiledCall, scope: Mapping[str, Any]) -> HttpRequest:
        """The request of a compiled call. Raises ValidationError naming the place that cannot be filled."""
        full = {"settings": self.access.settings, **scope}
        try:
            path = compiled.path.render_path(full)
            request = HttpRequest(
                method=compiled.call.method,
                url=path if path.startswith(("/", "https:", "http:")) else f"/{path}",
                query=compiled.query.render_query(full),
                headers=compiled.headers.render_headers(full),
            )
            if compiled.body is not None:
                body = compiled.body.render(full)
                request.json = {} if body is ABSENT else body
            elif compiled.form is not None:
                form = compiled.form.render(full)
                request.form = {} if form is ABSENT else form
        except TemplateError as error:
            problem = FieldError(error.place, error.problem)
            raise ValidationError(
                f"The request cannot be made at {error.place}: {error.problem}.",
                provider=self.manifest.slug,
                fields=(problem,),
            ) from None
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
        if not re.fullmatch(self.manifest.strict_ids, remote_id) or remote_id in (".", ".."):
            problem = FieldError(f"{obj.value}.remote_id", "is not an id of this CRM; use one that it gave")
            raise ValidationError(
                "The remote id is not valid.", provider=self.manifest.slug, fields=(problem,)
            )
        return remote_id

    def record_url(self, obj: Object, remote_id: str) -> str:
        """``ObjectSpec.url`` with ``{id}``, settings and facts filled in; empty when one is missing."""
        template = self.manifest.objects[obj].url
        values = {**self.access.facts, **self.access.settings, "id": quote(remote_id, safe="")}
        names = re.findall(r"\{(\w+)\}", template)
        if not template or not all(values.get(name) for name in names):
            return ""
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]].rstrip("/"), template)

    def id_text(self, found: Any) -> str:
        """A provider's id as a text, empty when it is no valid id."""
        if isinstance(found, bool) or not isinstance(found, (str, int)):
            return ""
        text = str(found)
        return text if re.fullmatch(self.manifest.strict_ids, text) else ""

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
