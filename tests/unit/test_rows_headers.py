"""Headers to slots, and the --map option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.cli.importing.headers import SYNONYMS, normalise_header, parse_map_option, suggest_mapping
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical, slots_for

LEAD: dict[str, tuple[str, ...]] = dict.fromkeys(slots_for(Object.LEAD, Vertical.REAL_ESTATE), ())


def test_mapping_when_headers_are_those_of_the_sample_then_slots_are_found() -> None:
    headers = [
        "First Name",
        "E-Mail",
        "Mobile Phone",
        "Budget (max)",
        "Budget (min)",
        "Bedrooms",
        "Source",
        "Notes",
        "Created",
    ]
    assert suggest_mapping(headers, LEAD) == {
        "First Name": "first_name",
        "E-Mail": "email",
        "Mobile Phone": "phone",
        "Budget (max)": "budget_max",
        "Budget (min)": "budget_min",
        "Bedrooms": "bedrooms",
        "Source": "source",
        "Notes": "message",
        "Created": None,
    }


def test_mapping_when_two_headers_mean_one_slot_then_the_exact_one_gets_it() -> None:
    assert suggest_mapping(["Mobile", "Phone", "Cell"], LEAD) == {
        "Mobile": None,
        "Phone": "phone",
        "Cell": None,
    }
    assert suggest_mapping(["Mobile", "Cell"], LEAD) == {"Mobile": "phone", "Cell": None}


def test_mapping_when_slots_have_objects_accents_and_own_names_then_found() -> None:
    slots: dict[str, tuple[str, ...]] = {
        "lead.email": (),
        "lead.first_name": (),
        "lead.vehicle.make": (),
        "pet": ("Haustier",),
    }
    assert suggest_mapping(["PRÉNOM", "Correo electrónico", "haustier", "Make"], slots) == {
        "PRÉNOM": "lead.first_name",
        "Correo electrónico": "lead.email",
        "haustier": "pet",
        "Make": "lead.vehicle.make",
    }


def test_synonyms_when_listed_then_are_in_normal_form_and_belong_to_slots() -> None:
    for names in SYNONYMS.values():
        assert [normalise_header(name) for name in names] == list(names)
    known = {name for vertical in Vertical for obj in Object for name in slots_for(obj, vertical)}
    assert set(SYNONYMS) <= known


@given(st.lists(st.text(), unique=True), st.dictionaries(st.text(), st.lists(st.text())))
def test_mapping_when_any_text_then_each_slot_at_most_once(
    headers: list[str], slots: dict[str, list[str]]
) -> None:
    found = suggest_mapping(headers, slots)
    assert list(found) == headers
    used = [slot for slot in found.values() if slot is not None]
    assert len(used) == len(set(used)) and set(used) <= set(slots)


def test_map_option_when_well_formed_then_pairs() -> None:
    assert parse_map_option(
        'E-Mail=email, First Name = first_name,"Name, full"=full_name,a=b=vehicle.make,Notes='
    ) == {
        "E-Mail": "email",
        "First Name": "first_name",
        "Name, full": "full_name",
        "a=b": "vehicle.make",
        "Notes": None,
    }


@pytest.mark.parametrize(
    "text", ["", "x", "=email", "a=email,a=phone", "a=email,b=email", "a=Email!", "a=x\n", ",", "a=b\0"]
)
def test_map_option_when_malformed_then_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="--map"):
        parse_map_option(text)


@given(st.one_of(st.text(), st.text('ab=," \n', max_size=20)))
def test_map_option_when_any_text_then_pairs_or_value_error(text: str) -> None:
    try:
        found = parse_map_option(text)
    except ValueError as error:
        assert str(error).startswith("--map")
    else:
        assert found and all(found)
