"""The emulated server's inside: models, rows, methods and constraints. It knows no HTTP."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

from crmbridge.drivers.odoo.emulated_models import (
    MODELS,
    SELECTIONS,
    XML_IDS,
    accepts,
    blank,
    label,
    seed_rows,
)
from crmbridge.emulation import EmulatorStore, Row, Table

__all__ = ["UID", "EmulatedOrm", "OdooFault"]

UID = 1
_TITLES = {
    "res.partner": "Contact",
    "crm.lead": "Lead",
    "calendar.event": "Calendar Event",
    "mail.message": "Message",
}
_VERBS = {"read": "access", "write": "modify", "create": "create", "unlink": "delete"}
_ORGANIZER = "<br><strong>Organized by</strong><br>CRM Agent"


class OdooFault(Exception):
    """An exception inside the server: its class name and message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class EmulatedOrm:
    """One database as one user. Methods named ``m_`` are called on a model, ``r_`` on records."""

    def __init__(self, store: EmulatorStore, *, is_19: bool) -> None:
        self.store = store
        self.is_19 = is_19
        self.denied: set[tuple[str, str]] = set()
        self.context: dict[str, Any] = {}
        self.xml_ids = dict(XML_IDS)
        self.models = {name: dict(fields) for name, fields in MODELS.items()}
        if not is_19:
            del self.models["calendar.event"]["notes"]
            self.models["res.partner"]["mobile"] = "char"
            del self.models["res.users.apikeys"]["expiration_date"]
        seed_rows(store)

    def invoke(
        self, model: str, name: str, ids: Any, places: list[Any], named: dict[str, Any], context: Any
    ) -> Any:
        if model not in self.models and model != "ir.model.data":
            raise OdooFault("werkzeug.exceptions.NotFound", f"the model {model!r} does not exist")
        if name.startswith("_") or (name == "exists" and self.is_19):
            text = f"Private methods (such as '{model}.{name}') cannot be called remotely."
            raise OdooFault("odoo.exceptions.AccessError", text)
        of_records, of_model = getattr(self, f"r_{name}", None), getattr(self, f"m_{name}", None)
        method = of_records or of_model
        if method is None:
            raise OdooFault("werkzeug.exceptions.NotFound", f"The method '{model}.{name}' does not exist")
        if of_model is not None and ids is not None and name != "has_access":
            raise OdooFault("werkzeug.exceptions.UnprocessableEntity", f"cannot call {model}.{name} with ids")
        self.context = context or {}
        head: list[Any] = [model] if of_records is None else [model, ids or []]
        try:
            bound = inspect.signature(method).bind(*head, *places, **named)
        except TypeError as error:
            raise OdooFault("werkzeug.exceptions.UnprocessableEntity", str(error)) from None
        try:
            return method(*bound.args, **bound.kwargs)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise OdooFault(f"builtins.{type(error).__name__}", str(error.args[0])) from None

    def m_context_get(self, model: str) -> Any:
        found: dict[str, Any] = {"lang": "en_US", "tz": False}
        return {**found, "uid": UID} if self.is_19 else found

    def m_has_access(self, model: str, operation: str) -> bool:
        if not self.is_19:
            raise OdooFault("builtins.AttributeError", f"type object '{model}' has no attribute 'has_access'")
        return (model, operation) not in self.denied

    def m_check_access_rights(self, model: str, operation: str, raise_exception: bool = True) -> bool:
        return (model, operation) not in self.denied

    def m_fields_get(self, model: str, allfields: Any = None, attributes: Any = None) -> dict[str, Any]:
        facts = {name: self._fact(model, name, kind) for name, kind in self.models[model].items()}
        if attributes:
            facts = {name: {k: v for k, v in fact.items() if k in attributes} for name, fact in facts.items()}
        return {name: fact for name, fact in facts.items() if not allfields or name in allfields}

    def _fact(self, model: str, name: str, kind: str) -> dict[str, Any]:
        fact: dict[str, Any] = {"type": kind.split(":")[0], "string": _title(name), "store": True}
        fact["readonly"] = name in ("id", "create_date", "write_date", "create_uid", "email_normalized")
        fact["required"] = (model, name) in (
            ("crm.lead", "name"),
            ("crm.lead", "type"),
            ("calendar.event", "name"),
        )
        if ":" in kind:
            fact["relation"] = kind.split(":")[1]
        if f"{model}.{name}" in SELECTIONS:
            fact["selection"] = [list(pair) for pair in SELECTIONS[f"{model}.{name}"]]
        return fact

    def m_search(
        self, model: str, domain: Any, offset: int = 0, limit: Any = None, order: str = "id"
    ) -> list[int]:
        self.allow(model, "read")
        mentions = any(isinstance(item, list) and item[0] == "active" for item in domain)
        test = accepts(lambda row, path: self._at(model, row, path), domain)
        rows = [row for row in self.table(model) if test(row)]
        if self.context.get("active_test", True) and not mentions and "active" in self.models[model]:
            rows = [row for row in rows if row.fields.get("active", True)]
        for part in reversed((order or "id").split(",")):
            name, _, way = part.strip().partition(" ")
            self._kind(model, name, "on model")
            rows.sort(key=lambda row, by=name: self._sort_key(row, by), reverse=way == "desc")  # type: ignore[misc]
        return [row.id for row in rows[offset:]][: limit or None]

    def m_search_read(
        self,
        model: str,
        domain: Any = (),
        fields: Any = None,
        offset: int = 0,
        limit: Any = None,
        order: str = "id",
        load: Any = "_classic_read",
    ) -> list[dict[str, Any]]:
        return self.r_read(model, self.m_search(model, list(domain), offset, limit, order), fields, load)

    def m_search_count(self, model: str, domain: Any, limit: Any = None) -> int:
        return len(self.m_search(model, domain, 0, limit))

    def r_read(
        self, model: str, ids: list[int], fields: Any = None, load: Any = "_classic_read"
    ) -> list[Any]:
        self.allow(model, "read")
        for name in fields or ():
            self._kind(model, name, "on")
        names = ["id", *[name for name in fields or self.models[model] if name != "id"]]
        rows = [row for row in (self.table(model).get(number) for number in ids) if row is not None]
        return [{name: self._shown(model, row, name, bool(load)) for name in names} for row in rows]

    def m_create(self, model: str, vals_list: Any) -> list[int]:
        self.allow(model, "create")
        many = [vals_list] if isinstance(vals_list, dict) else vals_list
        for vals in many:
            for name in vals:
                self._kind(model, name, "in")
        made = [self.completed(model, vals) for vals in many]
        for vals in made:
            self.check(model, vals)
        return [self.table(model).insert(vals).id for vals in made]

    def r_write(self, model: str, ids: list[int], vals: dict[str, Any]) -> bool:
        self.allow(model, "write")
        rows = self.must_exist(model, ids)
        for name in vals:
            if name not in self.models[model]:
                raise KeyError(name)
        for row in rows:
            merged = {**row.fields, **self.settled(model, vals)}
            if vals.get("active") is False and (users := self._users_of(model, row.id)):
                raise _linked("archive", users)
            self.check(model, merged, row.id)
            self.table(model).update(row.id, self.computed(model, merged))
        return True

    def r_unlink(self, model: str, ids: list[int]) -> bool:
        self.allow(model, "unlink")
        if model == "mail.message":  # observed on 19.0: messages that are gone are passed over
            ids = [number for number in ids if self.table(model).get(number)]
        rows = self.must_exist(model, ids)
        if users := [name for row in rows for name in self._users_of(model, row.id)]:
            raise _linked("delete", users)
        for row in rows:
            self.table(model).remove(row.id)
            for message in [m for m in self.table("mail.message") if _stands_on(m, model, row.id)]:
                self.table("mail.message").remove(message.id)
            self.xml_ids = {name: at for name, at in self.xml_ids.items() if at != (model, row.id)}
        return True

    def r_get_external_id(self, model: str, ids: list[int]) -> dict[str, str]:
        names = {at: name for name, at in self.xml_ids.items()}
        return {str(number): names.get((model, number), "") for number in ids}

    def m_check_object_reference(
        self, model: str, module: str, xml_id: str, raise_on_access_error: bool = False
    ) -> Any:
        found = self.xml_ids.get(f"{module}.{xml_id}")
        if found is None:
            raise ValueError(f"External ID not found in the system: {module}.{xml_id}")
        context, self.context = self.context, {"active_test": self.context.get("active_test", True)}
        is_seen = self.m_search(found[0], [["id", "=", found[1]]])
        self.context = context
        return [found[0], found[1] if is_seen else False]

    def r_message_post(
        self, model: str, ids: list[int], body: str = "", body_is_html: bool = False, **more: Any
    ) -> Any:
        if len(ids) != 1:
            raise ValueError(f"Expected singleton: {model}({', '.join(map(str, ids))})")
        text = body if body_is_html or not self.is_19 else body.replace("<", "&lt;").replace(">", "&gt;")
        subtype = self.xml_ids[more.get("subtype_xmlid") or "mail.mt_note"][1]
        vals = {
            "body": text,
            "model": model,
            "res_id": ids[0],
            "message_type": "comment",
            "subtype_id": subtype,
        }
        made = self.table("mail.message").insert(self.completed("mail.message", vals)).id
        return [made] if self.is_19 else made

    def r_action_archive(self, model: str, ids: list[int]) -> None:
        self.r_write(model, ids, {"active": False})

    def m_load(self, model: str, fields: list[str], data: list[list[Any]]) -> dict[str, Any]:
        from crmbridge.drivers.odoo.emulated_load import load

        return load(self, model, fields, data)

    # -- rows ---------------------------------------------------------------------------------------------

    def table(self, model: str) -> Table[int]:
        return self.store.numbered(model)

    def allow(self, model: str, right: str) -> None:
        if (model, right) in self.denied:
            what = f"You are not allowed to {_VERBS[right]} '{_TITLES.get(model, model)}' ({model}) records."
            raise OdooFault("odoo.exceptions.AccessError", f"{what}\n\nContact your administrator.")

    def _kind(self, model: str, name: str, place: str) -> str:
        if name not in self.models[model]:
            raise ValueError(f"Invalid field '{name}' {place} '{model}'")
        return self.models[model][name]

    def must_exist(self, model: str, ids: list[int]) -> list[Row[int]]:
        rows = []
        for number in ids:
            row = self.table(model).get(number)
            if row is None:
                text = (
                    f"Record does not exist or has been deleted.\n(Record: {model}({number},), User: {UID})"
                )
                raise OdooFault("odoo.exceptions.MissingError", text)
            rows.append(row)
        return rows

    def _users_of(self, model: str, number: int) -> list[str]:
        users = self.table("res.users") if model == "res.partner" else ()
        return [user.fields["name"] for user in users if user.fields["partner_id"] == number]

    def _sort_key(self, row: Row[int], name: str) -> Any:
        value = row.id if name == "id" else row.updated_at if name == "write_date" else row.fields.get(name)
        return (value not in (None, False), value or 0) if not isinstance(value, str) else (True, value)

    def _at(self, model: str, row: Row[int], path: str) -> Any:
        """The value that a condition compares, by a dotted path."""
        name, _, rest = path.partition(".")
        if name not in self.models[model]:
            raise ValueError(f"Invalid field {model}.{name} in condition ({path!r})")
        if name == "write_date" and not self.is_19:
            return row.updated_at.strftime("%Y-%m-%d %H:%M:%S.%f")
        kind, value = self.models[model][name], self._shown(model, row, name, False)
        if not rest or ":" not in kind:
            return value
        other = kind.split(":")[1]
        ids = value if isinstance(value, list) else [value] if value else []
        found = [self._at(other, linked, rest) for linked in map(self.table(other).get, ids) if linked]
        return found if isinstance(value, list) else (found or [False])[0]

    def _shown(self, model: str, row: Row[int], name: str, with_label: bool) -> Any:
        if name == "id":
            return row.id
        if name in ("write_date", "create_date"):
            at = row.updated_at if name == "write_date" else row.created_at
            return at.strftime("%Y-%m-%d %H:%M:%S")
        kind = self.models[model][name]
        value = row.fields.get(name)
        if value in (None, "", False):
            return blank(kind)
        if kind.startswith("many2one:"):
            other = kind[9:]
            if self.table(other).get(value) is None:
                return False
            return [value, label(self.store, other, value)] if with_label else value
        if kind.startswith("many2many:"):
            return [number for number in value if self.table(kind[10:]).get(number)]
        return copy.copy(value)

    def completed(self, model: str, vals: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"create_uid": UID}
        if "active" in self.models[model]:
            made["active"] = True
        made |= {name: copy.copy(value) for name, value in _DEFAULTS.get(model, {}).items()}
        made |= self.settled(model, vals)
        return self.computed(model, made)

    def settled(self, model: str, vals: dict[str, Any]) -> dict[str, Any]:
        """Values as stored: log fields ignored, commands of linked records carried out, html cleaned."""
        out: dict[str, Any] = {}
        for name, value in vals.items():
            kind = self.models[model][name]
            if name in ("id", "create_date", "write_date", "email_normalized", "phone_sanitized"):
                continue
            if kind.startswith("many2many:") and value and isinstance(value[0], list):
                value = [
                    number
                    for command in value
                    for number in (command[2] if command[0] == 6 else [command[1]])
                ]
            out[name] = _clean(value) if kind == "html" and value else value
        if model == "calendar.event" and out.get("description") and self.is_19:
            out["description"] = f"<div>{out['description']}{_ORGANIZER}</div>"
        return out

    def computed(self, model: str, vals: dict[str, Any]) -> dict[str, Any]:
        if "email_normalized" in self.models[model]:
            found = re.search(
                r"[^\s<>\",;]+@[^\s<>\",;]+", str(vals.get("email") or vals.get("email_from") or "")
            )
            vals["email_normalized"] = found[0].lower() if found else False
            phone = str(vals.get("phone") or "")
            vals["phone_sanitized"] = (
                re.sub(r"[^+\d]", "", phone) if phone.startswith("+") else phone or False
            )
        return vals

    def check(self, model: str, vals: dict[str, Any], number: int = 0) -> None:
        """Constraints of the database and of the models."""
        prefix = "The operation cannot be completed: "
        if model == "res.partner" and not vals.get("name"):
            raise OdooFault("odoo.exceptions.ValidationError", prefix + "Contacts require a name")
        for name in (
            ("name", "type")
            if model == "crm.lead"
            else ("name", "start")
            if model == "calendar.event"
            else ()
        ):
            if not vals.get(name):
                text = f"{prefix}Missing required value for the field '{_title(name)}' ({name}).\nModel: ({model})\n"
                raise OdooFault("odoo.exceptions.ValidationError", text)
        if model == "calendar.event" and str(vals.get("stop") or "") < vals["start"]:
            text = "The ending date and time cannot be earlier than the starting date and time."
            raise OdooFault("odoo.exceptions.ValidationError", text)
        if model == "crm.tag" and any(
            row.fields["name"] == vals["name"] for row in self.table(model) if row.id != number
        ):
            raise OdooFault("odoo.exceptions.ValidationError", prefix + "Tag name already exists!")


_DEFAULTS: dict[str, dict[str, Any]] = {
    "crm.lead": {"type": "opportunity", "priority": "0", "stage_id": 1, "user_id": 1, "company_currency": 1},
    "res.partner": {"type": "contact"},
    "calendar.event": {"show_as": "busy", "user_id": 1, "partner_ids": [2]},
    "mail.message": {"author_id": 2, "message_type": "comment"},
}


def _linked(verb: str, users: list[str]) -> OdooFault:
    text = f"You cannot {verb} contacts linked to an active user.\nLinked active users :\n{', '.join(users)}"
    return OdooFault("odoo.exceptions.ValidationError", text)


def _stands_on(message: Row[int], model: str, number: int) -> bool:
    return message.fields.get("model") == model and message.fields.get("res_id") == number


def _title(name: str) -> str:
    return re.sub(r" Ids?$", "", name.replace("_", " ").title())


def _clean(text: str) -> str:
    text = re.sub(r"<script\b.*?</script>", "", str(text), flags=re.IGNORECASE | re.DOTALL)
    text = re.sub(r"<br\s*/>", "<br>", text)
    return text if text.startswith("<") else f"<p>{text}</p>"
