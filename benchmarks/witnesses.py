"""Drivers and vendors' own clients before the same emulator, which lives in a process of its own, over TLS.

``python -m benchmarks.witnesses SLUG`` is that process: it prints one line of JSON and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Protocol, cast
from urllib.request import HTTPSHandler, build_opener

import msgspec
from tests.witnesses.loopback import staged

from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, Write
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.drivers import load, load_emulator
from crmbridge.toolkit.egress import Egress, EgressPolicy
from crmbridge.toolkit.fieldmap import FieldMap, load_fields

__all__ = ["PEERS", "Far", "Ours", "Peer", "fields_of"]

HOSTS = {"hubspot": ("api.hubapi.com",), "salesforce": ("agency.my.salesforce.com",)}
Fields = dict[str, Any]


class Far(AbstractContextManager["Far"]):
    """An emulator in its own process, behind TLS."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        self.child = Popen(
            [sys.executable, "-m", "benchmarks.witnesses", slug], stdin=PIPE, stdout=PIPE, text=True
        )
        assert self.child.stdout is not None
        said = self.child.stdout.readline()
        if not said:
            raise SystemExit(f"the emulator of {slug} did not start")
        told = json.loads(said)
        self.url: str = told["url"]
        self.port: int = told["port"]
        self.proxy_url: str = told["proxy_url"]
        self.ca_file: str = told["ca_file"]
        self.settings: dict[str, str] = told["settings"]
        self.secrets: dict[str, str] = told["secrets"]

    def __exit__(self, *_: object) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()

    def tls(self) -> ssl.SSLContext:
        """Trusts the emulator's authority."""
        return ssl.create_default_context(cafile=self.ca_file)


class Ours:
    """Our driver as a connection has it: tested and prepared, made anew for each call.

    ``ways`` are what it is given and does: native fields with our mark on each record; the same without mark, as the
    peers send them (Odoo's rows always have theirs); canonical slots, checked and mapped by the default field map.
    """

    def __init__(self, far: Far) -> None:
        self.egress = Egress(EgressPolicy(allow=("localhost", "127.0.0.1")), ssl_context=far.tls())
        self.kind = load(far.slug)
        self.access = Access(
            settings=far.settings,
            secrets={name: Secret(text) for name, text in far.secrets.items()},
            transport=self.egress,
            mark_prefix="crmbridge_0123456789ab",
        )
        self.plain = msgspec.structs.replace(self.access)
        lead, trade = Object.LEAD, Vertical.GENERAL
        rules = load_fields(self.kind).rules(lead, trade)
        self.field_map = FieldMap(lead, rules, slots_for(lead, trade), region="AE")
        self._ids: deque[str] = deque()
        start = uuid.uuid4().hex
        self._new_ids = (f"{start[:8]}-{start[8:12]}-4000-8000-{number:012x}" for number in count(1))

    def make_ids(self, how_many: int) -> None:
        """For so many records that are sent next. In the product an id is made when its write is accepted."""
        self._ids.extend(islice(self._new_ids, max(0, how_many - len(self._ids))))

    def driver(self) -> CrmDriver:
        return self.kind(self.access)

    async def prepare(self) -> None:
        """What connecting learns."""
        self.access.facts.update((await self.driver().test_connection()).facts)
        self.access.facts.update(await self.driver().prepare())
        self.plain.facts = {name: text for name, text in self.access.facts.items() if "marks" not in name}

    def ways(self) -> dict[str, Callable[[Sequence[Fields]], Awaitable[None]]]:
        """The ways of sending many."""
        unmarked = {} if self.kind.MANIFEST.slug == "odoo" else {"no mark": self.send_plain}
        return {"mark": self.send, **unmarked, "mark, from slots": self.send_slots}

    async def send_plain(self, rows: Sequence[Fields]) -> None:
        """Without marks: a repeat would make a second record."""
        await self.send(rows, self.plain)

    async def send_slots(self, rows: Sequence[Fields]) -> None:
        """From canonical slots."""
        mapped = [self.field_map.to_native(row) for row in rows]
        assert not any(one.errors for one in mapped)
        await self.send([one.fields for one in mapped])

    async def send(self, rows: Sequence[Fields], access: Access | None = None) -> None:
        """One ``write_batch``; each write has its outcome."""
        create, lead, applied, next_id = Operation.CREATE, Object.LEAD, Outcome.APPLIED, self._ids.popleft
        writes = [Write(target_id=next_id(), operation=create, object=lead, fields=row) for row in rows]
        results = await self.kind(access or self.access).write_batch(writes)
        if bad := [one.error for one in results if one.outcome is not applied]:
            raise SystemExit(f"not all were applied: {bad[0]}")


