"""tools/spec_check.py on a small API of our own: what agrees passes, and each deliberate mismatch is found."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tools import spec_check
from tools.openapi.documents import Document, SpecProblem, candidates, load_document
from tools.openapi.judging import Judge
from tools.openapi.traffic import Exchange

from crmbridge.conformance.cases import expect
from crmbridge.conformance.harness import Harness
from crmbridge.core.driver import CrmDriver
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.emulation import Emulator, Incoming, route

NOTE = {
    "type": "object",
    "required": ["id", "text"],
    "properties": {
        "id": {"type": "string"},
        "text": {"type": "string"},
        "pinned": {"type": "boolean"},
        "mood": {"type": "string", "enum": ["glad", "sad"]},
        "written": {"type": "string", "format": "date-time"},
        "parent": {"type": "string", "nullable": True},
        "weight": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
    },
}
REF = {"$ref": "#/components/schemas/Note"}
PROBLEM = {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}}
SPEC: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Notes", "version": "1"},
    "servers": [{"url": "https://api.notes.example/v1"}],
    "paths": {
        "/notes": {
            "get": {
                "parameters": [
                    {"name": "limit", "in": "query", "required": True, "schema": {"type": "integer"}},
                    {"name": "X-Room", "in": "header", "required": True, "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"type": "array", "items": REF}}}}
                },
            },
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["text"],
                                "properties": {"text": {"type": "string"}},
                                "additionalProperties": False,
                            }
                        }
                    },
                },
                "responses": {
                    "201": {"content": {"application/json": {"schema": REF}}},
                    "default": {"content": {"application/json": {"schema": PROBLEM}}},
                },
            },
        },
        "/notes/mine": {"get": {"responses": {"204": {"description": "nothing"}}}},
        "/notes/{id}": {
            "get": {
                "responses": {
                    "200": {"content": {"application/json": {"schema": REF}}},
                    "4XX": {"content": {"application/json": {"schema": PROBLEM}}},
                }
            }
        },
        "/token": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {"required": ["life"], "properties": {"life": {"type": "integer"}}}
                        }
                    }
                },
                "responses": {"200": {"description": "a token"}},
            }
        },
    },
    "components": {"schemas": {"Note": NOTE}},
}


class NotesEmulator(Emulator):
    slug = "notes"
    wrong: ClassVar[dict[str, Any]] = {}

    def shown(self, number: str, text: str) -> dict[str, Any]:
        return {"id": number, "text": text, "written": "2026-11-22T09:00:00Z", "parent": None, **self.wrong}

    @route("POST", "/v1/notes", operation="create")
    def create(self, call: Incoming) -> HttpResponse:
        row = self.store.numbered("notes").insert(call.json)
        return self.answer(self.shown(str(row.id), call.json.get("text", "")), 201)

    @route("GET", "/v1/notes/{id}", operation="get")
    def get(self, call: Incoming) -> HttpResponse:
        row = self.store.numbered("notes").get(int(call.params["id"]))
        return self.answer(self.shown(str(row.id), "x")) if row else self.answer({"code": "missing"}, 404)


class NotesDriver(CrmDriver):
    """Only as much of a driver as sends requests."""

    MANIFEST = Manifest(
        slug="notes", display_name="Notes", api_version="1", pages=(), read_on="2026-11-22",
        auth=Auth(kind=AuthKind.NONE),
    )  # fmt: skip

    async def send(self, method: str, path: str, body: Any = None) -> HttpResponse:
        request = HttpRequest(method=method, url=f"https://notes.emulator.test/v1{path}")
        if body is not None:
            request.json = body
        return await self.access.transport.send(request)


class OneNote(Harness):
    """A contract of one case."""

    emulator: ClassVar[type[Emulator] | None] = NotesEmulator
    body: ClassVar[dict[str, Any]] = {"text": "x"}

    async def test_a_note_is_made_and_read(self) -> None:
        bench = await self.make(is_prepared=False)
        driver: Any = bench.driver
        made = await driver.send("POST", "/notes", self.body)
        expect(made.status == 201, "not made")
        await driver.send("GET", "/notes/1")
        await driver.send("GET", "/notes/999")
        bench.emulator.faults.add("html")
        await driver.send("GET", "/notes/1")


class Notes(OneNote):
    driver: ClassVar[type[CrmDriver]] = NotesDriver


class LooseEmulator(NotesEmulator):
    wrong: ClassVar[dict[str, Any]] = {"id": 7, "mood": "angry", "written": "yesterday"}


class NotesAnsweredWrongly(OneNote):
    driver: ClassVar[type[CrmDriver]] = NotesDriver
    emulator: ClassVar[type[Emulator] | None] = LooseEmulator


class NotesSentWrongly(OneNote):
    driver: ClassVar[type[CrmDriver]] = NotesDriver
    body: ClassVar[dict[str, Any]] = {"txt": "x"}


HERE = "tests.unit.test_spec_check"


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(SPEC))
    return path


@pytest.fixture(autouse=True)
def no_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contract alone: the wrong ones beside it are for their own tests."""
    monkeypatch.setattr(spec_check, "contracts_of", lambda target: [globals()[target.partition(":")[2]]])


