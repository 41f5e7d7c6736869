"""odoorpc, the best-known Python client of Odoo, unmodified before the emulated Odoo, over JSON-RPC and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import HTTPSHandler, build_opener

import pytest
from tests.witnesses.loopback import Stage, connected, needed, staged

from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.drivers.odoo.driver import Odoo
from crmbridge.drivers.odoo.emulator import Odoo14Emulator, OdooEmulator

REQUIREMENT = "odoorpc>=0.10.1"
odoorpc: Any = needed("odoorpc", REQUIREMENT)

T = TypeVar("T")


@dataclass
class Scene:
    """The emulated database, and the client of its users."""

    emulator: OdooEmulator
    stage: Stage

    async def ask(self, call: Callable[..., T], *given: Any, **more: Any) -> T:
        """The client blocks, and the emulator answers from this loop."""
        return await asyncio.to_thread(call, *given, **more)

    async def signed_in(self, key: str = "") -> Any:
        """A client with a session; another key than the right one is for refusals."""
        context = ssl.create_default_context(cafile=self.stage.ca_file)
        opener = build_opener(HTTPSHandler(context=context))
        client = await self.ask(
            odoorpc.ODOO, "localhost", protocol="jsonrpc+ssl", port=self.stage.port, opener=opener, timeout=10
        )
        settings = self.emulator.settings()
        given = key or self.emulator.secrets()["api_key"]
        await self.ask(client.login, settings["database"], settings["username"], given)
        return client

    async def model(self, client: Any, name: str) -> Any:
        """The client's class of a model; it asks the server for the fields."""
        return await self.ask(lambda: client.env[name])


@pytest.fixture(params=[OdooEmulator, Odoo14Emulator], ids=["19", "14"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    emulator = request.param()
    async with staged(emulator, tmp_path) as stage:
        yield Scene(emulator, stage)


def values_of(model: Any, number: int, *names: str) -> list[Any]:
    """Attributes of a browsed record; the client reads them when they are touched."""
    record = model.browse(number)
    return [getattr(record, name) for name in names]


async def refused(scene: Scene, call: Callable[..., Any], *given: Any, **more: Any) -> str:
    """The exception's name inside the server."""
    with pytest.raises(odoorpc.error.RPCError) as caught:
        await scene.ask(call, *given, **more)
    return str(caught.value.info["data"]["name"])


async def test_sign_in_when_it_works_then_version_user_and_context(scene: Scene) -> None:
    client = await scene.signed_in()
    assert client.version == scene.emulator.version
    assert client.env.uid == 1
    assert client.env.lang == "en_US"


async def test_sign_in_when_the_key_is_wrong_then_refused(scene: Scene) -> None:
    with pytest.raises(odoorpc.error.RPCError, match="Wrong login"):
        await scene.signed_in("not-the-key")


async def test_record_when_made_read_changed_found_and_removed_then_as_live(scene: Scene) -> None:
    partners = await scene.model(await scene.signed_in(), "res.partner")
    number = await scene.ask(partners.create, {"name": "Mei Lin", "email": "Mei.Lin@Example.com"})
    assert isinstance(number, int)
    seen = await scene.ask(values_of, partners, number, "name", "email_normalized")
    assert seen == ["Mei Lin", "mei.lin@example.com"]
    assert await scene.ask(partners.write, [number], {"city": "Dubai"}) is True
    (row,) = await scene.ask(partners.read, [number], ["city", "name"])
    assert row == {"id": number, "city": "Dubai", "name": "Mei Lin"}
    domain = [["email_normalized", "=", "mei.lin@example.com"]]
    assert await scene.ask(partners.search, domain) == [number]
    assert await scene.ask(partners.search_count, domain) == 1
    assert await scene.ask(partners.unlink, [number]) is True
    assert await scene.ask(partners.search, domain) == []


async def test_pages_when_searched_by_offset_then_each_record_once(scene: Scene) -> None:
    leads = await scene.model(await scene.signed_in(), "crm.lead")
    await scene.ask(leads.create, [{"name": f"Lead {n}", "type": "lead"} for n in range(25)])
    domain = [["type", "=", "lead"]]
    seen: list[int] = []
    for offset in range(0, 30, 10):
        seen += await scene.ask(leads.search, domain, offset=offset, limit=10, order="id")
    assert len(seen) == len(set(seen)) == 25


async def test_schema_when_fields_are_asked_for_then_types_and_requirements(scene: Scene) -> None:
    leads = await scene.model(await scene.signed_in(), "crm.lead")
    fields = await scene.ask(leads.fields_get, attributes=["type", "required"])
    assert fields["name"] == {"type": "char", "required": True}
    assert fields["expected_revenue"]["type"] == "monetary"


async def test_refusals_when_content_rights_or_ids_are_wrong_then_named_by_exception(scene: Scene) -> None:
    client = await scene.signed_in()
    leads = await scene.model(client, "crm.lead")
    number = await scene.ask(leads.create, {"name": "Lead", "type": "lead"})
    assert await refused(scene, leads.create, {"name": "x", "no_such_field": 1}) == "builtins.ValueError"
    assert await refused(scene, leads.write, [999_999], {"name": "x"}) == "odoo.exceptions.MissingError"
    assert await refused(scene, client.execute, "no.such.model", "search", []) == "odoo.exceptions.UserError"
    scene.emulator.orm.denied.add(("crm.lead", "unlink"))
    assert await refused(scene, leads.unlink, [number]) == "odoo.exceptions.AccessError"


async def test_lead_when_the_driver_writes_it_then_the_client_finds_it_by_its_mark(scene: Scene) -> None:
    driver = await connected(Odoo, scene.emulator)
    fields = {"name": "Flat in the Marina", "contact_name": "Mei Lin", "type": "lead"}
    lead = Write(target_id="target-1", operation=Operation.CREATE, object=Object.LEAD, fields=fields)
    (result,) = await driver.write_batch([lead])
    assert result.outcome is Outcome.APPLIED
    client = await scene.signed_in()
    leads = await scene.model(client, "crm.lead")
    seen = await scene.ask(values_of, leads, int(result.remote_id), "name", "contact_name", "type")
    assert seen == ["Flat in the Marina", "Mei Lin", "lead"]
    (mark,) = (await scene.ask(leads.get_external_id, [int(result.remote_id)])).values()
    module, _, name = mark.partition(".")
    found = await scene.ask(client.execute, "ir.model.data", "check_object_reference", module, name)
    assert found == ["crm.lead", int(result.remote_id)]