class Peer(Protocol):
    """A vendor's own or best-known client, as its users use it. ``bulks`` are its ways of sending many."""

    name: str
    batch: int

    def single(self, row: Fields) -> None: ...

    def bulks(self) -> dict[str, Callable[[Sequence[Fields]], None]]: ...


class HubSpotClient:
    """HubSpot's own client: contacts one by one, and its batch create of 100."""

    name = "hubspot-api-client"
    batch = 100

    def __init__(self, far: Far) -> None:
        import hubspot
        from hubspot.crm import contacts

        self.contacts = contacts
        self.client = hubspot.HubSpot(
            access_token=far.secrets["access_token"],
            ssl_ca_cert=far.ca_file,
            proxy=far.proxy_url,
            retry=False,
        )
        self.api = self.client.crm.contacts

    def single(self, row: Fields) -> None:
        made = self.api.basic_api.create(self.contacts.SimplePublicObjectInputForCreate(properties=row))
        assert made.id

    def bulks(self) -> dict[str, Callable[[Sequence[Fields]], None]]:
        return {"batch create": self._batch}

    def _batch(self, rows: Sequence[Fields]) -> None:
        inputs = [
            self.contacts.SimplePublicObjectBatchInputForCreate(
                properties=row, object_write_trace_id=str(place)
            )
            for place, row in enumerate(rows)
        ]
        body = self.contacts.BatchInputSimplePublicObjectBatchInputForCreate(inputs=inputs)
        answer = self.api.batch_api.create(body)
        assert len({one.object_write_trace_id: one.id for one in answer.results}) == len(rows)


class SimpleSalesforce:
    """simple-salesforce: its single create, its Bulk 2.0 insert, and collections of 200 by its generic call."""

    name = "simple-salesforce"
    batch = 200

    def __init__(self, far: Far) -> None:
        simple_salesforce: Any = import_module("simple_salesforce")
        os.environ |= {"REQUESTS_CA_BUNDLE": far.ca_file}
        self.client: Any = simple_salesforce.Salesforce(
            instance_url=far.url, session_id=far.secrets["access_token"], version="66.0"
        )

    def single(self, row: Fields) -> None:
        assert self.client.Lead.create(row)["success"]

    def bulks(self) -> dict[str, Callable[[Sequence[Fields]], None]]:
        return {"bulk2.Lead.insert": self._insert, "restful collection": self._collection}

    def _collection(self, rows: Sequence[Fields]) -> None:
        records = [{"attributes": {"type": "Lead"}, **row} for row in rows]
        body = {"allOrNone": False, "records": records}
        made = self.client.restful("composite/sobjects", None, "POST", json=body)
        assert all(one["success"] for one in made)

    def _insert(self, rows: Sequence[Fields]) -> None:
        (job,) = self.client.bulk2.Lead.insert(records=list(rows), wait=0.05)
        assert job["numberRecordsFailed"] == 0


