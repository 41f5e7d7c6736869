"""A small stateful Odoo: JSON-2 and JSON-RPC over one set of models (``version`` 19.0 or 14.0).

Written from the provider sheet and from answers of an unmodified Odoo 19.0 server; ``tests/integration``
compares the two call by call. Left out: XML-RPC, web sign-in, companies, record rules (``orm.denied`` takes whole
rights away), automatic retries of conflicts, recurring events, mail.
"""

from __future__ import annotations

from typing import Any, ClassVar

from crmbridge.core.wire import HttpResponse
from crmbridge.drivers.odoo.emulated_orm import UID, EmulatedOrm, OdooFault
from crmbridge.emulation import Emulator, Fault, Incoming, Route, route

__all__ = ["Odoo14Emulator", "OdooEmulator"]

DATABASE = "emulated"
LOGIN = "crm@odoo.test"
_WRITES = frozenset(
    {"create", "write", "unlink", "load", "message_post", "action_archive", "action_set_lost"}
)
_STATUS = {
    "odoo.exceptions.AccessDenied": 403,
    "odoo.exceptions.AccessError": 403,
    "odoo.exceptions.LockError": 409,
    "odoo.exceptions.MissingError": 404,
    "odoo.exceptions.UserError": 422,
    "odoo.exceptions.ValidationError": 422,
    "werkzeug.exceptions.NotFound": 404,
    "werkzeug.exceptions.Unauthorized": 401,
    "werkzeug.exceptions.UnprocessableEntity": 422,
}
_ON_DEMAND = {
    401: ("werkzeug.exceptions.Unauthorized", "Invalid apikey"),
    403: ("odoo.exceptions.AccessError", "You are not allowed to create 'Contact' (res.partner) records."),
    404: ("odoo.exceptions.MissingError", "Record does not exist or has been deleted."),
    409: ("odoo.exceptions.LockError", "The record is locked."),
    422: ("odoo.exceptions.ValidationError", "The operation cannot be completed: Contacts require a name"),
    500: ("psycopg2.errors.SerializationFailure", "could not serialize access due to concurrent update"),
}
_NO_DATABASE = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n<p>No database is selected.</p>"


