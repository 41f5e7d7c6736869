"""A provider without introspection: its fields as a table that the driver states."""

from __future__ import annotations

from crmbridge.core.records import FieldFact

__all__ = ["field_facts"]


def field_facts(table: str) -> list[FieldFact]:
    """Each row: ``path type flags label``. ``type`` may be ``pick_list:a,b``; flags: ``r`` required, ``o`` read-only,
    ``c`` custom, ``-`` none; a number among them is the largest length (``r20``)."""
    facts = []
    for row in filter(None, table.splitlines()):
        path, kind, flags, label = row.split(maxsplit=3)
        kind, _, options = kind.partition(":")
        digits = "".join(filter(str.isdigit, flags))
        facts.append(
            FieldFact(
                path=path,
                label=label,
                type=kind,
                is_required="r" in flags,
                is_read_only="o" in flags,
                is_custom="c" in flags,
                options=options.split(",") if options else [],
                max_length=int(digits) if digits else None,
            )
        )
    return facts
