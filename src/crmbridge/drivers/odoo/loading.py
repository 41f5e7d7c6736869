"""Loader: many rows through one ``load`` call, and one outcome per row out of its messages.

``load`` is all or nothing. When it names bad rows, nothing was done; the good ones are sent again without
them. It stops looking after about ten bad rows, so this may take several rounds; each round removes some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crmbridge.core.errors import (
    CrmError,
    FieldError,
    NotFound,
    Unavailable,
    UnexpectedResponse,
    ValidationError,
)
from crmbridge.core.operations import Outcome
from crmbridge.drivers.odoo.cells import NAMED, Sheet, names_in
from crmbridge.drivers.odoo.rpc import OdooRpc, plain_words, rights_error

__all__ = ["MOST_ROWS", "Loader"]

MOST_ROWS = 200
_RIGHTS = (
    "You are not allowed to",
    "security restrictions",
    "top-secret records",
    "You do not have enough rights",
)
_BUSY = (
    "could not serialize access",
    "deadlock detected",
    "could not obtain lock",
    "current transaction is aborted",
)


class Loader:
    """Loads the sheets of one write; what becomes of each row is told by the place of its write."""

    def __init__(self, rpc: OdooRpc, purpose: str) -> None:
        self.rpc = rpc
        self.purpose = purpose

    async def load(self, model: str, sheets: Iterable[Sheet]) -> tuple[dict[int, str], dict[int, CrmError]]:
        """Loads sheets, at most 200 rows a call: the ids of the rows that were loaded, the errors of the others."""
        loaded: dict[int, str] = {}
        errors: dict[int, CrmError] = {}
        stopped = False
        for sheet in sheets:
            for start in range(0, len(sheet.places), MOST_ROWS):
                places = sheet.places[start : start + MOST_ROWS]
                if stopped:
                    errors |= {place: _not_sent(self.purpose) for place in places}
                    continue
                part = Sheet(sheet.columns, places, sheet.cells[start : start + MOST_ROWS])
                ids, failed = await self._load_part(model, part)
                loaded |= ids
                if failed:
                    errors |= failed
                    stopped = any(map(_stops, failed.values()))
        return loaded, errors

    async def _load_part(self, model: str, left: Sheet) -> tuple[dict[int, str], dict[int, CrmError]]:
        errors: dict[int, CrmError] = {}
        while left.places:
            try:
                answer = await self.rpc.call(
                    model,
                    "load",
                    purpose=self.purpose,
                    is_write=True,
                    context={"active_test": False} if ".id" in left.columns else None,
                    fields=left.columns,
                    data=left.cells,
                )
                ids, problems = self._read(answer, len(left.places))
            except CrmError as error:
                errors |= dict.fromkeys(left.places, error)
                break
            if ids:
                return dict(zip(left.places, map(str, ids), strict=True)), errors
            errors |= {left.places[index]: error for index, error in problems.items()}
            good = [index for index in range(len(left.places)) if index not in problems]
            left = Sheet(
                left.columns, [left.places[index] for index in good], [left.cells[index] for index in good]
            )
        return {}, errors

    def _read(self, answer: Any, how_many: int) -> tuple[list[Any], dict[int, CrmError]]:
        """The ids, or an error per row index (never neither). Raises UnexpectedResponse."""
        ids = answer.get("ids") if isinstance(answer, dict) else None
        said = answer.get("messages") if isinstance(answer, dict) else None
        if isinstance(ids, list) and len(ids) == how_many and all(ids) and set(map(type, ids)) == {int}:
            return ids, {}
        if ids is not False or not isinstance(said, list):
            raise UnexpectedResponse(
                "The answer to load is not one that Odoo gives.", provider="odoo", operation=self.purpose
            )
        faults: dict[int, list[Mapping[str, Any]]] = {}
        general: list[Mapping[str, Any]] = []
        for message in said:
            if not isinstance(message, dict) or message.get("type") != "error":
                continue
            index = message.get("record")
            if isinstance(index, int) and 0 <= index < how_many:
                faults.setdefault(index, []).append(message)
            else:
                general.append(message)
        for message in (*general, *(one for many in faults.values() for one in many)):
            if any(text in str(message.get("message")) for text in _BUSY):
                raise Unavailable(
                    "Odoo was busy with the same record; nothing was done.",
                    provider="odoo",
                    operation=self.purpose,
                    outcome=Outcome.NOT_APPLIED,
                    retry_safe=True,
                )
        if not faults:
            raise self._error(general)
        return [], {index: self._error(messages) for index, messages in faults.items()}

    def _error(self, messages: Iterable[Mapping[str, Any]]) -> CrmError:
        """What one row's messages mean. Their texts may quote the row, so quotes are masked."""
        fields: list[FieldError] = []
        words = "Odoo refused the content."
        for message in messages:
            text, name = str(message.get("message") or ""), str(message.get("field") or "")
            if any(part in text for part in _RIGHTS):
                return rights_error(text, self.purpose)
            if name == ".id" or text.startswith("Record does not exist"):
                return NotFound(
                    "The record is not there, or no longer.", provider="odoo", operation=self.purpose
                )
            words = plain_words(text, str(message.get("field_name") or ""), name)
            if not name and "require a name" in text:
                name = "name"
            if name:
                fields.append(FieldError(name, words))
        return ValidationError(words, provider="odoo", operation=self.purpose, fields=tuple(fields))

    async def tags(self, paths: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
        """Ids of all tags that these records name, by (field, name); tags not there yet are made."""
        wanted: dict[str, dict[str, None]] = {}
        named = {f"{field}.name": field for field in NAMED}
        for path in named.keys() & set[str]().union(*paths):
            for fields in paths:
                if path in fields:
                    wanted.setdefault(named[path], {}).update(dict.fromkeys(names_in(fields[path])))
        found: dict[tuple[str, str], int] = {}
        for field, names in wanted.items():
            found |= await self._tags(field, list(names))
        return found

    async def _tags(self, field: str, names: list[str]) -> dict[tuple[str, str], int]:
        model = NAMED[field]
        found = await self._tags_there(field, names)
        missing = [name for name in names if (field, name) not in found]
        if missing:
            try:
                await self.rpc.call(
                    model,
                    "create",
                    purpose=self.purpose,
                    is_write=True,
                    vals_list=[{"name": name} for name in missing],
                )
            except ValidationError:
                pass  # somebody made one meanwhile: names of lead tags are unique
            found |= await self._tags_there(field, missing)
        return found

    async def _tags_there(self, field: str, names: list[str]) -> dict[tuple[str, str], int]:
        if not names:
            return {}
        rows = await self.rpc.call(
            NAMED[field],
            "search_read",
            purpose=self.purpose,
            domain=[["name", "in", names]],
            fields=["name"],
            order="id desc",
        )
        return {(field, row["name"]): row["id"] for row in rows}


def _stops(error: CrmError) -> bool:
    """True when the other rows need not be tried: the failure is not about this row's content."""
    return not isinstance(error, (ValidationError, NotFound))


def _not_sent(purpose: str) -> Unavailable:
    return Unavailable(
        "Not sent, because an earlier call of this batch failed.",
        provider="odoo",
        operation=purpose,
        outcome=Outcome.NOT_APPLIED,
        retry_safe=True,
    )
