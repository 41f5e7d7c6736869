"""GET /api/drivers: the compatibility matrix, from the manifests."""

from __future__ import annotations

from typing import Any

import msgspec

from crmbridge.core.errors import NotConfigured
from crmbridge.core.manifest import Manifest
from crmbridge.core.matrix import matrix_row, operations_of
from crmbridge.core.operations import Support
from crmbridge.core.records import Object
from crmbridge.drivers import load, outside, problems, slugs

__all__ = ["driver_entry", "drivers", "supports"]


def _support(support: Support) -> dict[str, str]:
    answer = {"level": support.level.value}
    if support.reason:
        answer["reason"] = support.reason
    if support.link:
        answer["link"] = support.link
    if support.fix:
        answer["fix"] = support.fix
    return answer


def supports(manifest: Manifest) -> dict[str, dict[str, dict[str, str]]]:
    """Every object and operation with its declared support."""
    return {
        obj.value: {op.value: _support(manifest.supports(obj, op)) for op in operations_of(obj)}
        for obj in Object
    }


def driver_entry(manifest: Manifest) -> dict[str, Any]:
    """One driver of the matrix: what it asks for, what it can do, and what it was tried against."""
    row = matrix_row(manifest)
    support = supports(manifest)
    return {
        "slug": row.slug,
        "display_name": row.display_name,
        "package": outside().get(row.slug, "crmbridge"),
        "available": row.is_available,
        "why_unavailable": manifest.why_unavailable,
        "auth": manifest.auth.kind.value,
        "auth_text": row.auth,
        "refreshable": row.refreshable,
        "renewal": row.renewal,
        "read": list(row.read),
        "write": list(row.write),
        "delete": msgspec.to_builtins(row.delete),
        "erase": msgspec.to_builtins(row.erase),
        "largest_batch": row.largest_batch,
        "verified_against": row.verified_against,
        "api_version": manifest.api_version,
        "pages": list(manifest.pages),
        "read_on": manifest.read_on,
        "verification": manifest.verification.value,
        "verification_note": manifest.verification_note,
        "settings": [
            {
                "name": setting.name,
                "label": setting.label,
                "help": setting.help,
                "secret": setting.is_secret,
                # A form may leave out what has a default.
                "required": setting.is_required and not setting.is_generated and not setting.default,
                "default": setting.default,
                "generated": setting.is_generated,
                "kind": setting.kind,
                "example": setting.example,
                "options": list(setting.options),
            }
            for setting in manifest.settings
        ],
        "objects": {
            obj.value: {
                "native": spec.native,
                "delete_level": spec.delete_level.value,
                "erase_level": spec.erase_level.value,
                "batch": {op.value: most for op, most in spec.batch.items()},
                "operations": support[obj.value],
            }
            for obj, spec in manifest.objects.items()
        },
    }


def _broken_entry(slug: str, error: NotConfigured) -> dict[str, Any]:
    """A driver of another package that cannot be loaded: told, so that the others stay usable."""
    return {
        "slug": slug,
        "display_name": slug,
        "package": outside().get(slug, ""),
        "available": False,
        "why_unavailable": error.message,
        "auth": "none",
        "verification": "",
        "settings": [],
        "objects": {},
    }


def drivers() -> dict[str, Any]:
    """All drivers, alphabetical, those of other packages too; ``problems`` names entry points left aside."""
    entries = []
    for slug in slugs():
        try:
            entries.append(driver_entry(load(slug).MANIFEST))
        except NotConfigured as error:
            entries.append(_broken_entry(slug, error))
    return {"drivers": entries, "problems": problems()}
