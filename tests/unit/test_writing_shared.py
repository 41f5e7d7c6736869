"""What writers and finders of batches share: groups of upserts, own creates found again, lost answers looked up."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from crmbridge.core.driver import Access
from crmbridge.core.errors import Conflict, CrmError, NotFound, Unavailable, ValidationError
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Record, RelatedWrite, Write, WriteResult
from crmbridge.toolkit.batches import Results, applied, built, failed, match_key, match_parts
from crmbridge.toolkit.exchange import HttpDriver
from crmbridge.toolkit.finding import MarkFinder
from crmbridge.toolkit.names import note_title, split_name, title_mark
from crmbridge.toolkit.writing import BatchWriter


class Acme(HttpDriver):
    MANIFEST = Manifest(
        slug="acme",
        display_name="Acme",
        api_version="1",
        pages=(),
        read_on="2026-11-25",
        auth=Auth(kind=AuthKind.NONE),
        base_url="https://acme.example.com",
        objects={},
        strict_ids="[0-9]+",
    )


def write(number: int, operation: Operation = Operation.CREATE, **more: object) -> Write:
    return Write(target_id=f"t-{number}", operation=operation, object=Object.LEAD, **more)  # type: ignore[arg-type]


@pytest.fixture
def writer() -> BatchWriter:
    return BatchWriter(Acme(Access(transport=None, settings={}, secrets={}, mark_prefix="house")))  # type: ignore[arg-type]


def test_upserts_when_fields_or_values_repeat_then_parts_have_one_match_and_no_value_twice() -> None:
    matches = [
        {"email": "a@x.com"},
        {"phone": "1"},
        {"email": " A@X.COM "},
        {"email": "b@x.com"},
        {"phone": "2"},
    ]
    writes = {place: write(place, match=match) for place, match in enumerate(matches)}
    assert [list(part) for part in match_parts(writes, 9)] == [[0, 3], [2], [1, 4]]
    assert [list(part) for part in match_parts(writes, 1)] == [[0], [3], [2], [1], [4]]
    assert list(match_parts({}, 9)) == []
    assert match_key(writes[0]) == match_key(writes[2]) != match_key(writes[3])


def test_bodies_when_some_cannot_be_made_then_the_others_are_and_those_have_results() -> None:
    def make(one: Write) -> str:
        if one.remote_id:
            raise ValidationError("no")
        return one.target_id

    bodies, results = built({3: write(3), 5: write(5, remote_id="55")}, make)
    assert bodies == {3: "t-3"}
    assert (results[5].outcome, results[5].remote_id) == (Outcome.NOT_APPLIED, "55")

    def never(remote_id: str) -> str:
        raise Unavailable("down", outcome=Outcome.UNKNOWN)

    bodies, results = built({0: "77"}, never)
    assert (bodies, results[0].outcome, results[0].remote_id) == ({}, Outcome.UNKNOWN, "77")


async def test_creates_when_refused_for_their_own_mark_then_found_and_others_stay(
    writer: BatchWriter,
) -> None:
    writes = {place: write(place) for place in range(5)}
    results: Results = {place: failed(Conflict("taken")) for place in range(4)}
    results[4] = failed(ValidationError("bad"))
    asked: list[list[str]] = []

    async def ids_by_mark(marks: Sequence[str]) -> dict[str, str]:
        asked.append(list(marks))
        if "house-t-2" in marks:
            raise Unavailable("down")
        return {"house-t-1": "11"}

    assert await writer.made_before(writes, results, ids_by_mark, 2) == {1: "11"}
    assert asked == [["house-t-0", "house-t-1"], ["house-t-2", "house-t-3"]]


def test_write_when_it_has_other_records_or_odd_links_then_refused(writer: BatchWriter) -> None:
    related = write(1, related=[RelatedWrite(native_object="deal", fields={})])
    with pytest.raises(ValidationError, match="mapped to deal; here every slot stands on its own module"):
        writer.check_parts(related, "module")
    with pytest.raises(ValidationError):
        writer.check_parts(write(1, links={"customer": "../1"}), "module")
    writer.check_parts(write(1, links={"customer": "12"}), "module")


@pytest.mark.parametrize(
    ("pattern", "ids", "expected"),
    [
        ("[0-9]+", ["1", "22"], True),
        ("[0-9]+", ["1", ""], False),
        ("[0-9]+", ["", "1"], False),
        ("[0-9]+", ["1\n2", "3"], False),
        ("[0-9]+", ["1", "2\n"], False),
        ("[0-9]+", ["1", "2 "], False),
        ("a|b[0-9]", ["b1", "a"], True),
        ("a|b[0-9]", ["b1a", "a"], False),
        # Patterns that may match a line break: each id is looked at by itself.
        ("[^/]+", ["", "a"], False),
        ("[^/]+", ["a", "b"], True),
        (r"\S.*", ["a", ""], False),
    ],
)
def test_ids_when_looked_at_together_then_the_same_as_one_by_one(
    pattern: str, ids: list[str], expected: bool
) -> None:
    class Other(HttpDriver):
        MANIFEST = msgspec.structs.replace(Acme.MANIFEST, strict_ids=pattern)

    writer = BatchWriter(Other(Access(transport=None, settings={}, secrets={})))  # type: ignore[arg-type]
    assert writer.are_ids(ids) is expected
    assert all(writer.driver.id_text(one) == one != "" for one in ids) is expected


def test_successes_when_made_at_once_then_each_place_has_its_id_and_page() -> None:
    results = applied([3, 5], ["7", "8"], "https://acme.example.com/r/", was_created=True)
    assert [(place, one.outcome, one.remote_id) for place, one in results.items()] == [
        (3, Outcome.APPLIED, "7"),
        (5, Outcome.APPLIED, "8"),
    ]
    assert (results[5].url, results[5].was_created) == ("https://acme.example.com/r/8", True)
    assert applied([1], ["9"], "")[1].url == ""
    with pytest.raises(ValueError):
        applied([1, 2], ["9"], "")


def test_errors_when_made_by_a_writer_then_they_name_the_provider(writer: BatchWriter) -> None:
    odd, many = writer.odd("nothing", Operation.CREATE), writer.too_many(["7", "8"])
    assert (odd.message, odd.outcome, odd.retry_safe) == ("Acme answered nothing.", Outcome.UNKNOWN, False)
    assert (many.existing_remote_id, many.provider) == ("7", "acme")
    assert many.message == "The match fits 2 records of Acme; an upsert needs one."


class Shelf:
    """One record, or none."""

    def __init__(self, record: Record | None) -> None:
        self.record = record

    async def get(self, obj: Object, remote_id: str) -> Record:
        if self.record is None:
            raise NotFound("gone")
        return self.record


class Finder(MarkFinder):
    def __init__(self, shelf: Shelf, made: WriteResult | CrmError) -> None:
        super().__init__(shelf)
        self.result = made

    async def made(self, write: Write) -> WriteResult:
        if isinstance(self.result, CrmError):
            raise self.result
        return self.result

    def holds(self, write: Write, record: Record) -> bool:
        return write.fields == record.native


THERE = Record(object=Object.LEAD, remote_id="7", native={"a": 1}, url="https://acme.example.com/7")
LOST = WriteResult(outcome=Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("operation", "record", "fields", "outcome"),
    [
        (Operation.UPDATE, THERE, {"a": 1}, Outcome.APPLIED),
        (Operation.UPDATE, THERE, {"a": 2}, Outcome.NOT_APPLIED),
        (Operation.UPDATE, None, {"a": 1}, Outcome.NOT_APPLIED),
        (Operation.DELETE, None, {}, Outcome.APPLIED),
        (Operation.ERASE, None, {}, Outcome.APPLIED),
        (Operation.DELETE, THERE, {}, Outcome.NOT_APPLIED),
        (Operation.CREATE, None, {}, Outcome.UNKNOWN),
        (Operation.UPSERT, None, {}, Outcome.NOT_APPLIED),
    ],
)
async def test_find_when_the_answer_was_lost_then_by_what_stands_there(
    operation: Operation, record: Record | None, fields: dict[str, int], outcome: Outcome
) -> None:
    found = await Finder(Shelf(record), LOST).find(write(1, operation, remote_id="7", fields=fields))
    assert found.outcome is outcome


async def test_find_when_the_look_fails_then_unknown_with_its_error() -> None:
    found = await Finder(Shelf(None), Unavailable("down")).find(write(1, Operation.UPSERT))
    assert found.outcome is Outcome.UNKNOWN and isinstance(found.error, Unavailable)


async def test_find_when_absence_proves_no_erasure_then_not_applied() -> None:
    class Careful(Finder):
        proved_by_absence = frozenset({Operation.DELETE})

    found = await Careful(Shelf(None), LOST).find(write(1, Operation.ERASE, remote_id="7"))
    assert found.outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("Mariam Al Mansoori", ("Mariam Al", "Mansoori")),
        ("  Cher ", ("", "Cher")),
        ("", ("", "")),
        (None, ("", "")),
        ("a  b", ("a", "b")),
    ],
)
def test_name_when_one_text_then_parted_at_its_last_blank(whole: object, parts: tuple[str, str]) -> None:
    assert split_name(whole) == parts


def test_title_when_a_note_has_none_then_its_first_line_and_the_mark() -> None:
    one = Write(
        target_id="12345678-1234-1234-1234-123456789abc", operation=Operation.CREATE, object=Object.NOTE
    )
    assert title_mark(one) == "[123456789abc]"
    assert note_title(" Called back\nand more", one) == "Called back [123456789abc]"
    assert note_title(["no text"], one) == note_title("  ", one) == "Note [123456789abc]"
    title = note_title("word " * 40, one)
    assert title.endswith("… [123456789abc]") and len(title) <= 60 + len(" [123456789abc]")
