"""The sample lead export: the same bytes again, and read as planned."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from datetime import UTC
from pathlib import Path
from types import ModuleType

import pytest

from crmbridge.cli.importing.rows import BadRow, clean_value, open_rows, suggest_mapping
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical, slots_for

ROOT = Path(__file__).parents[2]
FILES = ("leads.csv", "leads-latin1.csv", "leads.jsonl")


@pytest.fixture(scope="module")
def make_sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "tools" / "make_sample.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_sample"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_sample_when_made_again_then_is_byte_identical(make_sample: ModuleType, name: str) -> None:
    assert make_sample.generate().files[name] == (ROOT / "samples" / name).read_bytes()


def test_sample_when_seed_differs_then_differs(make_sample: ModuleType) -> None:
    assert make_sample.generate(seed=8).files["leads.csv"] != make_sample.generate().files["leads.csv"]


@pytest.mark.parametrize("rows", [1, 7, 250])
def test_sample_when_asked_for_rows_then_has_that_many(make_sample: ModuleType, rows: int) -> None:
    sample = make_sample.generate(rows=rows)
    assert len(sample.rows) == rows == sum(sample.counts["leads.csv"].values())


def found_kinds(path: Path) -> Counter[str]:
    """Reads one sample as an import would: the kind of every row."""
    slots = slots_for(Object.LEAD, Vertical.REAL_ESTATE)
    kinds: Counter[str] = Counter()
    with open_rows(path) as reader:
        mapping = suggest_mapping(reader.headers, dict.fromkeys(slots, ()))
        assert [header for header, slot in mapping.items() if slot is None] == ["Created"]
        for row in reader:
            if isinstance(row, BadRow):
                kinds[re.sub(r"[^a-z]+", " ", row.reason).split(" at ")[0].strip()] += 1
                continue
            values, wrong = {}, []
            for header, slot in mapping.items():
                kind = slots[slot].type.value if slot else "datetime"
                try:
                    values[slot] = clean_value(kind, row.values[header], region="AE", dayfirst=True, zone=UTC)
                except ValueError:
                    wrong.append(slot or header)
            if not wrong and not (values["first_name"] or values["last_name"]):
                wrong.append("name")
            kinds["+".join(wrong) or "good"] += 1
    return kinds


@pytest.mark.parametrize("name", FILES)
def test_sample_when_read_then_good_and_bad_rows_are_those_planned(
    make_sample: ModuleType, name: str
) -> None:
    planned = Counter(make_sample.generate().counts[name])
    found = found_kinds(ROOT / "samples" / name)
    assert found.pop("good") == planned.pop("good") + planned.pop("duplicate")
    assert found.pop("phone", 0) == planned.pop("phone_not_a_number", 0)
    assert found.pop("email", 0) == planned.pop("email_broken", 0)
    assert found.pop("name", 0) == planned.pop("no_name", 0)
    assert sum(found.values()) == sum(planned.values())
    if name == "leads.csv":
        assert found == {"columns but the header has": 6}


def test_sample_when_searched_then_addresses_stand_under_reserved_domains() -> None:
    text = (ROOT / "samples" / "leads.csv").read_text(encoding="utf-8-sig")
    domains = set(re.findall(r"@([\w.-]+\.\w+)", text.lower()))
    assert domains and all(
        re.search(r"(^|\.)(example\.(com|org|net)|example)$", domain) for domain in domains
    )


@pytest.fixture
def make_people(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("tools.make_people")


def test_people_when_made_again_then_is_byte_identical_and_no_person_stands_twice(
    make_people: ModuleType,
) -> None:
    content, counts = make_people.generate()
    assert content == (ROOT / "samples" / "people.csv").read_bytes()
    assert sum(counts.values()) == 1000
    seen: set[str] = set()
    with open_rows(ROOT / "samples" / "people.csv") as reader:
        for row in reader:
            values = {} if isinstance(row, BadRow) else row.values
            number = re.sub(r"\D", "", values.get("Cell Phone", ""))[-10:]
            own = {text for text in (values.get("Email", ""), number) if re.search(r"\.\d+@|^\d{10}$", text)}
            assert not own & seen
            seen |= own


def test_people_when_read_then_good_and_bad_rows_are_those_planned(make_people: ModuleType) -> None:
    _, counts = make_people.generate()
    slots = slots_for(Object.CUSTOMER, Vertical.CLINIC)
    found: Counter[str] = Counter()
    with open_rows(ROOT / "samples" / "people.csv") as reader:
        mapping = suggest_mapping(reader.headers, dict.fromkeys(slots, ()))
        assert None not in mapping.values()
        for row in reader:
            if isinstance(row, BadRow):
                found["columns"] += 1
                continue
            wrong = []
            values: dict[str, object] = {}
            for header, slot in mapping.items():
                kind = slots[str(slot)].type.value
                try:
                    values[str(slot)] = clean_value(
                        kind, row.values[header], region="US", dayfirst=False, zone=UTC
                    )
                except ValueError:
                    wrong.append(str(slot))
            if not wrong and not (values["first_name"] or values["last_name"]):
                wrong.append("name")
            found["+".join(wrong) or "good"] += 1
    assert found == {
        "good": counts["good"],
        "columns": counts["too_many_columns"] + counts["too_few_columns"],
        "name": counts["no_name"],
        "phone": counts["phone_not_a_number"],
        "email": counts["email_broken"],
        "birth_date": counts["birth_date_unreadable"],
    }
