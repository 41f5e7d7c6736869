"""Field maps: fields.toml, slots to native fields, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import ValidationError
from crmbridge.core.records import Object, RelatedWrite
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.drivers import DRIVERS, load
from crmbridge.toolkit.fieldmap import FieldMap, FieldRule, get_path, load_fields, parse_fields, put_path
from crmbridge.toolkit.formats import ValueFault

TOML = r"""
[lead]
email = "email_from"
phone = {path = "phone", format = "e164"}
title = "name"
status = {path = "stage", values = {new = 1, won = 2, "*" = 9}}
source = {path = "utm.source", default = "phone"}
tags = {path = "labels", format = "join:;"}
message = [{path = "description"}, {path = "body", direction = "write", format = "html"}]
[lead.constants]
type = "opportunity"
"utm.medium" = "agent"
[lead.full_name]
path = "contact_name"
join = ["first_name", "last_name"]
[real_estate.lead]
bedrooms = "x_bedrooms"
budget_max = {native = "deal", path = "budget_aed", format = "number"}
[auto_service.lead.vehicle]
make = "car.make"
year = {path = "car.year", format = "text"}
"""


def field_map(vertical: Vertical = Vertical.REAL_ESTATE, **facts: Any) -> FieldMap:
    rules = parse_fields(TOML).rules(Object.LEAD, vertical)
    facts = {"region": "AE", "time_zone": "Asia/Dubai", **facts}
    return FieldMap(Object.LEAD, rules, slots_for(Object.LEAD, vertical), **facts)


def errors(fields: Mapping[str, Any], *, partial: bool = False, **facts: Any) -> dict[str, str]:
    return {one.field: one.message for one in field_map(**facts).to_native(fields, partial=partial).errors}


def test_to_native_when_created_then_paths_constants_and_defaults() -> None:
    mapped = field_map().to_native({"email": "mei@example.com", "phone": "050 123 4567", "status": "won"})
    assert mapped.errors == []
    assert mapped.fields == {
        "email_from": "mei@example.com",
        "phone": "+971501234567",
        "stage": 2,
        "utm": {"source": "phone", "medium": "agent"},
        "type": "opportunity",
    }


def test_to_native_when_updated_then_no_constants_and_none_clears() -> None:
    mapped = field_map().to_native({"email": None, "title": "", "tags": [], "source": None}, partial=True)
    assert mapped.fields == {"email_from": None, "name": None, "labels": None, "utm": {"source": None}}


def test_to_native_when_created_with_empty_values_then_left_out() -> None:
    assert "email_from" not in field_map().to_native({"email": None, "title": ""}).fields


def test_to_native_when_other_object_then_related_write() -> None:
    mapped = field_map().to_native({"budget_max": "1250000.50", "bedrooms": "2"})
    assert mapped.related == [RelatedWrite(native_object="deal", fields={"budget_aed": 1250000.5})]
    assert mapped.fields["x_bedrooms"] == 2


def test_to_native_when_one_slot_has_two_places_then_both_are_written() -> None:
    mapped = field_map().to_native({"message": "a < b"})
    assert (mapped.fields["description"], mapped.fields["body"]) == ("a < b", "a &lt; b")


def test_to_native_when_several_fields_are_wrong_then_all_are_named() -> None:
    found = errors({"email": "x", "phone": "y", "bedrooms": "many", "title": "fine"})
    assert sorted(found) == ["lead.bedrooms", "lead.email", "lead.phone"]
    assert "name@example.com" in found["lead.email"]
    assert "+971501234567" in found["lead.phone"]


def test_to_native_when_slot_is_unknown_then_closest_are_listed() -> None:
    found = errors({"emial": "mei@example.com", "budget": 5})
    assert "lead.email" in found["lead.emial"]
    assert "lead.budget_m" in found["lead.budget"]


def test_to_native_when_slot_has_no_place_then_the_fix_is_named() -> None:
    assert "map it to a field" in errors({"company": "Acme"})["lead.company"]


def test_to_native_when_policy_is_note_then_leftover_keeps_the_value() -> None:
    mapped = field_map(unknown_slots="note").to_native({"company": "Acme", "shoe_size": 43, "title": "Flat"})
    assert mapped.errors == []
    assert mapped.leftover == {"company": "Acme", "shoe_size": 43}
    assert mapped.fields["name"] == "Flat"


def test_to_native_when_value_is_not_in_the_value_map_then_fallback_or_error() -> None:
    assert field_map().to_native({"status": "lost"}).fields["stage"] == 9
    rules = [FieldRule(slot="status", path="stage", values={"new": 1})]
    strict = FieldMap(Object.LEAD, rules, slots_for(Object.LEAD, Vertical.GENERAL))
    mapped = strict.to_native({"status": "secret value"})
    assert mapped.errors[0].field == "lead.status"
    assert "new" in mapped.errors[0].message
    assert "secret value" not in mapped.errors[0].message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"full_name": "Mei Lin"}, "Mei Lin"),
        ({"first_name": "Mei", "last_name": "Lin"}, "Mei Lin"),
        ({"last_name": "Lin"}, "Lin"),
        ({"full_name": "Mei L.", "first_name": "Mei", "last_name": "Lin"}, "Mei L."),
    ],
)
def test_join_when_created_then_one_text(fields: dict[str, str], expected: str) -> None:
    assert field_map().to_native(fields).fields["contact_name"] == expected


def test_to_native_when_a_map_has_joins_and_defaults_then_the_other_slots_are_as_in_a_map_without() -> None:
    plain = [FieldRule(slot="email", path="email_from"), FieldRule(slot="city", path="city")]
    more = [
        FieldRule(slot="full_name", path="contact", join=("first_name", "last_name")),
        FieldRule(slot="source", path="source", default="phone"),
    ]
    slots = slots_for(Object.LEAD, Vertical.GENERAL)
    fields = {"email": "A@EXAMPLE.com", "city": "", "first_name": "Layla"}
    both = FieldMap(Object.LEAD, plain + more, slots)
    assert both.to_native(fields).fields == {
        "email_from": "A@example.com",
        "contact": "Layla",
        "source": "phone",
    }
    assert both.to_native({"city": "Dubai"}).fields == {"city": "Dubai", "source": "phone"}
    assert both.to_native({}).fields == {}
    assert both.to_native({"city": ""}, partial=True).fields == {"city": None}
    assert (
        both.to_native({"full_name": "Layla Haddad", "first_name": "L"}).fields["contact"] == "Layla Haddad"
    )
    wrong = both.to_native({"email": "no", "source": 5.5, "nothing": 1})
    assert {one.field for one in wrong.errors} == {"lead.email", "lead.nothing"}


def test_join_when_only_one_part_is_updated_then_refused() -> None:
    assert "together" in errors({"first_name": "Mei"}, partial=True)["lead.full_name"]
    both = field_map().to_native({"first_name": "Mei", "last_name": "Wu"}, partial=True)
    assert both.fields == {"contact_name": "Mei Wu"}


def test_dotted_slots_when_flat_or_nested_then_the_same() -> None:
    cars = field_map(Vertical.AUTO_SERVICE)
    flat = cars.to_native({"vehicle.make": "Kia", "vehicle.year": 2020})
    nested = cars.to_native({"vehicle": {"make": "Kia", "year": "2020"}})
    assert flat.errors == nested.errors == []
    assert flat.fields == nested.fields
    assert flat.fields["car"] == {"make": "Kia", "year": "2020"}
    assert cars.to_canonical(flat.fields)["vehicle.year"] == 2020


def test_to_canonical_when_read_then_inverse_map() -> None:
    native = {
        "email_from": "mei@example.com",
        "phone": "050 123 4567",
        "stage": "2",
        "labels": "a; b",
        "description": False,
        "name": "",
        "contact_name": "Mei Lin",
        "x_bedrooms": 2,
        "unmapped": "x",
    }
    assert field_map().to_canonical(native, {"deal": {"budget_aed": 1250000.5}}) == {
        "email": "mei@example.com",
        "phone": "+971501234567",
        "status": "won",
        "tags": ["a", "b"],
        "full_name": "Mei Lin",
        "bedrooms": 2,
        "budget_max": "1250000.5",
    }


def test_to_canonical_when_provider_value_does_not_fit_then_as_written_there() -> None:
    found = field_map().to_canonical({"phone": "ask at desk", "x_bedrooms": "studio", "email_from": {"a": 1}})
    assert found == {"phone": "ask at desk", "bedrooms": "studio"}


def test_native_path_when_mapped_or_not_then_path_or_error() -> None:
    assert field_map().native_path("email") == "email_from"
    for slot in ("company", "budget_max", "nonsense"):
        with pytest.raises(ValidationError) as caught:
            field_map().native_path(slot)
        assert caught.value.fields[0].field == f"lead.{slot}"


def test_to_match_when_slots_then_native_paths_and_values() -> None:
    assert field_map().to_match({"email": "mei@EXAMPLE.com", "status": "new"}) == {
        "email_from": "mei@example.com",
        "stage": 1,
    }
    with pytest.raises(ValidationError) as caught:
        field_map().to_match({"budget_max": 5, "phone": "x", "nonsense": 1})
    assert {one.field for one in caught.value.fields} == {"lead.budget_max", "lead.phone", "lead.nonsense"}


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([FieldRule(slot="emial", path="a")], "no slot"),
        ([FieldRule(slot="email", path="a", format="nonsense")], "no format"),
        ([FieldRule(slot="email", path="a", format="epoch_ms")], "is email"),
        ([FieldRule(slot="email", path="a"), FieldRule(slot="phone", path="a")], "same path"),
        ([FieldRule(slot="email", path="")], "path of 1 to 8"),
        ([FieldRule(slot="email", path="a..b")], "path of 1 to 8"),
        ([FieldRule(slot="email", path=".".join("abcdefghi"))], "path of 1 to 8"),
        ([FieldRule(slot="email", path="a", direction="up")], "direction"),
        ([FieldRule(slot="full_name", path="a", join=("given",))], "no slot"),
    ],
)
def test_field_map_when_a_rule_cannot_work_then_named(rules: list[FieldRule], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FieldMap(Object.LEAD, rules, slots_for(Object.LEAD, Vertical.GENERAL))
    assert any(problem in one.message for one in caught.value.fields)


def test_paths_when_one_runs_through_another_then_error_not_loss() -> None:
    rules = [FieldRule(slot="title", path="a"), FieldRule(slot="source", path="a.b")]
    for order in (rules, rules[::-1]):
        crossing = FieldMap(Object.LEAD, order, slots_for(Object.LEAD, Vertical.GENERAL))
        mapped = crossing.to_native({"title": "x", "source": "y"})
        assert len(mapped.errors) == 1


def test_paths_when_lists_and_escapes_then_there_and_back() -> None:
    tree: dict[str, Any] = {}
    put_path(tree, r"custom\.field.phones.1.number", "5")
    assert tree == {"custom.field": {"phones": [{}, {"number": "5"}]}}
    assert get_path(tree, r"custom\.field.phones.1.number") == "5"
    assert get_path(tree, r"custom\.field.phones.9.number") is None
    with pytest.raises(ValueFault):
        put_path({}, "phones.4000000.number", "5")


@given(
    st.text(max_size=30),
    st.none() | st.integers() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
)
def test_paths_when_anything_then_value_or_fault(path: str, value: Any) -> None:
    tree: dict[str, Any] = {}
    try:
        put_path(tree, path, value)
    except ValueFault:
        return
    assert get_path(tree, path) == value


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[contact]\nemail = 'x'", "contact"),
        ("[lead]\nemail = 5", "lead.email"),
        ("[lead.email]\npath = 'x'\ncolour = 'red'", "lead.email"),
        ("[real_estate.lead]\nbedrooms = 2", "real_estate.lead.bedrooms"),
    ],
)
def test_fields_toml_when_wrong_then_place_is_named(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        parse_fields(text)


def test_identity_when_set_then_every_slot_has_its_own_path() -> None:
    table = parse_fields("identity = true\n[lead]\nemail = 'mail'")
    paths = {rule.slot: rule.path for rule in table.rules(Object.LEAD, Vertical.AUTO_SERVICE)}
    assert set(paths) == set(slots_for(Object.LEAD, Vertical.AUTO_SERVICE))
    assert (paths["email"], paths["phone"], paths["vehicle.make"]) == ("mail", "phone", "vehicle.make")


def test_pack_when_it_names_a_general_slot_then_it_replaces_the_rule() -> None:
    table = parse_fields("[lead]\nemail = 'a'\ntitle = 'b'\n[salon.lead]\nemail = 'c'")
    assert {rule.slot: rule.path for rule in table.rules(Object.LEAD, Vertical.SALON)} == {
        "email": "c",
        "title": "b",
    }
    assert {rule.slot: rule.path for rule in table.rules(Object.LEAD, Vertical.CLINIC)}["email"] == "a"


def test_load_fields_when_driver_has_no_file_then_empty() -> None:
    assert load_fields(CrmDriver).rules(Object.LEAD, Vertical.GENERAL) == []


@pytest.mark.parametrize("slug", sorted(DRIVERS))
@pytest.mark.parametrize("vertical", list(Vertical))
def test_shipped_maps_when_loaded_then_every_rule_works(slug: str, vertical: Vertical) -> None:
    table = load_fields(load(slug))
    for obj in Object:
        FieldMap(obj, table.rules(obj, vertical), slots_for(obj, vertical))
