"""A small JSON REST service such as a company writes for itself; nobody's product.

Written from what such services do (RFC 9110 methods and statuses, RFC 8288 next links, RFC 6750 and RFC 7617
credentials, an Idempotency-Key header as in draft-ietf-httpapi-idempotency-key-header). ``example.json`` is
the operator's document for it. ``auth_type`` and ``paging_kind`` choose which habits it has.
"""

from __future__ import annotations

import base64
import hmac
from importlib.resources import files
from typing import Any, ClassVar
from urllib.parse import urlencode

import msgspec

from crmbridge.core.wire import HttpResponse
from crmbridge.emulation import Clock, Emulator, Incoming, Refusal, Row, Table, route
from crmbridge.emulation.faults import Fault

__all__ = ["RestApiEmulator"]

KINDS = ("customers", "leads", "deals", "appointments", "cases", "notes", "activities")
READ_ONLY = ("id", "created_at", "updated_at", "archived")
FIELDS = frozenset(
    """
    first_name last_name full_name email phone company street city region postal_code country language source
    birth_date notes tags title message status value name amount currency stage close_date description start_at
    end_at location subject priority category body written_at kind direction started_at ended_at
    duration_seconds result recording_url budget_min budget_max bedrooms area property_type move_in_date intent
    reason department practitioner is_new_patient sex insurance service staff concern vehicle party_size
    occasion dietary customer_id lead_id external_ref
    """.split()  # noqa: SIM905
)
LIST_WORDS = ("limit", "cursor", "page", "offset", "updated_since")
MAX_PAGE = 100


