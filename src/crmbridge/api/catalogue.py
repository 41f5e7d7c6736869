"""GET /api/drivers: the compatibility matrix, from the manifests."""

from __future__ import annotations

from typing import Any

from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.operations import Operation, Support
from crmbridge.core.records import Object
from crmbridge.drivers import load, slugs

__all__ = ["driver_entry", "drivers"]


def _support(support: Support) -> dict[str, str]:
    answer = {"level": support.level.value}
    if support.reason:
        answer["reason"] = support.reason
    if support.link:
        answer["link"] = support.link
    return answer


def supports(manifest: Manifest) -> dict[str, dict[str, dict[str, str]]]:
    """Every object and operation with its declared support."""
    return {
        obj.value: {op.value: _support(manifest.supports(obj, op)) for op in Operation if _applies(obj, op)}
        for obj in Object
    }


def _applies(obj: Object, operation: Operation) -> bool:
    return operation is not Operation.LOOKUP or obj is Object.CUSTOMER


def driver_entry(manifest: Manifest) -> dict[str, Any]:
    """One driver of the matrix: what it asks for, what it can do, and what it was tried against."""
    return {
        "slug": manifest.slug,
        "display_name": manifest.display_name,
        "available": not manifest.why_unavailable,
        "why_unavailable": manifest.why_unavailable,
        "auth": manifest.auth.kind.value,
        "refreshable": manifest.auth.kind in (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS),
        "api_version": manifest.api_version,
        "verification": manifest.verification.value,
        "verification_note": manifest.verification_note,
        "settings": [
            {
                "name": setting.name,
                "label": setting.label,
                "help": setting.help,
                "secret": setting.is_secret,
                "required": setting.is_required and not setting.is_generated,
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
                "operations": supports(manifest)[obj.value],
            }
            for obj, spec in manifest.objects.items()
        },
    }


def drivers() -> dict[str, Any]:
    """All registered drivers, alphabetical."""
    return {"drivers": [driver_entry(load(slug).MANIFEST) for slug in slugs()]}
