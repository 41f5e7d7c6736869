"""The Odoo driver against an unmodified Odoo 19 on loopback (``tools/real_odoo``), through the real egress.

Without a server these tests are skipped with the reason; with ``CI=true`` they fail instead. The last part
sends the same raw calls to the server and to the emulator and compares what comes back: the server is the
emulator's witness.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from crmbridge.conformance import LiveContract
from crmbridge.core.driver import Access, CrmDriver, Proof
from crmbridge.core.errors import AuthError, CrmError, NotConfigured, NotFound, Unavailable, ValidationError
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Filter, Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.wire import HttpRequest, HttpResponse
from crmbridge.drivers.odoo.driver import Odoo
from crmbridge.drivers.odoo.emulator import OdooEmulator
from crmbridge.emulation import InProcessTransport
from crmbridge.toolkit.egress import Egress, EgressPolicy

pytestmark = pytest.mark.real_odoo
TOOL = Path(__file__).parents[2] / "tools" / "real_odoo"
NAMES = ("ODOO_URL", "ODOO_DB", "ODOO_USER", "ODOO_API_KEY", "ODOO_LIMITED_USER", "ODOO_LIMITED_API_KEY")
IS_CI = os.environ.get("CI", "").lower() == "true"


def _target() -> dict[str, str]:
    """Where the server is: the environment, else what the tool says."""
    found = {name: os.environ[name] for name in NAMES if name in os.environ}
    if "ODOO_URL" not in found and TOOL.exists():
        said = subprocess.run([str(TOOL), "env"], capture_output=True, text=True, timeout=20, check=False)
        pairs = (line.partition("=") for line in said.stdout.splitlines())
        found |= {name: value for name, _, value in pairs if name in NAMES}
    return found


async def _answers(url: str) -> bool:
    split = urlsplit(url)
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(split.hostname, split.port), 2)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


TARGET = _target()
REASON = "no Odoo answers; start one with tools/real_odoo (or set ODOO_URL, ODOO_DB, ODOO_USER, ODOO_API_KEY)"
IS_THERE = "ODOO_API_KEY" in TARGET and asyncio.run(_answers(TARGET["ODOO_URL"]))
SETTINGS = {
    "url": TARGET.get("ODOO_URL", "http://127.0.0.1:28069"),
    "database": TARGET.get("ODOO_DB", ""),
    "username": TARGET.get("ODOO_USER", ""),
}
KEY = TARGET.get("ODOO_API_KEY", "")
LINKED: dict[Object, tuple[Object, ...]] = {
    Object.NOTE: (Object.CUSTOMER,),
    Object.ACTIVITY: (Object.LEAD,),
    Object.APPOINTMENT: (Object.CUSTOMER,),
}


@pytest.fixture(autouse=True)
def server() -> None:
    """Skips or, in CI, fails where there is no server."""
    if not IS_THERE and IS_CI:
        pytest.fail(REASON)
    if not IS_THERE:
        pytest.skip(REASON)


class TestOdooLive(LiveContract):
    driver: ClassVar[type[CrmDriver]] = Odoo
    live_settings: ClassVar[dict[str, str]] = SETTINGS
    live_secrets: ClassVar[dict[str, str]] = {"api_key": KEY}
    egress_allow: ClassVar[tuple[str, ...]] = ("127.0.0.1",)
    linked: ClassVar[dict[Object, tuple[Object, ...]]] = LINKED
    refused: ClassVar[dict[Object, dict[str, Any]]] = {Object.CUSTOMER: {"country_id": {"code": "XX"}}}
    server_error_is_certain: ClassVar[str] = "an error object means that the transaction was rolled back"


class TestOdooLiveOverJsonRpc(TestOdooLive):
    """The calls of older versions; the server still takes them."""

    async def make(self, **more: Any) -> Any:
        bench = await super().make(**more)
        if bench.access.facts:
            bench.access.facts |= {"server_version": "18.0", "api": "jsonrpc"}
            bench.open()
        return bench


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress(EgressPolicy(allow=("127.0.0.1",)))
    yield made
    await made.close()


def odoo(egress: Egress, *, key: str = KEY, facts: dict[str, str] | None = None, **settings: str) -> Odoo:
    return Odoo(
        Access(
            settings={**SETTINGS, **settings},
            secrets={"api_key": Secret(key)},
            transport=egress,
            facts=dict(facts or {}),
            mark_prefix="tests",
        )
    )


def write(fields: dict[str, Any], obj: Object = Object.LEAD, **more: Any) -> Write:
    return Write(
        **{"target_id": str(uuid.uuid4()), "operation": Operation.CREATE, "object": obj, **more},
        fields=fields,
    )


BOTH = pytest.mark.parametrize("version", ["", "18.0"], ids=["json2", "jsonrpc"])


@BOTH
async def test_key_when_wrong_then_auth_error_with_a_hint(egress: Egress, version: str) -> None:
    with pytest.raises(AuthError) as caught:
        await odoo(egress, key="0" * 40, facts={"server_version": version}).test_connection()
    assert caught.value.subcode == "invalid_credentials"
    assert "90 days" in caught.value.fix.hint


@BOTH
async def test_database_when_wrong_then_named(egress: Egress, version: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        await odoo(egress, database="nope", facts={"server_version": version}).test_connection()
    assert caught.value.fields[0].field == "database"


async def test_server_when_down_then_unavailable_and_certain(egress: Egress) -> None:
    driver = odoo(egress, url="http://127.0.0.1:28999", facts={"server_version": "19.0"})
    with pytest.raises(Unavailable) as caught:
        await driver.create_record(write({"name": "L"}))
    assert (caught.value.outcome, caught.value.retry_safe) == (Outcome.NOT_APPLIED, True)


async def test_rights_when_user_is_limited_then_named_at_connect_and_on_write(egress: Egress) -> None:
    key, username = TARGET["ODOO_LIMITED_API_KEY"], TARGET["ODOO_LIMITED_USER"]
    driver = odoo(egress, key=key, username=username)
    proof: Proof = await driver.test_connection()
    assert {"crm.lead: read", "crm.lead: create", "res.partner: create"} <= {*proof.missing_rights}
    with pytest.raises(AuthError) as caught:
        await driver.create_record(write({"name": "L"}))
    assert caught.value.subcode == "insufficient_scope"
    assert caught.value.provider_facts["model"] == "crm.lead"


@BOTH
@pytest.mark.parametrize(
    ("fields", "field"),
    [({"name": "L", "x_nofield": "1"}, "x_nofield"), ({"email": "a@example.com"}, "name")],
    ids=["unknown", "required"],
)
async def test_field_when_unknown_or_missing_then_named(
    egress: Egress, version: str, fields: dict[str, Any], field: str
) -> None:
    driver = odoo(egress, facts={"server_version": version})
    with pytest.raises(ValidationError) as caught:
        await driver.create_record(write(fields, Object.CUSTOMER))
    assert [each.field for each in caught.value.fields] == [field]


@BOTH
async def test_record_when_gone_then_not_found(egress: Egress, version: str) -> None:
    driver = odoo(egress, facts={"server_version": version})
    lead = (await driver.create_record(write({"name": "L"}))).remote_id
    assert await driver.delete_record(Object.LEAD, lead) is DeleteLevel.HARD
    gone: list[Any] = [
        driver.get_record(Object.LEAD, lead),
        driver.delete_record(Object.LEAD, lead),
        driver.update_record(write({"name": "M"}, operation=Operation.UPDATE, remote_id=lead)),
        driver.create_record(write({"body": "x"}, Object.NOTE, links={"lead": lead})),
    ]
    for call in gone:
        with pytest.raises(NotFound):
            await call


@BOTH
async def test_batch_when_one_row_of_200_is_bad_then_199_stand(egress: Egress, version: str) -> None:
    driver = odoo(egress, facts={"server_version": version})
    word = uuid.uuid4().hex
    writes = [
        write({"name": f"{word} {n}", "type": "lead", "expected_revenue": "x" if n == 77 else "5"})
        for n in range(200)
    ]
    results = await driver.write_batch(writes)
    assert [n for n, result in enumerate(results) if result.error] == [77]
    assert isinstance(results[77].error, ValidationError)
    first = await driver.get_record(Object.LEAD, results[0].remote_id)
    assert first.native["name"] == f"{word} 0"
    found = await driver.search_records(Object.LEAD, Filter(text=word, limit=200))
    assert len(found.records) == 199
    done = await driver.write_batch(
        [
            write({}, operation=Operation.DELETE, remote_id=each.remote_id)
            for each in results
            if each.remote_id
        ]
    )
    assert {result.delete_level for result in done} == {"hard"}


async def test_batch_when_fields_differ_then_one_call_and_the_same_records(egress: Egress) -> None:
    driver = odoo(egress, facts={"server_version": "19.0"})
    optional = ("phone", "city", "contact_name", "description", "email_from", "expected_revenue")
    values = {"description": "<p>d</p>", "email_from": "a@example.com", "expected_revenue": 7.0}
    writes = []
    for n in range(64):
        given = {name: values.get(name, name) for bit, name in enumerate(optional) if n >> bit & 1}
        writes.append(write({"name": "mixed", "type": "lead", **given}))
    results = await driver.write_batch(writes)
    singly = [await driver.create_record(write(each.fields)) for each in writes[::7]]
    skipped = {"id", "create_date", "write_date", "date_open", "day_open", "date_last_stage_update"}
    # Odoo scores a lead by the leads that are there at that moment, and those differ between the two.
    skipped |= {"probability", "automated_probability", "prorated_revenue", "recurring_revenue_prorated"}
    skipped |= {"recurring_revenue_monthly_prorated"}
    for together, alone in zip(results[::7], singly, strict=True):
        natives = [
            (await driver.get_record(Object.LEAD, each.remote_id)).native for each in (together, alone)
        ]
        one, two = ({name: value for name, value in each.items() if name not in skipped} for each in natives)
        assert one == two
    for result in (*results, *singly):
        await driver.delete_record(Object.LEAD, result.remote_id)


class Cutter:
    """A TCP proxy on loopback that forwards requests and, when told, drops the reply."""

    def __init__(self) -> None:
        self.is_cutting = False
        self.port = 0

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        split = urlsplit(SETTINGS["url"])
        there, back = await asyncio.open_connection(split.hostname, split.port)
        copying = asyncio.create_task(self._copy(reader, back))
        reply = await there.read()  # Odoo closes after each answer
        if not self.is_cutting:
            writer.write(reply)
            await writer.drain()
        copying.cancel()
        for each in (back, writer):
            each.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()


@BOTH
@pytest.mark.parametrize("obj", [Object.LEAD, Object.NOTE], ids=["lead", "note"])
async def test_create_when_the_reply_is_really_cut_then_found_and_never_doubled(
    egress: Egress, version: str, obj: Object
) -> None:
    word = uuid.uuid4().hex
    direct = odoo(egress, facts={"server_version": version})
    lead = (await direct.create_record(write({"name": "carrier"}))).remote_id
    fields = {"name": word, "type": "lead"} if obj is Object.LEAD else {"body": f"<p>{word}</p>"}
    lost = write(fields, obj, links={"lead": lead} if obj is Object.NOTE else {})
    async with Cutter() as cutter:
        facts = (await direct.test_connection()).facts | ({"server_version": version} if version else {})
        driver = odoo(egress, url=f"http://127.0.0.1:{cutter.port}", facts=facts)
        assert (await driver.find_written(lost)).outcome is Outcome.NOT_APPLIED
        cutter.is_cutting = True
        with pytest.raises(Unavailable) as caught:
            await driver.create_record(lost)
        assert (caught.value.outcome, caught.value.retry_safe) == (Outcome.UNKNOWN, False)
        cutter.is_cutting = False
        found = await driver.find_written(lost)
        assert found.outcome is Outcome.APPLIED
        assert (await driver.create_record(lost)).remote_id == found.remote_id
    page = await direct.search_records(obj, Filter(text=word))
    assert [record.remote_id for record in page.records] == [found.remote_id]
    await direct.delete_record(obj, found.remote_id)
    await direct.delete_record(Object.LEAD, lead)


async def test_create_when_eight_at_once_then_one_record(egress: Egress) -> None:
    """The losers are told so inside a 200; that error may be retried, and then finds the winner's record."""
    driver = odoo(egress, facts={"server_version": "19.0"})
    same = write({"name": uuid.uuid4().hex, "type": "lead"})
    results = await asyncio.gather(*(driver.write_one(same) for _ in range(8)))
    for result in results:
        if isinstance(result.error, CrmError):
            assert isinstance(result.error, Unavailable) and result.error.retry_safe
    ids = {result.remote_id for result in results if result.outcome is Outcome.APPLIED}
    assert len(ids) == 1
    assert (await driver.create_record(same)).remote_id in ids
    await driver.delete_record(Object.LEAD, ids.pop())