class RestApiEmulator(Emulator):
    """Customers, leads and so on under ``/v1``. Unknown fields are refused, ``null`` clears a field."""

    slug = "rest_api"
    display_name = "Example CRM"
    auth_type: ClassVar[str] = "bearer"
    paging_kind: ClassVar[str] = "cursor"
    keeps_deleted: ClassVar[bool] = False

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self._by_key: dict[tuple[str, str], tuple[bytes, str]] = {}

    def reset(self) -> None:
        super().reset()
        self._by_key.clear()

    # -- the operator's side -------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """The operator's document for the habits of this service."""
        text = files(__package__).joinpath("example.json").read_bytes()
        tree: dict[str, Any] = msgspec.json.decode(text)
        tree["auth"] = {
            "api_key": {"type": "api_key", "header": "X-Api-Key"},
            "bearer": {"type": "bearer"},
            "basic": {"type": "basic"},
            "none": {"type": "none"},
        }[self.auth_type]
        tree["deleteIsHard"] = not self.keeps_deleted
        if self.paging_kind == "cursor":
            return tree
        tree["paging"] = {
            "kind": self.paging_kind,
            "size": "limit",
            "cursor": self.paging_kind,
            "maxSize": MAX_PAGE,
        }
        for form in tree["objects"].values():
            if self.paging_kind == "link":
                names = (
                    "email",
                    "phone",
                    "last_name",
                    "title",
                    "name",
                    "subject",
                    "body",
                    "external_ref",
                    "city",
                )
                where = {name: f"{{{{ filter.{name} }}}}" for name in names}
                form["search"] = {"method": "GET", "path": form["path"], "query": where, "result": "data"}
            else:
                form["search"]["body"][self.paging_kind] = "{{ cursor }}"
                del form["search"]["body"]["cursor"]
        return tree

    def settings(self) -> dict[str, str]:
        answers = {"manifest": msgspec.json.encode(self.document()).decode(), "base_url": self.base_url}
        return answers | ({"user": "operator"} if self.auth_type == "basic" else {})

    def secrets(self) -> dict[str, str]:
        return {} if self.auth_type == "none" else {"secret": self.secret("secret")}

    # -- the service ---------------------------------------------------------------------------------------

    def authenticate(self, call: Incoming) -> HttpResponse | None:
        secret = self.secret("secret")
        header, expected = {
            "api_key": ("x-api-key", secret),
            "bearer": ("authorization", f"Bearer {secret}"),
            "basic": ("authorization", "Basic " + base64.b64encode(f"operator:{secret}".encode()).decode()),
            "none": ("accept", call.headers.get("accept", "")),
        }[self.auth_type]
        if hmac.compare_digest(call.headers.get(header, "").encode(), expected.encode()):
            return None
        return self._error(401, "unauthorized", "the credential is not valid")

    def operation_of(self, call: Incoming, made: Any) -> str:
        return f"{call.params.get('kind', 'me')}.{made.operation}"

    def on_fault(self, fault: Fault, call: Incoming) -> HttpResponse:
        return self._error(fault.status, f"fault_{fault.status}", "fault on demand")

    @route("GET", "/v1/me", operation="me")
    def me(self, call: Incoming) -> HttpResponse:
        return self.answer({"organisation": "Example Organisation", "user": "api"})

    @route("GET", "/v1/{kind}", operation="list")
    def list(self, call: Incoming) -> HttpResponse:
        given = {name: values[0] for name, values in call.query.items()}
        where = {name: value for name, value in given.items() if name not in LIST_WORDS}
        return self._page(call, where, given.get("updated_since", ""), given)

    @route("POST", "/v1/{kind}/search", operation="search", writes=False)
    def search(self, call: Incoming) -> HttpResponse:
        tree = self._object(call)
        return self._page(
            call,
            tree.get("where") or {},
            "",
            {name: str(tree[name]) for name in tree if tree[name] is not None},
        )

    @route("POST", "/v1/{kind}", operation="create")
    def create(self, call: Incoming) -> HttpResponse:
        table = self._table(call)
        key = call.headers.get("idempotency-key", "")
        known = self._by_key.get((table.name, key)) if key else None
        if known is not None:
            row = table.get(known[1], with_archived=True)
            if known[0] != call.body or row is None:
                raise self._refusal(409, "key_reused", "the idempotency key was used with another body")
            return self.answer(_shown(row))
        fields = self._checked(call)
        row = table.insert({name: value for name, value in fields.items() if value is not None})
        if key:
            self._by_key[table.name, key] = (call.body, row.id)
        return self.answer(_shown(row), 201, {"location": f"/v1/{table.name}/{row.id}"})

    @route("GET", "/v1/{kind}/{id}", operation="get")
    def get(self, call: Incoming) -> HttpResponse:
        return self.answer(_shown(self._row(call, with_archived=self.keeps_deleted)))

    @route("PATCH", "/v1/{kind}/{id}", operation="update")
    def update(self, call: Incoming) -> HttpResponse:
        row = self._row(call)
        return self.answer(_shown(self._table(call).update(row.id, self._checked(call))))

    @route("DELETE", "/v1/{kind}/{id}", operation="delete")
    def delete(self, call: Incoming) -> HttpResponse:
        table, row = self._table(call), self._row(call)
        if self.keeps_deleted:
            table.archive(row.id)
        else:
            table.remove(row.id)
        return HttpResponse(status=204)

    def _page(self, call: Incoming, where: dict[str, Any], since: str, given: dict[str, str]) -> HttpResponse:
        table = self._table(call)
        rows = [row for row in table.search() if _matches(row.fields, where)]
        rows = [row for row in rows if not since or _stamp(row.updated_at) >= since]
        rows.sort(key=lambda row: (row.updated_at, row.id), reverse=True)
        limit = min(int(given.get("limit") or 20), MAX_PAGE)
        start = self._start(given, limit)
        shown = [_shown(row) for row in rows[start : start + limit]]
        more = len(rows) > start + limit
        after = base64.urlsafe_b64encode(f"o{start + limit}".encode()).decode()
        tree = {"data": shown, "total": len(rows), "next_cursor": after if more else None}
        link = f"{self.base_url}{call.path}?{urlencode({**given, 'limit': limit, 'cursor': after})}"
        is_linked = more and self.paging_kind == "link"
        return self.answer(tree, 200, {"link": f'<{link}>; rel="next"'} if is_linked else None)

    def _start(self, given: dict[str, str], limit: int) -> int:
        try:
            if given.get("page"):
                return (int(given["page"]) - 1) * limit
            if given.get("offset"):
                return int(given["offset"])
            cursor = given.get("cursor")
            return int(base64.urlsafe_b64decode(cursor).decode()[1:]) if cursor else 0
        except ValueError:
            raise self._refusal(400, "bad_cursor", "the cursor is not one of ours") from None

    def _table(self, call: Incoming) -> Table[str]:
        kind = call.params["kind"]
        if kind not in KINDS:
            raise self._refusal(404, "unknown_kind", "there is no such collection")
        return self.store.named(kind, lambda count: f"{kind[:3]}_{count:06d}")

    def _row(self, call: Incoming, *, with_archived: bool = False) -> Row[str]:
        row = self._table(call).get(call.params["id"], with_archived=with_archived)
        if row is None:
            raise self._refusal(404, "not_found", "there is no such record")
        return row

    def _object(self, call: Incoming) -> dict[str, Any]:
        if not isinstance(call.json, dict):
            raise self._refusal(400, "not_an_object", "the body must be a JSON object")
        return call.json

    def _checked(self, call: Incoming) -> dict[str, Any]:
        fields = dict(self._object(call))
        problems = {name: "is not a known field" for name in fields if name not in FIELDS}
        problems |= {name: "is read-only" for name in fields if name in READ_ONLY}
        email = fields.get("email")
        if email is not None and (not isinstance(email, str) or "@" not in email):
            problems["email"] = "is not an e-mail address"
        if call.params["kind"] == "notes" and call.method == "POST" and not fields.get("body"):
            problems["body"] = "is required"
        if problems:
            raise self._refusal(422, "invalid", "some fields are not valid", problems)
        return fields

    def _error(
        self, status: int, code: str, message: str, fields: dict[str, str] | None = None
    ) -> HttpResponse:
        return self.answer({"error": {"code": code, "message": message, "fields": fields or {}}}, status)

    def _refusal(self, status: int, code: str, message: str, fields: dict[str, str] | None = None) -> Refusal:
        return Refusal(self._error(status, code, message, fields))


def _stamp(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _shown(row: Row[str]) -> dict[str, Any]:
    stamps = {"created_at": _stamp(row.created_at), "updated_at": _stamp(row.updated_at)}
    return {"id": row.id, **row.fields, **stamps, "archived": row.is_archived}


def _matches(fields: Any, where: dict[str, Any]) -> bool:
    for name, value in where.items():
        found = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, dict):
            if not _matches(found, value):
                return False
        elif str(found).casefold() != str(value).casefold():
            return False
    return True