class OdooEmulator(Emulator):
    """One database with one user, whose key has all rights except those in ``orm.denied``."""

    slug: ClassVar[str] = "odoo"
    display_name: ClassVar[str] = "Odoo"
    version: ClassVar[str] = "19.0"

    def seed(self) -> None:
        self.orm = EmulatedOrm(self.store, is_19=self.has_json2)

    @property
    def has_json2(self) -> bool:
        """True for the versions that know ``/json/2``."""
        return int(self.version.split(".")[0]) >= 19

    def settings(self) -> dict[str, str]:
        return {"url": self.base_url, "database": DATABASE, "username": LOGIN}

    def secrets(self) -> dict[str, str]:
        return {"api_key": self.secret("api_key")}

    # -- HTTP ---------------------------------------------------------------------------------------------

    @route("GET", "/web/version", operation="version")
    def version_page(self, call: Incoming) -> HttpResponse:
        return (
            self.answer(self._version(), headers={"set-cookie": "session_id=x"})
            if self.has_json2
            else self._html()
        )

    @route("GET", "/web/health", operation="health")
    def health(self, call: Incoming) -> HttpResponse:
        return self.answer({"status": "pass"}) if self.has_json2 else self._html()

    @route("POST", "/json/2/{model}/{method}", operation="{model}.{method}")
    def json2(self, call: Incoming) -> HttpResponse:
        if not self.has_json2:
            error = {
                "code": 404,
                "message": "404: Not Found",
                "data": {"name": "werkzeug.exceptions.NotFound"},
            }
            return self.answer({"jsonrpc": "2.0", "id": None, "error": error}, 404)
        if call.headers.get("x-odoo-database", DATABASE) != DATABASE:
            return self._html()
        try:
            scheme, _, key = call.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                text = "User not authenticated, use an API Key with a Bearer Authorization header."
                raise OdooFault("werkzeug.exceptions.Unauthorized", text)
            if key != self.secret("api_key"):
                raise OdooFault("werkzeug.exceptions.Unauthorized", "Invalid apikey")
            named = dict(call.json or {})
            ids, context = named.pop("ids", None), named.pop("context", {})
            return self.answer(
                self.orm.invoke(call.params["model"], call.params["method"], ids, [], named, context)
            )
        except OdooFault as fault:
            return self.answer(_five_keys(fault), _STATUS.get(fault.name, 500))

    @route("POST", "/web/webclient/version_info", operation="version")
    def version_info(self, call: Incoming) -> HttpResponse:
        """What web clients ask first, over JSON-RPC and without a sign-in."""
        version = self._version()
        result = {
            "server_version": version["version"],
            "server_version_info": version["version_info"],
            "server_serie": version["version"],
            "protocol_version": 1,
        }
        return self.answer({"jsonrpc": "2.0", "id": (call.json or {}).get("id"), "result": result})

    @route("POST", "/jsonrpc", operation="jsonrpc")
    def jsonrpc(self, call: Incoming) -> HttpResponse:
        params = call.json["params"]
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call.json.get("id")}
        try:
            result = self._service(params["service"], params["method"], params["args"])
            if result is not None:
                answer["result"] = result
        except OdooFault as fault:
            answer["error"] = self._rpc_error(fault)
        return self.answer(answer)

    def _rpc_error(self, fault: OdooFault) -> dict[str, Any]:
        name = fault.name.replace("werkzeug.exceptions.Unauthorized", "odoo.exceptions.AccessDenied")
        code = 0 if self.has_json2 else 200
        return {"code": code, "message": "Odoo Server Error", "data": {**_five_keys(fault), "name": name}}

    def _service(self, service: str, method: str, args: list[Any]) -> Any:
        if (service, method) == ("common", "version"):
            version = self._version()
            return {"server_version": version["version"], "server_version_info": version["version_info"]}
        if args[0] != DATABASE:
            text = f'connection failed: FATAL:  database "{args[0]}" does not exist\n'
            raise OdooFault("psycopg2.OperationalError", text)
        if service == "common" and method in ("authenticate", "login"):
            return UID if args[1:3] == [LOGIN, self.secret("api_key")] else False
        _, uid, key, model, name, *rest = args
        if method == "execute":  # the older verb: what follows the method's name are its places
            rest = [rest]
        places = rest[0] if rest else []
        if uid != UID:
            raise OdooFault(
                "odoo.exceptions.MissingError", f"Record does not exist.\n(Record: res.users({uid},))"
            )
        if key != self.secret("api_key"):
            raise OdooFault("odoo.exceptions.AccessDenied", "Access Denied")
        named = dict(rest[1]) if len(rest) > 1 else {}
        context = named.pop("context", {})
        if model not in self.orm.models and model != "ir.model.data":
            raise OdooFault("odoo.exceptions.UserError", f"Object {model} doesn't exist")
        is_record = hasattr(self.orm, f"r_{name}")
        ids, places = (places[0], places[1:]) if is_record and places else (None, places)
        ids = [ids] if isinstance(ids, int) else ids
        result = self.orm.invoke(model, name, ids, places, named, context)
        return result[0] if name == "create" and places and isinstance(places[0], dict) else result

    def _version(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "version_info": [int(self.version.split(".")[0]), 0, 0, "final", 0, ""],
        }

    def _html(self) -> HttpResponse:
        return HttpResponse(
            status=404, headers={"content-type": "text/html; charset=utf-8"}, body=_NO_DATABASE
        )

    def on_unknown_route(self, call: Incoming) -> HttpResponse:
        if call.path.startswith("/json/2") and self.has_json2:
            text = "Did you mean POST /json/2/<model>/<method>?"
            return self.answer(_five_keys(OdooFault("werkzeug.exceptions.NotFound", text)), 404)
        return self._html()

    def on_broken_json(self, call: Incoming) -> HttpResponse:
        return self.answer(_five_keys(OdooFault("werkzeug.exceptions.BadRequest", "Invalid JSON data")), 400)

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        if fault.status not in _ON_DEMAND:  # a proxy's page: Odoo itself has no such status
            return HttpResponse(
                status=fault.status, headers={"content-type": "text/html"}, body=b"<html>proxy</html>"
            )
        inside = OdooFault(*_ON_DEMAND[fault.status])
        if call.path == "/jsonrpc":
            return self.answer({"jsonrpc": "2.0", "id": 1, "error": self._rpc_error(inside)})
        return self.answer(_five_keys(inside), fault.status)

    def operation_of(self, call: Incoming, made: Route) -> str:
        if call.path != "/jsonrpc" or b'"execute' not in call.body:
            return super().operation_of(call, made)
        args = call.json["params"]["args"]
        return f"{args[3]}.{args[4]}"

    def is_write(self, call: Incoming, made: Route) -> bool:
        return call.operation.rpartition(".")[2] in _WRITES


class Odoo14Emulator(OdooEmulator):
    """The same before JSON-2."""

    version: ClassVar[str] = "14.0"


def _five_keys(fault: OdooFault) -> dict[str, Any]:
    debug = f"Traceback (most recent call last):\n  ...\n{fault.name}: {fault.message}"
    return {
        "name": fault.name,
        "message": fault.message,
        "arguments": [fault.message],
        "context": {},
        "debug": debug,
    }