# -- the emulator's witness ---------------------------------------------------------------------------------

Probe = tuple[str, str, dict[str, Any]]
DEFINITE: dict[str, Probe] = {
    "context_get": ("res.users", "context_get", {}),
    "has_access": ("crm.lead", "has_access", {"operation": "create"}),
    "has_access with ids": ("res.partner", "has_access", {"operation": "create", "ids": [1]}),
    "create two": ("res.partner", "create", {"vals_list": [{"name": "A"}, {"name": "B"}]}),
    "create a dict": ("res.partner", "create", {"vals_list": {"name": "A"}}),
    "create nothing": ("res.partner", "create", {"vals_list": []}),
    "create without name": ("res.partner", "create", {"vals_list": [{"email": "a@example.com"}]}),
    "create lead without name": ("crm.lead", "create", {"vals_list": [{"type": "lead"}]}),
    "create unknown field": ("res.partner", "create", {"vals_list": [{"name": "A", "nofield": 1}]}),
    "read": ("res.partner", "read", {"ids": [1], "fields": ["name", "email", "country_id", "category_id"]}),
    "read gone": ("res.partner", "read", {"ids": [9_999_999], "fields": ["name"]}),
    "read unknown field": ("res.partner", "read", {"ids": [1], "fields": ["nofield"]}),
    "write gone": ("res.partner", "write", {"ids": [9_999_999], "vals": {"name": "x"}}),
    "write unknown field": ("res.partner", "write", {"ids": [1], "vals": {"nofield": 1}}),
    "unlink gone": ("res.partner", "unlink", {"ids": [9_999_999]}),
    "search": ("res.partner", "search", {"domain": [["name", "=", "no such name"]]}),
    "search without domain": ("res.partner", "search", {}),
    "search with foreign parameter": ("res.partner", "search", {"domain": [], "foo": 1}),
    "search with ids": ("res.partner", "search", {"domain": [], "ids": [1]}),
    "search unknown field": ("res.partner", "search", {"domain": [["nofield", "=", 1]]}),
    "search unknown operator": ("res.partner", "search", {"domain": [["name", "~~", "x"]]}),
    "search unknown order": ("res.partner", "search", {"domain": [], "order": "nofield"}),
    "search past the end": ("res.partner", "search", {"domain": [], "offset": 100_000}),
    "search_count": ("res.partner", "search_count", {"domain": [["id", "=", 1]]}),
    "search_read bare": (
        "res.country",
        "search_read",
        {"domain": [["code", "=", "AE"]], "fields": ["name", "code"], "limit": 1},
    ),
    "unknown model": ("no.model", "search", {"domain": []}),
    "unknown method": ("res.partner", "no_method", {}),
    "private method": ("res.partner", "_search", {}),
    "exists": ("res.partner", "exists", {"ids": [1]}),
    "fields_get": ("crm.lead", "fields_get", {"allfields": ["type"], "attributes": ["type", "required"]}),
    "mark unknown": ("ir.model.data", "check_object_reference", {"module": "crmbridge_x", "xml_id": "nope"}),
    "mark known": ("ir.model.data", "check_object_reference", {"module": "base", "xml_id": "main_partner"}),
    "load": ("crm.lead", "load", {"fields": ["id", "name"], "data": [["crmbridge_parity.l1", "L"]]}),
    "load again": ("crm.lead", "load", {"fields": ["id", "name"], "data": [["crmbridge_parity.l1", "M"]]}),
    "load unknown column": ("crm.lead", "load", {"fields": ["name", "nofield"], "data": [["L", "x"]]}),
    "load unknown id": ("crm.lead", "load", {"fields": [".id", "name"], "data": [["9999999", "L"]]}),
    "load boolean cell": ("crm.lead", "load", {"fields": ["name", "active"], "data": [["L", True]]}),
    "load ISO time": (
        "calendar.event",
        "load",
        {"fields": ["name", "start"], "data": [["V", "2026-12-01T10:00:00Z"]]},
    ),
    "load bad cells": (
        "crm.lead",
        "load",
        {
            "fields": ["name", "type", "expected_revenue", "country_id", "date_deadline"],
            "data": [["L", "lead", "1", "AE", "2026-01-01"], ["L", "zzz", "x", "Nowhere", "2026-13-01"]],
        },
    ),
    "load without name": ("crm.lead", "load", {"fields": ["name", "phone"], "data": [["L", "1"], ["", "2"]]}),
    "load NUL": ("crm.lead", "load", {"fields": ["name"], "data": [["a\x00b"]]}),
    "load note on nothing": (
        "mail.message",
        "load",
        {"fields": ["body", "model", "res_id"], "data": [["x", "crm.lead", "9999999"]]},
    ),
    "unlink message gone": ("mail.message", "unlink", {"ids": [9_999_999]}),
    "unlink contact of a user": ("res.partner", "unlink", {"ids": [0]}),
    "archive contact of a user": ("res.partner", "write", {"ids": [0], "vals": {"active": False}}),
    "get_external_id": ("res.partner", "get_external_id", {"ids": [1]}),
}


