"""Addressing: one write on several connections. A remote id means a record of one CRM; here it becomes another's."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

from crmbridge.core.errors import FieldError, Fix, ValidationError
from crmbridge.services.connections.model import Intent

__all__ = ["Kept", "addressed", "records_named", "twin_key"]


class Kept(Intent, kw_only=True):
    """An intent as it is sealed when it goes to several connections.

    ``home`` is the id of the connection whose remote ids (and ``provider_extra``) it speaks of. ``twins`` tells for
    each other connection which write made a record of home there too: ``{connection: {"lead:17": write id}}``.
    """

    home: str = ""
    twins: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)


def twin_key(obj: str, remote_id: str) -> str:
    """How a record of home is named in ``twins``."""
    return f"{obj}:{remote_id}"


def records_named(intent: Intent) -> list[tuple[str, str]]:
    """(object, remote id) of every record that an intent names by its id."""
    named = [(intent.object.value, intent.remote_id)] if intent.remote_id else []
    return named + [(name, link["remote_id"]) for name, link in intent.links.items() if link.get("remote_id")]


def addressed(kept: Kept, connection_id: UUID, remote_ids: Mapping[str, str] | None) -> Intent:
    """The intent in the words of one connection. ``remote_ids``: what the writes of ``twins`` made there.

    What the caller said in home's own field names (``provider_extra``) is home's alone. Raises ValidationError for a
    record that is not known there: sending home's id would hit somebody else.
    """
    if not kept.home or kept.home == str(connection_id):
        return kept
    known = kept.twins.get(str(connection_id), {})

    def own(obj: str, remote_id: str, field: str) -> str:
        found = (remote_ids or {}).get(known.get(twin_key(obj, remote_id), ""), "")
        if not found:
            raise _unknown(field)
        return found

    return Intent(
        object=kept.object,
        operation=kept.operation,
        fields=kept.fields,
        links={
            name: {**link, "remote_id": own(name, link["remote_id"], f"links.{name}.remote_id")}
            if link.get("remote_id")
            else link
            for name, link in kept.links.items()
        },
        match=kept.match,
        remote_id=own(kept.object.value, kept.remote_id, "remote_id") if kept.remote_id else "",
    )


def _unknown(field: str) -> ValidationError:
    return ValidationError(
        "Which record this is in the other CRM is not known.",
        fields=(
            FieldError(field, "is an id of the primary CRM, and no write that went to both made this record"),
        ),
        fix=Fix(
            "address_connection", "Send it to this connection alone: ?connection=NAME and its own remote id."
        ),
    )