class OdooRpcClient:
    """odoorpc over JSON-RPC: its single create, a list create, and ``load`` with external ids.

    Like our driver's rows, those of ``load`` can be sent again without a second record; those of a list create cannot.
    """

    name = "odoorpc"
    batch = 200

    def __init__(self, far: Far) -> None:
        import odoorpc

        opener = build_opener(HTTPSHandler(context=far.tls()))
        self.odoo = odoorpc.ODOO(
            "localhost", protocol="jsonrpc+ssl", port=far.port, opener=opener, timeout=60
        )
        self.odoo.login(far.settings["database"], far.settings["username"], far.secrets["api_key"])
        self.model = self.odoo.env["crm.lead"]
        self.ids = (f"w{number:012x}" for number in count(1))

    def single(self, row: Fields) -> None:
        assert self.model.create(row)

    def bulks(self) -> dict[str, Callable[[Sequence[Fields]], None]]:
        return {"create of a list": self._list, "load, external ids": self._load}

    def _list(self, rows: Sequence[Fields]) -> None:
        assert len(self.model.create(list(rows))) == len(rows)

    def _load(self, rows: Sequence[Fields]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[f"bench.{next(self.ids)}", *(row.get(name, "") for name in columns)] for row in rows]
        answer = self.odoo.execute("crm.lead", "load", ["id", *columns], cells)
        assert len(answer["ids"]) == len(rows)


PEERS: dict[str, Callable[[Far], Peer]] = {
    "hubspot": HubSpotClient,
    "salesforce": SimpleSalesforce,
    "odoo": OdooRpcClient,
}


def fields_of(slug: str, how_many: int, *, as_slots: bool = False) -> list[Fields]:
    """New people of eight native fields (or seven slots), no two alike; one in three has no phone."""
    if as_slots:
        named = dict(zip(_native_names(slug), _SLOTS, strict=True))
        rows = fields_of(slug, how_many)
        return [{slot: row[name] for name, slot in named.items() if slot and name in row} for row in rows]
    names = _native_names(slug)
    word = uuid.uuid4().hex[:8]
    made = []
    for n in range(how_many):
        texts: list[str] = [
            "Layla", f"Haddad {word} {n}", f"{word}.{n}@example.com", f"+97150{n:07d}", "Dubai",
            "Example Trading", "Head of purchasing", "www.example.com",
        ]  # fmt: skip
        row: Fields = dict(zip(names, texts, strict=True))
        if n % 3 == 0:
            del row[names[3]]
        made.append(row | ({"type": "lead"} if slug == "odoo" else {}))
    return made


# Our maps have no slot for what a person does; the last field is a street or a page.
_SLOTS = ("first_name", "last_name", "email", "phone", "city", "company", "", "street")


def _native_names(slug: str) -> tuple[str, ...]:
    return {
        "hubspot": ("firstname", "lastname", "email", "phone", "city", "company", "jobtitle", "website"),
        "salesforce": ("FirstName", "LastName", "Email", "Phone", "City", "Company", "Title", "Street"),
        "odoo": (
            "contact_name", "name", "email_from", "phone", "city", "partner_name", "function", "street"
        ),
    }[slug]  # fmt: skip


async def _serve(slug: str) -> None:
    kind = load_emulator(slug)
    assert kind is not None
    emulator = cast(Any, kind())
    emulator.quotas.clear()
    with suppress(AttributeError):
        emulator.daily_limit = 10**9
    with tempfile.TemporaryDirectory(prefix="crmb-bench-") as folder:
        async with staged(emulator, Path(folder), *HOSTS.get(slug, ())) as stage:
            base, emulator.base_url = emulator.base_url, stage.url
            settings = emulator.settings()
            emulator.base_url = base if HOSTS.get(slug) else stage.url
            told = {
                "url": stage.url,
                "port": stage.port,
                "proxy_url": stage.proxy_url,
                "ca_file": stage.ca_file,
                "settings": settings,
                "secrets": emulator.secrets(),
            }
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


Send = Callable[[Sequence[Fields]], Awaitable[None]]

if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1]))