def run(contract: str, spec_file: Path, *more: str) -> int:
    return spec_check.main(["--driver", f"{HERE}:{contract}", "--spec", str(spec_file), *more])


# -- the command --------------------------------------------------------------------------------------------------


def test_check_when_all_agrees_then_a_table_and_exit_0(
    spec_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("Notes", spec_file) == 0
    told = capsys.readouterr().out
    assert "GET /notes/{id}      3         0  200x1 404x1 faultx1" in told
    assert told.strip().endswith("4 exchanges: agrees")


def test_check_when_the_emulator_answers_otherwise_then_each_mismatch_is_found(
    spec_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("NotesAnsweredWrongly", spec_file, "--json") == 1
    found = {
        (one["operation"], one["where"]): one["problem"]
        for one in json.loads(capsys.readouterr().out)["findings"]
    }
    assert found["POST /notes", "id"] == "is integer, and the file says string"
    assert found["GET /notes/{id}", "id"] == "is integer, and the file says string"
    assert found["POST /notes", "mood"] == "is 'angry', and the file allows ['glad', 'sad']"
    assert found["POST /notes", "written"] == "is no date-time"
    assert {operation for operation, _ in found} == {"POST /notes", "GET /notes/{id}"}


def test_check_when_the_driver_sends_otherwise_then_found(
    spec_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("NotesSentWrongly", spec_file, "--json") == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {(one["side"], one["operation"], one["where"]) for one in found} == {
        ("request", "POST /notes", "body")
    }
    assert any("'text' is a required property" in one["problem"] for one in found)
    assert any("'txt' was unexpected" in one["problem"] for one in found)


def test_check_when_a_difference_is_known_then_passed_over_and_listed(
    spec_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("NotesAnsweredWrongly", spec_file, "--allow", "answer * 20?*", "--allow", "answer never") == 0
    told = capsys.readouterr().out
    assert "known (1x) answer POST /notes 201 id: is integer" in told
    assert "unused pattern of a known difference: answer never" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ('{"swagger": "2.0"}', "no OpenAPI 3.0"), ('{"openapi": "3.0.0"}', "no paths")],
)
def test_check_when_the_file_is_unfit_then_exit_2_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert run("Notes", path) == 2
    assert said in capsys.readouterr().err


def test_check_when_the_contract_fails_then_not_agreed(
    spec_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotesEmulator, "create", lambda self, call: self.answer({"code": "no"}, 500))
    assert run("Notes", spec_file) == 1
    assert "the contract is broken: test_a_note_is_made_and_read: not made" in capsys.readouterr().out


def test_differences_when_one_has_no_reason_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "differences.toml"
    path.write_text('[[notes]]\nmatch = "answer *"\n')
    with pytest.raises(SpecProblem, match="needs a reason"):
        spec_check.known_differences("notes", path)
    assert spec_check.known_differences("others", path) == []


def test_differences_when_committed_then_each_has_a_reason() -> None:
    assert all(spec_check.known_differences("hubspot"))


# -- judging ------------------------------------------------------------------------------------------------------


def judged(exchange: Exchange, *, tree: dict[str, Any] = SPEC, strict_null: bool = False) -> list[str]:
    _, findings = Judge([Document("notes.json", tree)], strict_null=strict_null).exchange(exchange)
    return [str(one) for one in findings]


def read(note: dict[str, Any], status: int = 200) -> Exchange:
    body = json.dumps(note).encode()
    return Exchange("GET", "/v1/notes/1", status=status, answer=body, answer_kind="application/json")


def test_paths_when_one_is_literal_then_it_wins_and_others_do_not_fit() -> None:
    document = Document("notes.json", SPEC)
    assert [one.template for one in candidates([document], "GET", "/v1/notes/mine")] == ["/notes/mine"]
    assert [one.template for one in candidates([document], "GET", "/v1/notes/8")] == ["/notes/{id}"]
    assert candidates([document], "GET", "/notes/8") == []
    assert candidates([document], "DELETE", "/v1/notes/8") == []
    assert judged(Exchange("DELETE", "/v1/notes/8")) == [
        "request DELETE /v1/notes/8: no file has this operation"
    ]


def test_request_when_query_or_headers_differ_then_each_is_told() -> None:
    found = judged(Exchange("GET", "/v1/notes", query={"limit": ["ten"], "sort": ["up"]}))
    assert "request GET /notes query/sort: is not declared" in found
    assert "request GET /notes query/limit: is string, and the file says integer" in found
    assert "request GET /notes header/X-Room: is required" in found
    assert judged(Exchange("GET", "/v1/notes", query={"limit": ["10"]}, headers={"x-room": "1"})) == []
    assert "request GET /notes query/limit: is required" in judged(Exchange("GET", "/v1/notes"))


def test_request_when_a_form_then_read_in_the_declared_types() -> None:
    kind = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    assert judged(Exchange("POST", "/v1/token", headers=kind, body=b"life=5")) == []
    found = judged(Exchange("POST", "/v1/token", headers=kind, body=b"life=long"))
    assert found == ["request POST /token body/life: is string, and the file says integer"]
    (other,) = judged(Exchange("POST", "/v1/token", body=b"{}"))
    assert "is application/json, and the file declares application/x-www-form-urlencoded" in other


def test_request_when_the_body_is_missing_or_broken_then_told() -> None:
    assert judged(Exchange("POST", "/v1/notes")) == ["request POST /notes body: is required"]
    assert judged(Exchange("POST", "/v1/notes", body=b"{")) == [
        "request POST /notes body: is no application/json"
    ]


def test_answer_when_status_or_kind_is_not_declared_then_told() -> None:
    (found,) = judged(read({"id": "1", "text": "x"}, 202))
    assert "answer GET /notes/{id} 202: is not declared" in found
    (found,) = judged(read({"id": "1", "text": "x"}, 500))
    assert "is not declared" in found
    page = Exchange("GET", "/v1/notes/1", status=404, answer=b"<html>", answer_kind="text/html")
    assert judged(page) == [
        "answer GET /notes/{id} 404: is text/html, and the file declares application/json"
    ]
    assert judged(read({"code": "missing"}, 404)) == []
    assert judged(read({}, 404)) == ["answer GET /notes/{id} 404: 'code' is a required property"]
    empty = Exchange("GET", "/v1/notes/mine", status=204, answer=b"{}", answer_kind="application/json")
    assert judged(empty) == ["answer GET /notes/mine 204: has a body, and the file declares none"]


def test_answer_when_nulls_are_not_declared_then_only_strictly_told() -> None:
    note = {"id": "1", "text": "x", "mood": None, "parent": None}
    assert judged(read(note)) == []
    (found,) = [one for one in judged(read(note), strict_null=True) if "says string" in one]
    assert "mood: is null, and the file says string" in found


def test_answer_when_30_has_an_exclusive_bound_then_kept() -> None:
    assert judged(read({"id": "1", "text": "x", "weight": 1})) == []
    (found,) = judged(read({"id": "1", "text": "x", "weight": 0}))
    assert "weight: breaks exclusiveMinimum" in found


def test_answer_when_31_lists_types_then_null_is_one_of_them() -> None:
    tree = deepcopy(SPEC)
    tree["openapi"] = "3.1.0"
    tree["components"]["schemas"]["Note"] = {
        "type": "object",
        "properties": {"mood": {"type": ["string", "null"]}, "text": {"type": "string"}},
    }
    found = judged(read({"mood": None, "text": None}), tree=tree, strict_null=True)
    assert found == ["answer GET /notes/{id} 200 text: is null, and the file says string"]


def test_file_when_it_points_to_what_it_leaves_out_then_passed_over_and_told() -> None:
    tree = deepcopy(SPEC)
    tree["paths"]["/notes/{id}"]["get"]["parameters"] = [{"$ref": "#/components/parameters/None"}]
    tree["components"]["schemas"]["Note"]["properties"]["mood"] = {"$ref": "#/components/schemas/Mood"}
    document = Document("notes.json", tree)
    assert Judge([document]).exchange(read({"id": "1", "text": "x", "mood": "glad"})) == (
        "GET /notes/{id}",
        [],
    )
    assert document.problems == {
        "notes.json: #/components/parameters/None leads nowhere",
        "notes.json: Mood of notes.json leads nowhere",
    }


def test_file_when_it_refers_to_another_given_file_then_followed() -> None:
    tree = deepcopy(SPEC)
    tree["components"]["schemas"]["Note"]["properties"]["mood"] = {
        "$ref": "https://specs.example/moods.json#/components/schemas/Mood"
    }
    wrong = read({"id": "1", "text": "x", "mood": "angry"})
    moods: dict[str, Any] = {"openapi": "3.0.0", "paths": {}}
    moods["components"] = {
        "schemas": {"Mood": {"$ref": "#/components/schemas/Word"}, "Word": {"enum": ["glad"]}}
    }
    alone = Document("notes.json", tree)
    assert Judge([alone]).exchange(wrong)[1] == []
    assert alone.problems == {"notes.json: Mood of moods.json is in a file that was not given"}
    _, (found,) = Judge([Document("notes.json", tree), Document("moods.json", moods)]).exchange(wrong)
    assert str(found).endswith("mood: is 'angry', and the file allows ['glad']")


def test_answer_when_there_are_alternatives_then_the_nearest_one_is_told() -> None:
    tree = deepcopy(SPEC)
    many = {"type": "object", "required": ["notes", "next"], "properties": {"notes": {"type": "array"}}}
    schema = tree["paths"]["/notes/{id}"]["get"]["responses"]["200"]["content"]["application/json"]
    schema["schema"] = {"oneOf": [{"type": "array"}, many, REF, {**REF}]}
    assert judged(read({"id": "1", "text": "x"}), tree=tree) == []
    assert judged(read({"id": 1, "text": "x"}), tree=tree) == [
        "answer GET /notes/{id} 200 id: is integer, and the file says string"
    ]


def test_fixture_when_it_is_some_declared_answer_then_named_and_else_what_is_missing() -> None:
    judge = Judge([Document("notes.json", SPEC)])
    assert judge.fixture("note.made", {"id": "1", "text": "x"}) == ("POST /notes 201", [])
    assert judge.fixture("error.missing", {"code": "missing"}) == ("POST /notes default", [])
    _, (found,) = judge.fixture("note.nameless", {"id": "1", "mood": "glad"})
    assert str(found) == "fixture note.nameless: 'text' is a required property"
    _, (found,) = judge.fixture("error.strange", {"reason": "?"})
    assert found.problem == "shares no name with any declared answer"


def test_file_when_yaml_then_read_alike_and_references_must_lead_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "notes.yaml"
    path.write_text(json.dumps(SPEC))  # JSON is YAML
    assert load_document(path).tree == SPEC
    path.write_text("a: [")
    with pytest.raises(SpecProblem, match="no YAML"):
        load_document(path)
    with pytest.raises(SpecProblem, match="leads nowhere"):
        Document("notes.json", SPEC).resolved({"$ref": "#/components/schemas/Nothing"})
