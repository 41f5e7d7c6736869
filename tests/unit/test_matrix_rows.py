"""The one row per driver that docs, HTTP and command line all tell."""

from __future__ import annotations

import json

import msgspec
import pytest

from crmbridge.api import catalogue
from crmbridge.core.manifest import Auth, AuthKind, Manifest, ObjectSpec, Verification
from crmbridge.core.matrix import AUTH_WORDS, matrix_row, operations_of
from crmbridge.core.operations import FULL, LIMITED, NEVER, DeleteLevel, Operation
from crmbridge.core.records import Object
from crmbridge.drivers import DRIVERS, load

WHOLE = ObjectSpec(
    native="contact",
    operations={Operation.GET: FULL, Operation.CREATE: LIMITED("some"), Operation.DELETE: FULL},
    batch={Operation.CREATE: 100, Operation.UPDATE: 7},
    delete_level=DeleteLevel.SOFT,
)
READ_ONLY = ObjectSpec(
    native="deal", operations={Operation.LIST: FULL, Operation.CREATE: NEVER("no", "https://acme.example")}
)
ABSENT = ObjectSpec(native="none", operations={Operation.GET: NEVER("no", "https://acme.example")})
ACME = Manifest(
    slug="acme",
    display_name="Acme",
    api_version="1",
    pages=(),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.BEARER, secret="token"),
    objects={Object.CUSTOMER: WHOLE, Object.DEAL: READ_ONLY, Object.NOTE: ABSENT},
    verification=Verification.LIVE,
    verification_note="a server",
)


def test_row_when_made_then_only_usable_operations_count() -> None:
    row = matrix_row(ACME)
    assert (row.read, row.write) == (("customer", "deal"), ("customer",))
    assert row.largest_batch == 100 and row.verified_against == "live: a server"


def test_row_when_an_object_can_be_used_but_not_deleted_then_unsupported_and_an_absent_one_is_not_told() -> (
    None
):
    row = matrix_row(ACME)
    assert row.delete == {"soft": ("customer",), "unsupported": ("deal",)}
    assert row.erase == {"unsupported": ("customer", "deal")}
    assert row.delete_text() == "soft: customer; unsupported: deal" and row.erase_text() == "unsupported"


def test_row_when_a_delete_level_is_declared_for_a_refused_operation_then_unsupported() -> None:
    spec = msgspec.structs.replace(READ_ONLY, delete_level=DeleteLevel.HARD)
    row = matrix_row(msgspec.structs.replace(ACME, objects={Object.DEAL: spec}))
    assert row.delete == {"unsupported": ("deal",)}


@pytest.mark.parametrize(
    ("kind", "seconds", "told"),
    [
        (AuthKind.OAUTH_CODE, 0, "yes, by refresh token"),
        (AuthKind.CLIENT_CREDENTIALS, 3600, "yes, by signing in anew"),
        (AuthKind.SIGN_IN, 3600, "yes, by signing in anew"),
        (AuthKind.CLIENT_CREDENTIALS, 0, "n/a, long-lived"),
        (AuthKind.API_KEY, 0, "n/a, long-lived"),
        (AuthKind.HMAC, 0, "n/a, long-lived"),
    ],
)
def test_renewal_when_tokens_end_then_yes_else_not_applicable(
    kind: AuthKind, seconds: int, told: str
) -> None:
    row = matrix_row(msgspec.structs.replace(ACME, auth=Auth(kind=kind, access_seconds=seconds)))
    assert (row.renewal, row.refreshable, row.auth) == (told, told.startswith("yes"), AUTH_WORDS[kind])


def test_row_when_the_driver_refuses_everything_then_not_available_and_nothing_claimed() -> None:
    row = matrix_row(load("opentable").MANIFEST)
    assert (row.is_available, row.read, row.write, row.verified_against) == (False, (), (), "")
    assert (row.renewal, row.delete_text()) == ("–", "–")


def test_operations_when_of_another_object_than_customer_then_without_lookup() -> None:
    assert Operation.LOOKUP in operations_of(Object.CUSTOMER)
    assert set(Operation) - set(operations_of(Object.LEAD)) == {Operation.LOOKUP}


@pytest.mark.parametrize("slug", sorted(DRIVERS))
def test_catalogue_when_asked_then_tells_the_row_and_every_object(slug: str) -> None:
    manifest = load(slug).MANIFEST
    entry = json.loads(msgspec.json.encode(catalogue.driver_entry(manifest)))
    row = matrix_row(manifest)
    assert (entry["auth_text"], entry["refreshable"], entry["renewal"]) == (
        row.auth,
        row.refreshable,
        row.renewal,
    )
    assert (entry["read"], entry["write"], entry["largest_batch"]) == (
        list(row.read),
        list(row.write),
        row.largest_batch,
    )
    assert {level: tuple(names) for level, names in entry["delete"].items()} == row.delete
    assert entry["verified_against"] == row.verified_against
    for obj, spec in manifest.objects.items():
        told = entry["objects"][obj.value]
        assert set(told["operations"]) == {each.value for each in operations_of(obj)}
        assert (told["delete_level"], told["erase_level"]) == (
            spec.delete_level.value,
            spec.erase_level.value,
        )
