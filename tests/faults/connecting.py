"""Tenants for the house: connected as a person would connect them, and the writes that each CRM takes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from tests.faults.house import FaultHouse

from crmbridge._version import __version__
from crmbridge.cli.client import Client
from crmbridge.cli.demo.browser import Browser
from crmbridge.cli.demo.plans import form_of, way_of
from crmbridge.conformance.harness import Harness
from crmbridge.conformance.run import contract_for
from crmbridge.conformance.samples import numbered
from crmbridge.core.manifest import IdempotencyKind, Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object
from crmbridge.drivers import load, load_emulator, slugs
from crmbridge.toolkit.egress import Egress, EgressPolicy

__all__ = ["Trade", "connect", "declared", "find_one"]

_PAPERS = {
    "baa_reference": "FAULTS-1",
    "baa_signatory": "Dr. Ann Lee",
    "baa_signed_on": "2026-01-05",
    "reviewer": "Sam Roe",
    "reviewed_on": "2026-01-06",
}
# Where the token of a write stands, by object; the first that the CRM's map has, and those that may need to differ.
_PLACES = ("last_name", "full_name", "title", "name", "subject", "body", "notes", "message", "description")


def declared() -> dict[str, list[Object]]:
    """Driver → objects that it creates and for which it declares a means against doubles."""
    found: dict[str, list[Object]] = {}
    for slug in slugs():
        if load(slug).MANIFEST.why_unavailable or load_emulator(slug) is None:
            continue
        manifest = contract_for(slug).manifest()
        found[slug] = [
            obj
            for obj, spec in manifest.objects.items()
            if manifest.supports(obj, Operation.CREATE).is_usable
            and spec.idempotency.kind is not IdempotencyKind.NONE
        ]
    return found


@dataclass
class Trade:
    """One connected tenant: how its writes look. ``parents``: remote ids that writes are linked to."""

    house: FaultHouse
    tenant: str
    slug: str
    contract: Harness
    manifest: Manifest
    parents: dict[Object, str]

    def body(self, obj: Object, token: str) -> dict[str, Any]:
        """A create of the contract's sample, made unmistakable by the token."""
        number = int(token[-6:])
        fields = dict(numbered(self.contract.sample(obj), number))
        placed = False
        for slot in _PLACES:
            if slot in fields and isinstance(fields[slot], str):
                fields[slot] = token if slot in ("last_name", "full_name") else f"{token} {fields[slot]}"
                placed = True
        if fields.get("full_name") and fields.get("first_name"):
            fields["full_name"] = f"{fields['first_name']} {token}"
        if fields.get("email"):
            fields["email"] = f"{token.lower()}@example.com"
        if fields.get("phone"):
            # Seven digits that differ: with fewer, ten thousand people would share their numbers.
            fields["phone"] = str(fields["phone"])[:-7] + str(5_550_123 + number)
        for slot in ("start_at", "end_at"):
            if slot in fields:
                moved = datetime.fromisoformat(str(fields[slot])) + timedelta(days=number)
                fields[slot] = moved.isoformat()
        assert placed or obj is Object.APPOINTMENT, f"{self.slug} {obj.value}: no text to put a token into"
        links = {other.value: {"remote_id": self.parents[other]} for other in self.linked(obj)}
        return {"fields": fields, "links": links}

    def linked(self, obj: Object) -> list[Object]:
        """What a record of this object is linked to."""
        return [one for one in self.contract.linked_first(obj) if one in self.manifest.objects[obj].links]

    async def put(self, obj: Object, token: str = "", **rest: Any) -> str:
        """Have one create accepted; answers its token."""
        token = token or self.house.token()
        body = self.body(obj, token)
        await self.house.put(self.tenant, self.slug, obj.value, token, body, **rest)
        return token

    async def made(self, obj: Object) -> tuple[str, str]:
        """An undisturbed create, waited for: (token, remote id)."""
        token = self.house.token()
        tree = await self.house.put(
            self.tenant, self.slug, obj.value, token, self.body(obj, token), prefer="wait=10"
        )
        target = tree["targets"][0]
        assert target["state"] == "applied", (self.slug, obj, tree)
        return token, str(target["remote_id"])

    async def prepare(self, objects: list[Object]) -> None:
        """Make the records that others are linked to."""
        for obj in objects:
            for other in self.linked(obj):
                if other not in self.parents:
                    await self.prepare([other])
                    self.parents[other] = (await self.made(other))[1]


async def connect(house: FaultHouse, slug: str, tenant: str) -> Trade:
    """A tenant with an active connection to the emulator: by form, by machine sign-in, or by consent in a browser."""
    contract = contract_for(slug)()
    facts = house.emulators[slug]
    stand_in = SimpleNamespace(settings=lambda: facts["settings"], secrets=lambda: facts["secrets"])
    manifest = contract.manifest()
    form = {name: text for name, text in form_of(manifest, stand_in).items() if text}
    if way_of(manifest) == "token":
        form.pop("access_token", None)
    async with house.client() as client:
        body = {
            "slug": tenant,
            "name": tenant,
            "vertical": contract.vertical.value,
            "region": contract.region,
        }
        await client.post("tenants", body=body)
        if manifest.gate:
            await client.call("PUT", "tenants", tenant, "gate", body=_PAPERS)
        if way_of(manifest) == "consent":
            credential = await _consent(house, client, slug, tenant, form)
        else:
            made = await client.post(
                "tenants", tenant, "credentials", body={"driver": slug, "settings": form}
            )
            credential = str(made["id"])
        report = await client.post("tenants", tenant, "credentials", credential, "test")
        assert report["ok"], report
        await client.post("tenants", tenant, "credentials", credential, "activate")
    return Trade(house, tenant, slug, contract, manifest, {})


async def _consent(house: FaultHouse, client: Client, slug: str, tenant: str, form: dict[str, str]) -> str:
    await client.call("PUT", "oauth", "apps", slug, body=house.emulators[slug]["app"])
    link = await client.post("tenants", tenant, "oauth", slug, "start", body={"settings": form})
    hosts = frozenset({urlsplit(client.url).netloc, urlsplit(house.emulators[slug]["url"]).netloc})
    egress = Egress(EgressPolicy(allow=tuple(hosts)), user_agent=f"crmbridge-faults/{__version__}")
    try:
        await Browser(egress, hosts).agree(link["url"])
    finally:
        await egress.close()
    flow = await client.get("tenants", tenant, "oauth", "flows", link["flow_id"])
    assert flow["state"] == "done", flow
    return str(link["flow_id"])


async def find_one(trade: Trade, obj: Object) -> Counter[str]:
    """What one undisturbed create of this object leaves in the CRM, by table; kept in the house."""
    await trade.prepare([obj])
    token, _ = await trade.made(obj)
    held = (await trade.house.holdings(trade.slug)).by_token.get(token, Counter())
    trade.house.one[trade.slug, obj.value] = held
    return held


def words(text: str) -> str:
    """For a tenant's slug."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())
