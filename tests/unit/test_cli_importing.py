"""The engine of an import against a server in memory: keys, rejects, marks, outages."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crmbridge.cli.client import Client
from crmbridge.cli.importing.cleaning import Cleaner, Slots, SpoiltRow, choose_mapping, slots_from
from crmbridge.cli.importing.marks import Mark, fingerprint_of, import_lock, mark_path, read_mark, write_mark
from crmbridge.cli.importing.rejects import Rejects
from crmbridge.cli.importing.rows import open_rows
from crmbridge.cli.importing.run import Delivered, Importer, Reason, Target, follow
from crmbridge.cli.problems import Problem, ServerUnreachable, UsageProblem
from crmbridge.core.wire import HttpRequest, HttpResponse, TransportFailure, TransportFault

TYPES = {
    "email": "email",
    "phone": "phone",
    "budget_max": "money",
    "bedrooms": "integer",
    "message": "long_text",
}
SLOTS = Slots(types=TYPES, mapped=frozenset({"email", "phone", "budget_max", "message"}))


class Server:
    """Accepts batches as the real one does: by key, each once. ``trouble`` is raised or answered first."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.batches: list[int] = []
        self.trouble: list[Any] = []
        self.most_bytes = 1 << 20
        self.refuse: dict[str, dict[str, Any]] = {}

    async def send(self, request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        if self.trouble:
            trouble = self.trouble.pop(0)
            if isinstance(trouble, TransportFailure):
                if trouble.was_sent:
                    self.answer(request)
                raise trouble
            return HttpResponse.of_json(trouble, {"code": "unavailable", "message": "down"})
        if len(request.encoded_body()) > self.most_bytes:
            return HttpResponse.of_json(413, {"code": "validation_error", "message": "too large"})
        return self.answer(request)

    def answer(self, request: HttpRequest) -> HttpResponse:
        assert request.url.endswith("/records/lead/batch")
        results: list[dict[str, Any]] = []
        self.batches.append(len(request.json["writes"]))
        for item in request.json["writes"]:
            error = self.refuse.get(item["fields"].get("email", ""))
            if error:
                results.append({"error": error})
                continue
            key = item["idempotency_key"]
            answer = {"write_id": key, "replayed": key in self.known}
            results.append(answer)
            self.known[key] = item["fields"]
        return HttpResponse.of_json(200, {"results": results})


class Watch:
    """A View that remembers."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.positions: list[int] = []

    def loading(self, position: int, total: int, mark: Mark) -> None:
        self.positions.append(position)

    def delivering(self, delivered: Delivered) -> None: ...

    def trouble(self, text: str) -> None:
        self.troubles.append(text)


def new_mark(source: Path) -> Mark:
    return Mark(
        fingerprint=fingerprint_of(source),
        size=source.stat().st_size,
        settings="s",
        import_id="i",
        url="http://127.0.0.1:1",
        tenant="t",
        object="lead",
    )


async def run(
    source: Path, server: Server, mark: Mark | None = None, *, batch: int = 2, patience: float = 60
) -> tuple[Mark, Watch]:
    watch = Watch()
    mark = mark or new_mark(source)
    target = Target(tenant="t", object="lead", import_id=mark.import_id)
    with (
        open_rows(source) as reader,
        Rejects(source, reader.headers, append=mark.line > 0) as rejects,
    ):
        cleaner = Cleaner("lead", choose_mapping(reader.headers, SLOTS, ""), SLOTS, region="AE")
        async with Client("http://127.0.0.1:1", "k", transport=server) as client:
            importer = Importer(
                client, target, reader, cleaner, rejects, mark, watch, batch=batch, patience=patience
            )
            await importer.load()
    return mark, watch


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        await real(0)

    monkeypatch.setattr("crmbridge.cli.importing.run.asyncio.sleep", sleep)


def people(path: Path, count: int) -> Path:
    lines = ["E-Mail,Phone", *(f"p{number}@example.com,0501234567" for number in range(count))]
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_import_when_run_twice_then_the_second_run_is_all_replays(tmp_path: Path) -> None:
    source, server = people(tmp_path / "a.csv", 7), Server()
    first, _ = await run(source, server)
    second, _ = await run(source, server)
    assert (first.accepted, first.replayed, first.finished) == (7, 0, True)
    assert (second.accepted, second.replayed) == (0, 7)
    assert len(server.known) == 7


async def test_import_when_the_same_person_stands_twice_then_each_row_is_its_own_write(
    tmp_path: Path,
) -> None:
    source, server = tmp_path / "a.csv", Server()
    source.write_text("E-Mail,Phone\na@example.com,0501234567\na@example.com,0501234567\n")
    mark, _ = await run(source, server)
    assert mark.accepted == 2 and len(server.known) == 2


@pytest.mark.parametrize("was_sent", [True, False])
async def test_import_when_an_answer_is_lost_then_the_batch_is_sent_again_and_nothing_doubles(
    tmp_path: Path, was_sent: bool
) -> None:
    source, server = people(tmp_path / "a.csv", 9), Server()
    cut = TransportFailure(TransportFault.CUT, "cut", was_sent=was_sent)
    server.trouble = [cut, 503, 502, cut]
    mark, watch = await run(source, server)
    assert mark.accepted + mark.replayed == 9 == len(server.known)
    assert any("server_unreachable" in text for text in watch.troubles) and watch.troubles[-1] == ""


async def test_import_when_patience_runs_out_then_the_mark_stands_where_it_came_to(tmp_path: Path) -> None:
    source, server = people(tmp_path / "a.csv", 4), Server()
    server.trouble = [TransportFailure(TransportFault.CONNECT_FAILED, "gone", was_sent=False)] * 100_000
    with pytest.raises(ServerUnreachable) as caught:
        await run(source, server, patience=0)
    assert "goes on where it stopped" in caught.value.body["fix"]["hint"]
    saved = read_mark(source, new_mark(source).place)
    assert saved is not None and not saved.finished and saved.line == 0


@given(stops=st.lists(st.integers(1, 6), max_size=4), batch=st.integers(1, 5))
async def test_import_when_stopped_anywhere_and_resumed_then_rows_and_rejects_stand_once(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], batch: int
) -> None:
    source, server = tmp_path_factory.mktemp("stops") / "a.csv", Server()
    rows = [f"p{n}@example.com," if n % 3 else f"broken{n}," for n in range(20)]
    source.write_text("\n".join(["E-Mail,Phone", *rows]) + "\n")
    mark = new_mark(source)
    gone = TransportFailure(TransportFault.CONNECT_FAILED, "gone", was_sent=False)
    for answers in stops:
        real, left = server.send, iter(range(answers))

        async def failing(request: HttpRequest, real: Any = real, left: Any = left) -> HttpResponse:
            if next(left, None) is None:
                raise gone
            answer: HttpResponse = await real(request)
            return answer

        server.send = failing  # type: ignore[method-assign]
        try:
            await run(source, server, mark, batch=batch, patience=-1)
        except ServerUnreachable:
            mark = read_mark(source, mark.place) or mark
        server.send = real  # type: ignore[method-assign]
    if not mark.finished:
        mark, _ = await run(source, server, mark, batch=batch)
    assert mark.read == 20 and mark.rejected == 7
    assert mark.accepted + mark.replayed == 13 == len(server.known)
    found = list(csv.DictReader(source.with_name("a.csv.rejects.csv").open(encoding="utf-8-sig")))
    assert [int(row["line"]) for row in found] == [n + 2 for n in range(0, 20, 3)]


async def test_import_when_the_server_takes_small_bodies_only_then_batches_are_halved(tmp_path: Path) -> None:
    source, server = people(tmp_path / "a.csv", 16), Server()
    server.most_bytes = 700
    mark, _ = await run(source, server, batch=16)
    assert mark.accepted == 16 and max(server.batches) < 16


async def test_import_when_the_server_refuses_a_row_then_it_is_rejected_with_the_field(
    tmp_path: Path,
) -> None:
    source, server = people(tmp_path / "a.csv", 3), Server()
    fields = [{"field": "lead.email", "message": "is blocked"}]
    server.refuse = {"p1@example.com": {"code": "validation_error", "message": "no", "fields": fields}}
    mark, _ = await run(source, server)
    assert (mark.accepted, mark.rejected) == (2, 1)
    rejects = list(csv.DictReader((tmp_path / "a.csv.rejects.csv").open(encoding="utf-8-sig")))
    assert rejects[0]["reason"] == "lead.email: is blocked" and rejects[0]["line"] == "3"


async def test_import_when_nothing_is_connected_then_it_stops_with_that_error(tmp_path: Path) -> None:
    source, server = people(tmp_path / "a.csv", 3), Server()
    server.refuse = {"p0@example.com": {"code": "not_configured", "message": "no CRM"}}
    with pytest.raises(Problem) as caught:
        await run(source, server)
    assert caught.value.code == "not_configured"
    assert not (tmp_path / "a.csv.rejects.csv").exists()


# ---------------------------------------------------------------- cleaning


def test_fields_when_a_fact_has_no_slot_then_it_is_kept_in_the_message() -> None:
    mapping: dict[str, str | None] = {"P": "phone", "B": "budget_max", "Beds": "bedrooms", "M": "message"}
    cleaner = Cleaner("lead", mapping, SLOTS, region="AE")
    found = cleaner.fields({"P": "050 123 4567 ext. 9", "B": "AED 1,000", "Beds": "3", "M": "hello"})
    assert found["phone"] == "+971501234567" and found["budget_max"] == "1000"
    assert found["message"] == "hello\nExtension of phone: 9\nBeds: 3\nCurrency: AED"
    assert "bedrooms" not in found


def test_fields_when_cells_are_wrong_then_every_column_is_named_and_no_cell_is_told() -> None:
    cleaner = Cleaner("lead", {"E": "email", "P": "phone"}, SLOTS, region="AE")
    with pytest.raises(SpoiltRow) as caught:
        cleaner.fields({"E": "hidden-text", "P": "secret-text"})
    assert "E: " in str(caught.value) and "P: " in str(caught.value)
    assert "hidden" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["Nope=email", "E-Mail=nope", "E-Mail"])
def test_mapping_when_the_option_names_what_is_not_there_then_usage_problem(option: str) -> None:
    with pytest.raises(UsageProblem):
        choose_mapping(("E-Mail",), SLOTS, option)


def test_mapping_when_no_column_means_a_slot_then_says_how_to_name_them() -> None:
    with pytest.raises(UsageProblem) as caught:
        choose_mapping(("x1", "x2"), SLOTS, "")
    assert "--map" in caught.value.body["fix"]["hint"]


def test_slots_when_read_from_mappings_then_read_only_ones_do_not_reach() -> None:
    lines: list[dict[str, Any]] = [
        {"object": "lead", "slot": "email", "type": "email", "rule": {"path": "e", "direction": "both"}},
        {"object": "lead", "slot": "value", "type": "money", "rule": {"path": "v", "direction": "read"}},
        {"object": "lead", "slot": "area", "type": "text", "rule": None},
        {"object": "deal", "slot": "name", "type": "text", "rule": {"path": "n"}},
    ]
    slots = slots_from("lead", "real_estate", lines)
    assert slots.mapped == {"email"} and set(slots.types) == {"email", "value", "area"}
    assert slots_from("lead", "real_estate", lines, keeps_unknown=True).reaches("area")


# ---------------------------------------------------------------- marks


def test_mark_when_written_for_two_places_then_both_stay(tmp_path: Path) -> None:
    source = people(tmp_path / "a.csv", 1)
    one = new_mark(source)
    other = msgspec.structs.replace(one, tenant="u", line=5)
    write_mark(source, one)
    write_mark(source, other)
    assert read_mark(source, one.place) == one and read_mark(source, other.place) == other


@pytest.mark.parametrize("text", ["", "{", '{"imports": [{"line": 1}]}', "[]", '{"imports": 3}'])
def test_mark_when_the_file_is_broken_then_there_is_none(tmp_path: Path, text: str) -> None:
    source = people(tmp_path / "a.csv", 1)
    mark_path(source).write_text(text)
    assert read_mark(source, new_mark(source).place) is None


def test_lock_when_another_import_runs_then_problem(tmp_path: Path) -> None:
    source = people(tmp_path / "a.csv", 1)
    with import_lock(source), pytest.raises(Problem), import_lock(source):
        pass


# ---------------------------------------------------------------- following


async def test_follow_when_writes_are_given_up_then_reasons_are_counted() -> None:
    pages = [{"accepted": 2, "applied": 1}, {"applied": 1, "dead_letter": 2}]

    class Asked:
        async def send(self, request: HttpRequest) -> HttpResponse:
            if request.query.get("state") == "dead_letter":
                error = {
                    "code": "validation_error",
                    "fields": [{"field": "lead.email", "message": "is taken"}],
                }
                writes = [
                    {
                        "targets": [
                            {"state": "applied", "connection": "primary"},
                            {"state": "dead_letter", "connection": "second", "error": error},
                        ]
                    }
                ] * 2
                return HttpResponse.of_json(200, {"writes": writes, "next_cursor": "", "counts": {}})
            if request.query.get("state"):
                return HttpResponse.of_json(200, {"writes": [], "next_cursor": "", "counts": {}})
            return HttpResponse.of_json(200, {"writes": [], "counts": pages.pop(0), "next_cursor": ""})

    async with Client("http://127.0.0.1:1", "k", transport=Asked()) as client:
        target = Target(tenant="t", object="lead", import_id="i")
        found = await follow(client, target, Watch(), began=0.0)
    assert (found.applied, found.given_up, found.pending) == (1, 2, 0)
    assert found.reasons == [Reason(2, "validation_error: lead.email: is taken", "second")]
    assert found.reasons[0].told == "second: validation_error: lead.email: is taken"
    assert json.dumps(found.counts)


async def test_follow_when_records_clash_then_they_are_one_reason_whatever_their_ids() -> None:
    class Clashing:
        async def send(self, request: HttpRequest) -> HttpResponse:
            writes = []
            if request.query.get("state") == "dead_letter":
                for number in ("101", "102", "103"):
                    error = {
                        "code": "conflict",
                        "message": f"Exists: {number}",
                        "existing_remote_id": number,
                    }
                    writes.append({"targets": [{"state": "dead_letter", "error": error}]})
            return HttpResponse.of_json(200, {"counts": {"dead_letter": 3}, "writes": writes})

    async with Client("http://127.0.0.1:1", "k", transport=Clashing()) as client:
        found = await follow(client, Target(tenant="t", object="lead", import_id="i"), Watch(), began=0)
    assert found.reasons == [Reason(3, "conflict: Exists: …")]
