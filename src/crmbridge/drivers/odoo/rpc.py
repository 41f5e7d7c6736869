"""The two ways of calling an Odoo method, and what its errors mean.

JSON-2 (Odoo 19 and later): ``POST /json/2/<model>/<method>``, named arguments, real HTTP statuses.
JSON-RPC (all versions, removed from Odoo 22): ``POST /jsonrpc``, always 200. Both carry the same error object
``{name, message, arguments, context, debug}``; programs act on ``name``. ``debug`` is a server traceback and
is never passed on. One call is one database transaction: an error object means that nothing was done.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import msgspec

from crmbridge.core.driver import Access
from crmbridge.core.errors import (
    AuthError,
    Conflict,
    CrmError,
    FieldError,
    Fix,
    NotConfigured,
    NotFound,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.manifest import Auth, AuthKind
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure
from crmbridge.toolkit import auth as signing
from crmbridge.toolkit import failures

__all__ = ["CONTEXT", "OdooRpc", "plain_words", "rights_error", "server_url"]

PROVIDER = "odoo"
JSON2_FROM = 19
READ_SECONDS = 60.0
WRITE_SECONDS = 120.0
"""A conflicting call is retried by the server itself for up to half a minute; its own limit is 120 s."""

CONTEXT: dict[str, Any] = {
    "lang": "en_US",
    "tz": "UTC",
    "tracking_disable": True,
    "mail_auto_subscribe_no_notify": True,
    "no_mail_to_attendees": True,
}
"""Sent with every call: messages in one language, cells in UTC, no mail to customers or colleagues."""

_BEARER = Auth(kind=AuthKind.BEARER, secret="api_key")  # noqa: S106 - the name of a setting
_IN_BODY = Auth(kind=AuthKind.SIGN_IN, secret="api_key")  # noqa: S106
_ROTATE = Fix(
    "rotate_key",
    "Make a new API key in Odoo under Preferences > Security (keys of ordinary users expire after 90 days "
    "at most), then connect again.",
)
_RETRY = (
    "SerializationFailure",
    "DeadlockDetected",
    "LockNotAvailable",
    "ConcurrencyError",
    "OperationalError",
    "InterfaceError",
)
_CALLERS_MISTAKE = (
    "ValidationError",
    "UserError",
    "RedirectWarning",
    "ValueError",
    "KeyError",
    "TypeError",
    "AttributeError",
    "UnprocessableEntity",
    "InvalidTextRepresentation",
    "NumericValueOutOfRange",
    "RequestEntityTooLarge",
)
_KNOWN_PATHS = re.compile(r"/(web|odoo|jsonrpc|json|xmlrpc|my|doc)(/.*)?", re.IGNORECASE)
_FIELD = re.compile(
    r"Invalid field(?: name)? '([\w.]+)'|Wrong value for [\w.]+\.(\w+)|\(([a-z]\w*)\)\."
    r"|Invalid field \w+(?:\.\w+)*\.(\w+) in"
)
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|“[^”\n]*”")


def server_url(text: str) -> str:
    """``https://crm.example.com`` from what an operator typed. Raises ValidationError naming ``url``."""
    typed = text.strip()
    split = urlsplit(typed if "://" in typed else f"https://{typed}")
    try:
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
    if not host or split.scheme not in ("http", "https") or "@" in split.netloc or re.search(r"\s", typed):
        raise _bad_url("is not the address of an Odoo, such as https://mycompany.odoo.com")
    if split.path.strip("/") and not _KNOWN_PATHS.fullmatch(split.path.rstrip("/")):
        raise _bad_url("has a path; give the address alone, such as https://mycompany.odoo.com")
    name = f"[{host}]" if ":" in host else host
    return f"{split.scheme}://{name}:{port}" if port else f"{split.scheme}://{name}"


def _bad_url(problem: str) -> ValidationError:
    return ValidationError(
        f"The url {problem}.",
        provider=PROVIDER,
        operation="connect",
        fields=(FieldError("url", problem),),
        fix=Fix("correct_settings", "Correct the url of this connection."),
    )


def plain_words(message: str, *keep: str) -> str:
    """The first line of a server message, with quoted texts masked (they may hold what a person said)."""
    line = message.strip().split("\n", 1)[0][:300]
    return _QUOTED.sub(lambda found: found[0] if found[0][1:-1] in keep else "…", line)


def rights_error(message: str, operation: str) -> AuthError:
    """The key's user lacks a right; the message names the model in parentheses."""
    model = re.search(r"\(([a-z][\w]*(?:\.[\w]+)+)\)", message)
    what = f" on {model[1]}" if model else ""
    return AuthError(
        f"The Odoo user has no right to {operation}{what}.",
        subcode="insufficient_scope",
        provider=PROVIDER,
        operation=operation,
        fix=Fix("grant_rights", f"Give the user the rights{what} in Odoo, or connect another user's key."),
        provider_facts={"model": model[1]} if model else None,
    )


