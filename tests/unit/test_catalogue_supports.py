"""What the API tells of each operation: level, reason, proof, and the way out of a refusal."""

from __future__ import annotations

import pytest

from crmbridge.api.catalogue import driver_entry, supports
from crmbridge.core.matrix import operations_of
from crmbridge.drivers import load, slugs


@pytest.mark.parametrize("slug", slugs())
def test_supports_when_asked_then_all_that_is_declared_is_told(slug: str) -> None:
    manifest = load(slug).MANIFEST
    told, entry = supports(manifest), driver_entry(manifest)
    for obj in manifest.objects:
        assert entry["objects"][obj.value]["operations"] == told[obj.value]
        for operation in operations_of(obj):
            declared = manifest.supports(obj, operation)
            shown = told[obj.value][operation.value]
            assert shown["level"] == declared.level.value
            for name in ("reason", "link", "fix"):
                assert shown.get(name, "") == getattr(declared, name)
                assert name not in shown or shown[name]


def test_supports_when_any_driver_names_a_way_out_then_it_is_told() -> None:
    told = [supports(load(slug).MANIFEST) for slug in slugs()]
    fixes = {one["fix"] for each in told for by in each.values() for one in by.values() if "fix" in one}
    assert fixes and all(len(text) > 20 for text in fixes)