def _shape(tree: Any) -> Any:
    """Types and keys; ids and texts differ between two databases."""
    if isinstance(tree, dict):
        return {key: _shape(value) for key, value in sorted(tree.items())}
    if isinstance(tree, list):
        return [_shape(item) for item in tree]
    return type(tree).__name__


def _compared(answer: HttpResponse) -> Any:
    """What must be equal: status, kind of body, error name, field names of load's messages, shape."""
    if not answer.is_json:
        return answer.status, "not JSON"
    tree = answer.json()
    if isinstance(tree, dict) and "debug" in tree:
        return answer.status, sorted(tree), tree["name"]
    if isinstance(tree, dict) and isinstance(tree.get("messages"), list):
        said = sorted((each["record"], each["type"], each.get("field", "")) for each in tree["messages"])
        return answer.status, sorted(tree), _shape(tree["ids"]), said
    if isinstance(tree, dict) and len(tree) == 1:
        return answer.status, list(map(type, tree.values()))
    return answer.status, _shape(tree)


async def _ask(
    transport: Any, probe: Probe, url: str, database: str, key: str, user_partner: int
) -> HttpResponse:
    model, method, named = probe
    if named.get("ids") == [0]:
        named = {**named, "ids": [user_partner]}
    request = HttpRequest(
        method="POST",
        url=f"{url}/json/2/{model}/{method}",
        json={**named, "context": {"lang": "en_US", "tz": "UTC"}},
        headers={"Authorization": f"bearer {key}", "X-Odoo-Database": database},
    )
    answer: HttpResponse = await transport.send(request)
    return answer