class OdooRpc:
    """Calls methods of one database as one user. ``major`` and ``uid`` come from facts or are found out."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.database = access.settings.get("database", "").strip()
        self.username = access.settings.get("username", "").strip()
        self.version = access.facts.get("server_version", "")
        self.uid = int(access.facts.get("uid") or 0)

    @cached_property
    def url(self) -> str:
        """The server's address, cleaned. Raises ValidationError naming ``url``."""
        return server_url(self.access.settings.get("url", ""))

    @property
    def is_json2(self) -> bool:
        """True from Odoo 19 on."""
        return self.major >= JSON2_FROM

    @property
    def major(self) -> int:
        """19 of ``19.0`` and of ``saas~19.1``; 0 before the version is known."""
        found = re.search(r"\d+", self.version)
        return int(found[0]) if found else 0

    async def learn_version(self) -> None:
        """Asks the server which Odoo it is; needs no key. Raises NotConfigured where no Odoo answers."""
        if self.version:
            return
        answer = await self._send("connect", "GET", "/web/version", _IN_BODY, is_write=False)
        tree = _tree(answer) if answer.status == 200 else None
        if answer.status >= 500 or answer.status == 429:
            raise failures.error_for_status(answer, provider=PROVIDER, operation="connect", is_write=False)
        if not isinstance(tree, dict) or "version" not in tree:
            tree = await self._rpc("common", "version", [], operation="connect", is_write=False)
            tree = {"version": tree.get("server_version", "")} if isinstance(tree, dict) else {}
        self.version = str(tree.get("version") or "")
        if not self.major:
            raise _no_odoo()

    async def sign_in(self) -> int:
        """The user's id. Raises AuthError for a wrong key, NotConfigured for a wrong database."""
        await self.learn_version()
        if self.is_json2:
            answer = await self.call("res.users", "context_get", purpose="connect", context={})
            self.uid = int(answer.get("uid") or 0) if isinstance(answer, dict) else 0
        else:
            args = [self.database, self.username, signing.SecretRef("api_key"), {}]
            uid = await self._rpc("common", "authenticate", args, operation="connect", is_write=False)
            self.uid = uid if isinstance(uid, int) else 0
        if not self.uid:
            raise _wrong_key("connect")
        return self.uid

    async def call(
        self,
        model: str,
        method: str,
        *,
        purpose: str,
        ids: list[int] | None = None,
        is_write: bool = False,
        context: dict[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        """The bare result of one method; ``purpose`` is the operation that errors name. Raises CrmError."""
        merged = {**CONTEXT, **(context or {})}
        await self.learn_version()
        if self.is_json2:
            tree: dict[str, Any] = {**named, "context": merged}
            if ids is not None:
                tree["ids"] = ids
            answer = await self._send(
                purpose, "POST", f"/json/2/{model}/{method}", _BEARER, is_write=is_write, json=tree
            )
            if answer.status == 200:
                return _tree(answer, purpose, is_write)
            raise self._error(answer, purpose, is_write)
        if not self.uid:
            await self.sign_in()
        places: list[Any] = [ids] if ids is not None else []
        if method == "create":
            places.append(named.pop("vals_list"))
        target = [self.database, self.uid, signing.SecretRef("api_key"), model, method]
        args = [*target, places, {**named, "context": merged}]
        return await self._rpc("object", "execute_kw", args, operation=purpose, is_write=is_write)

    async def _rpc(
        self, service: str, method: str, args: list[Any], *, operation: str, is_write: bool
    ) -> Any:
        params = {"service": service, "method": method, "args": args}
        tree = {"jsonrpc": "2.0", "method": "call", "id": 1, "params": params}
        answer = await self._send(operation, "POST", "/jsonrpc", _IN_BODY, is_write=is_write, json=tree)
        if answer.status != 200:
            raise self._error(answer, operation, is_write)
        said = _tree(answer, operation, is_write)
        if not isinstance(said, dict) or said.get("jsonrpc") != "2.0":
            raise _unreadable(operation, is_write)
        if error := said.get("error"):
            raise self._named(
                error.get("data") if isinstance(error, dict) else None, answer, operation, is_write
            )
        return said.get("result")

    async def _send(
        self, operation: str, method: str, path: str, auth: Auth, *, is_write: bool, json: Any = msgspec.UNSET
    ) -> HttpResponse:
        request = HttpRequest(
            method=method,
            url=self.url + path,
            headers={"X-Odoo-Database": self.database} if self.database and auth is _BEARER else {},
            json=json,
            idempotent=not is_write,
            timeout_seconds=WRITE_SECONDS if is_write else READ_SECONDS,
        )
        await signing.apply(auth, self.access, request)
        try:
            return await self.access.transport.send(request)
        except TransportFailure as failure:
            raise failures.error_for_failure(
                failure, provider=PROVIDER, operation=operation, is_write=is_write
            ) from failure

    def _error(self, answer: HttpResponse, operation: str, is_write: bool) -> CrmError:
        tree = _tree(answer) if answer.is_json else None
        if isinstance(tree, dict) and isinstance(tree.get("name"), str):
            return self._named(tree, answer, operation, is_write)
        if answer.status == 404:
            return self._no_database(operation) if answer.header("content-type") else _no_odoo()
        wordless = HttpResponse(status=answer.status, headers=answer.headers)  # a proxy's words, not Odoo's
        return failures.error_for_status(wordless, provider=PROVIDER, operation=operation, is_write=is_write)

    def _named(self, error: Any, answer: HttpResponse, operation: str, is_write: bool) -> CrmError:
        """The error object, by name. Whatever the name, the server rolled the call back."""
        if not isinstance(error, dict) or not isinstance(error.get("name"), str):
            return _unreadable(operation, is_write)
        full, message = error["name"], str(error.get("message") or "")
        name = full.rsplit(".", 1)[-1]
        facts = {"http_status": answer.status, "provider_code": full[:100]}
        if name in ("AccessDenied", "Unauthorized") or (name == "MissingError" and "res.users(" in message):
            return _wrong_key(operation, facts)
        if name == "AccessError":
            return rights_error(message, operation)
        if name == "OperationalError" and "database" in message and "does not exist" in message:
            return self._no_database(operation)
        common: dict[str, Any] = {"provider": PROVIDER, "operation": operation, "provider_facts": facts}
        if name == "MissingError":
            return NotFound("The record is not there, or no longer.", **common)
        if name == "NotFound" or "Object " in message[:7]:
            return _not_installed(message, common)
        if name in _RETRY:
            text = "Odoo was busy with the same record and gave up; nothing was done."
            return Unavailable(text, outcome=Outcome.NOT_APPLIED, retry_safe=True, **common)
        if name == "LockError":
            return Conflict(
                "Somebody else holds this record in Odoo; nothing was done.", retry_safe=True, **common
            )
        if name in _CALLERS_MISTAKE:
            return _refused(message, name, common)
        text = "Odoo failed inside this call; nothing was done."
        return UnexpectedResponse(text, outcome=Outcome.NOT_APPLIED, **common)

    def _no_database(self, operation: str) -> NotConfigured:
        problem = "names no database that this Odoo serves"
        return NotConfigured(
            f"The setting database {problem}.",
            provider=PROVIDER,
            operation=operation,
            fields=(FieldError("database", problem),),
            fix=Fix("correct_settings", "Correct the database (or the url) of this connection."),
        )


def _tree(answer: HttpResponse, operation: str = "", is_write: bool = False) -> Any:
    """The decoded body; UnexpectedResponse (None when no operation is named) for anything but JSON."""
    try:
        if answer.is_json:
            return answer.json()
    except msgspec.DecodeError:
        pass
    if operation:
        raise _unreadable(operation, is_write)
    return None


def _unreadable(operation: str, is_write: bool) -> UnexpectedResponse:
    return UnexpectedResponse(
        "The answer is not one that Odoo gives.",
        provider=PROVIDER,
        operation=operation,
        outcome=Outcome.UNKNOWN if is_write else Outcome.NOT_APPLIED,
        retry_safe=not is_write,
    )


def _wrong_key(operation: str, facts: dict[str, Any] | None = None) -> AuthError:
    return AuthError(
        "Odoo does not accept this API key: it is wrong, expired, or its user is archived.",
        subcode="invalid_credentials",
        provider=PROVIDER,
        operation=operation,
        fix=_ROTATE,
        provider_facts=facts,
    )


def _no_odoo() -> NotConfigured:
    problem = "is not the address of an Odoo server"
    return NotConfigured(
        f"The url {problem}.",
        provider=PROVIDER,
        operation="connect",
        fields=(FieldError("url", problem),),
        fix=Fix("correct_settings", "Correct the url of this connection."),
    )


def _not_installed(message: str, common: dict[str, Any]) -> NotConfigured:
    model = re.search(r"[a-z]\w*(?:\.\w+)+", message)
    what = model[0] if model else "what was called"
    return NotConfigured(
        f"This Odoo has no {what}.",
        fix=Fix("install_app", "Install the Odoo app that brings it: CRM, Contacts or Calendar."),
        **common,
    )


def _refused(message: str, name: str, common: dict[str, Any]) -> ValidationError:
    found = _FIELD.search(message)
    field = next((part for part in found.groups() if part), "") if found else ""
    if name == "KeyError" and re.fullmatch(r"'?\w+'?", message.strip()):
        field = message.strip().strip("'")
    words = plain_words(message, field) or "Odoo refused the content."
    fields = (FieldError(field, words, name),) if field else ()
    return ValidationError(words, fields=fields, **common)