@pytest.mark.parametrize("name", list(DEFINITE))
async def test_emulator_when_asked_the_same_then_answers_like_the_server(egress: Egress, name: str) -> None:
    emulator = OdooEmulator()
    in_process = InProcessTransport(emulator)
    there = (egress, SETTINGS["url"], SETTINGS["database"], KEY)
    here = (in_process, emulator.base_url, emulator.settings()["database"], emulator.secrets()["api_key"])
    answers = []
    for transport, url, database, key in (there, here):
        own = (
            "res.users",
            "search_read",
            {"domain": [["login", "=", "crm@odoo.test"]], "fields": ["partner_id"]},
        )
        user = (await _ask(transport, own, url, database, key, 0)).json()
        answers.append(await _ask(transport, DEFINITE[name], url, database, key, user[0]["partner_id"][0]))
    assert _compared(answers[1]) == _compared(answers[0]), (answers[1].body[:300], answers[0].body[:300])


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/web/version", {}),
        ("/json/2/res.users/context_get", {}),
        ("/json/2/res.users/context_get", {"Authorization": "bearer wrong"}),
        ("/json/2/res.users/context_get", {"Authorization": "bearer wrong", "X-Odoo-Database": "nope"}),
        ("/json/2/nothing", {}),
    ],
    ids=["version", "no key", "wrong key", "wrong database", "wrong path"],
)
async def test_emulator_when_not_signed_in_then_answers_like_the_server(
    egress: Egress, path: str, headers: dict[str, str]
) -> None:
    emulator = OdooEmulator()
    answers = []
    for transport, url in ((egress, SETTINGS["url"]), (InProcessTransport(emulator), emulator.base_url)):
        is_get = path == "/web/version"
        request = HttpRequest(
            method="GET" if is_get else "POST", url=url + path, headers={**headers}, json={}
        )
        answers.append(await transport.send(request))
    assert _compared(answers[1]) == _compared(answers[0]), (answers[1].body[:300], answers[0].body[:300])
