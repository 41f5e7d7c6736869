"""Driver by driver: a tenant, a connection as a person would make it, an import, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crmbridge.cli.client import Client
from crmbridge.cli.demo.parts import Emulators
from crmbridge.cli.demo.plans import Plan, cut_rows, form_of, make_plan, way_of
from crmbridge.cli.demo.report import Result
from crmbridge.cli.output import Output
from crmbridge.cli.problems import Problem, ServerRefusal
from crmbridge.core.operations import Operation, SupportLevel

if TYPE_CHECKING:
    from crmbridge.cli.importing.marks import Mark
    from crmbridge.cli.importing.run import Delivered
    from crmbridge.core.manifest import Manifest
    from crmbridge.core.records import Object

__all__ = ["Sources", "import_everywhere", "tenant_slug"]

_NAMES = ("first_name", "last_name", "full_name")
_PATIENCE = 150.0
_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files. ``is_named``: one file that a person named, for every CRM."""

    leads: Path
    people: Path
    is_named: bool

    @property
    def told(self) -> str:
        """For a line of text."""
        names = dict.fromkeys((self.leads.name, self.people.name))
        return " or ".join(names)


def tenant_slug(driver: str) -> str:
    """The demo's tenant of a driver."""
    return f"demo-{driver.replace('_', '-')}"


async def import_everywhere(
    client: Client, emulators: Emulators, folder: Path, sources: Sources, output: Output
) -> list[Result]:
    """All drivers at the same time, reserved ones too; what goes wrong is part of each result."""
    from crmbridge.cli.progress import make_progress
    from crmbridge.drivers import DRIVERS, load

    progress = make_progress(output)
    progress.disable = progress.disable or output.as_json
    with progress:
        tries = [
            _Try(client, load(slug).MANIFEST, emulators, folder, sources, progress).run()
            for slug in sorted(DRIVERS)
            if slug in emulators.by_slug or load(slug).MANIFEST.why_unavailable
        ]
        return list(await asyncio.gather(*tries))


class _Try:
    """One driver."""

    def __init__(
        self,
        client: Client,
        manifest: Manifest,
        emulators: Emulators,
        folder: Path,
        sources: Sources,
        progress: Any,
    ) -> None:
        self._client = client
        self._slug = manifest.slug
        self._manifest = manifest
        self._emulators = emulators
        self._folder = folder
        self._sources = sources
        self._tenant = tenant_slug(manifest.slug)
        self._form: dict[str, str] = {}
        self._bar = None if manifest.why_unavailable else _Bar(progress, manifest.slug)
        self.result = Result(slug=manifest.slug)

    async def run(self) -> Result:
        result = self.result
        try:
            if self._slug in self._emulators.by_slug:
                self._take_form()
            plan = make_plan(
                self._manifest,
                self._sources.leads,
                self._sources.people,
                is_named=self._sources.is_named,
            )
            await self._add_tenant(plan)
            if await self._connect() and plan.object is not None:
                result.object = plan.object.value
                await self._import(plan)
        except Problem as problem:
            result.error = f"{problem.code}: {problem.message}"
            fields = problem.body.get("fields") or []
            result.error += "".join(f"; {entry.get('field')}: {entry.get('message')}" for entry in fields)
        if self._bar is not None:
            self._bar.end(result)
        return result

    def _take_form(self) -> None:
        """The form, and the manifest as it is under these settings."""
        from crmbridge.drivers import load

        self._form = form_of(self._manifest, self._emulators.by_slug[self._slug])
        plain = {setting.name for setting in self._manifest.settings if not setting.is_secret}
        settings = {name: text for name, text in self._form.items() if name in plain}
        self._manifest = load(self._slug).manifest_for(settings)

    async def _add_tenant(self, plan: Plan) -> None:
        name = f"Demo of {self._manifest.display_name}"
        body = {"slug": self._tenant, "name": name, "vertical": plan.vertical.value}
        await self._client.post("tenants", body={**body, "region": plan.region, "time_zone": plan.zone})
        if self._manifest.gate:
            # What a real installation records of paper; without it no call of this driver leaves.
            yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
            papers = {
                "baa_reference": "DEMO-1",
                "baa_signatory": name,
                "baa_signed_on": yesterday,
                "reviewer": "crmbridge demo",
                "reviewed_on": yesterday,
            }
            await self._client.call("PUT", "tenants", self._tenant, "gate", body=papers)
            self.result.gate = self._manifest.gate

    # ---------------------------------------------------------------- connecting

    async def _connect(self) -> bool:
        """By form or by consent, tested and activated; False for a driver that refuses as declared."""
        self.result.way = way_of(self._manifest)
        try:
            credential = await (self._consent() if self.result.way == "consent" else self._fill_in())
        except ServerRefusal as refusal:
            if refusal.body.get("subcode") != "driver_unavailable":
                raise
            self.result.way = ""
            self.result.refusal = refusal.message
            self.result.way_out = str((refusal.body.get("fix") or {}).get("hint", ""))
            return False
        path = ("tenants", self._tenant, "credentials", credential)
        report = await self._client.post(*path, "test")
        if not report["ok"]:
            error = report.get("error") or {}
            raise Problem(str(error.get("message", "the live test failed")), body=error)
        await self._client.post(*path, "activate")
        return True

    async def _fill_in(self) -> str:
        body = {"driver": self._slug, "settings": self._form}
        return str((await self._client.post("tenants", self._tenant, "credentials", body=body))["id"])

    async def _consent(self) -> str:
        """The installation's app, a link, a browser that goes through the stand-in's page and back to our callback."""
        from crmbridge._version import __version__
        from crmbridge.cli.demo.browser import Browser
        from crmbridge.toolkit.egress import Egress, EgressPolicy

        emulator = self._emulators.by_slug[self._slug]
        app = emulator.oauth_app()
        if not app:
            raise Problem("The stand-in tells no OAuth app.", code="consent_failed")
        await self._client.call("PUT", "oauth", "apps", self._slug, body=app)
        link = await self._client.post(
            "tenants", self._tenant, "oauth", self._slug, "start", body={"settings": self._form}
        )
        hosts = frozenset({urlsplit(self._client.url).netloc, urlsplit(emulator.base_url).netloc})
        egress = Egress(EgressPolicy(allow=tuple(hosts)), user_agent=f"crmbridge-demo/{__version__}")
        try:
            page = await Browser(egress, hosts).agree(link["url"])
        finally:
            await egress.close()
        flow = await self._client.get("tenants", self._tenant, "oauth", "flows", link["flow_id"])
        if flow["state"] != "done":
            error = flow.get("error") or {}
            told = error.get("message") or f"the browser ended at {urlsplit(page.url).path}: {page.title}"
            raise Problem(f"Consent, {flow['state']}: {told}", code="consent_failed")
        return str(link["flow_id"])

    # ---------------------------------------------------------------- importing

    async def _import(self, plan: Plan) -> None:
        from crmbridge.cli.importing.command import ImportForm, begin, load, prepare
        from crmbridge.cli.importing.run import Target, follow

        assert plan.object is not None and self._bar is not None
        bar = self._bar
        result, emulators, slug = self.result, self._emulators, self._slug
        own = self._folder / "imports" / slug
        own.mkdir(parents=True)
        copy = own / plan.source.name
        if cut_rows(plan.source, copy, plan.most):
            result.fewer = plan.why
        form = ImportForm(
            source=copy,
            tenant=self._tenant,
            object=plan.object.value,
            dayfirst=plan.dayfirst,
            batch=_BATCH,
        )
        needed = await self._fit_mapping(plan.object)
        rows_before, calls_before = emulators.rows(slug), emulators.calls(slug)
        prepared = await prepare(self._client, form)
        with prepared.reader:
            result.good = _count_good(form, prepared, emulators.contacts(slug), needed)
            mark, _ = await begin(self._client, form, prepared, restart=True)
            target = Target(tenant=self._tenant, object=form.object, import_id=mark.import_id)
            began = monotonic()
            await load(self._client, form, prepared, mark, target, bar)
        try:
            async with asyncio.timeout(_PATIENCE):
                delivered = await follow(
                    self._client, target, bar, began=began, patience=_PATIENCE, every=0.1
                )
        except TimeoutError:
            delivered = bar.last
        result.read, result.rejected = mark.read, mark.rejected
        result.accepted = mark.accepted + mark.replayed
        result.delivered, result.given_up = delivered.applied, delivered.given_up
        result.reasons = [(each.times, each.reason) for each in delivered.reasons]
        result.seconds = delivered.seconds
        result.calls = emulators.calls(slug) - calls_before
        rows_after = emulators.rows(slug)
        result.held = max((rows_after[name] - rows_before.get(name, 0) for name in rows_after), default=0)

    async def _fit_mapping(self, obj: Object) -> list[str]:
        """What an operator does about fields that this CRM does not have: unmap them. Answers the slots it requires.

        The import keeps the cells of an unmapped slot in the long text of the record. Only a schema that the CRM tells
        in full can say that a field is not there.
        """
        support = self._manifest.supports(obj, Operation.DESCRIBE)
        if not support.is_usable:
            return []
        fields = (await self._client.get("tenants", self._tenant, "schema", obj.value))["fields"]
        there = {field["path"] for field in fields}
        needed = {field["path"] for field in fields if field.get("is_required")}
        lines = (await self._client.get("tenants", self._tenant, "mappings"))["mappings"]
        rules = {line["slot"]: line.get("rule") or {} for line in lines if line["object"] == obj.value}
        missing = [slot for slot, rule in rules.items() if _is_missing(rule, there)]
        if missing and support.level is SupportLevel.FULL:
            changes = {f"{obj.value}.{slot}": {"path": None} for slot in missing}
            await self._client.call("PUT", "tenants", self._tenant, "mappings", body={"changes": changes})
            self.result.unmapped = missing
        return [
            slot
            for slot, rule in rules.items()
            if rule.get("path") in needed and rule.get("default") is None and rule.get("constant") is None
        ]


def _is_missing(rule: Mapping[str, Any], there: set[str]) -> bool:
    """Whether a rule writes a field of the object itself that the schema does not list."""
    path = str(rule.get("path") or "")
    if not path or rule.get("native") or rule.get("direction") == "write":
        return False
    return path not in there and path.partition(".")[0] not in there


def _count_good(form: Any, prepared: Any, known: set[str], needed: list[str]) -> int:
    """Rows that this CRM has to take: readable, clean, with a name and what it requires, and nobody whom it holds.

    ``known`` are its e-mail addresses and the last ten digits of its phone numbers.
    """
    from crmbridge.cli.importing.cleaning import SpoiltRow
    from crmbridge.cli.importing.rows import Row, open_rows

    good, known = 0, set(known)
    with open_rows(form.source) as reader:
        for row in reader:
            try:
                fields = prepared.cleaner.fields(row.values) if isinstance(row, Row) else {}
            except SpoiltRow:
                continue
            keys = {str(fields["email"]).casefold()} if fields.get("email") else set()
            keys |= {str(fields["phone"])[-10:]} if fields.get("phone") else set()
            is_whole = any(map(fields.get, _NAMES)) and all(map(fields.get, needed))
            good += is_whole and not keys & known
            known |= keys
    return good


class _Bar:
    """A View: one driver's line among the bars."""

    def __init__(self, progress: Any, slug: str) -> None:
        from crmbridge.cli.importing.run import Delivered

        self._progress = progress
        self._task = progress.add_task(slug.ljust(15), total=None, told="connecting")
        self._read = 0
        self.last: Delivered = Delivered()

    def loading(self, position: int, total: int, mark: Mark) -> None:
        """Rows accepted."""
        self._read = mark.read
        told = f"{mark.read:,} rows read"
        self._progress.update(self._task, completed=position, total=total, told=told)

    def delivering(self, delivered: Delivered) -> None:
        """Records in the CRM."""
        self.last = delivered
        told = f"{self._read:,} rows read, {delivered.applied:,} delivered"
        if waiting := delivered.counts.get("retrying", 0):
            told += f", {waiting:,} waiting"
        total = max(delivered.total, 1)
        self._progress.update(
            self._task, completed=delivered.total - delivered.pending, total=total, told=told
        )

    def end(self, result: Result) -> None:
        """The last word."""
        if result.error:
            self._progress.update(self._task, completed=0, total=1, told="failed, see below")
            self._progress.stop_task(self._task)
        elif not result.object:
            self._progress.update(self._task, completed=1, total=1, told="connected")

    def trouble(self, text: str) -> None:
        """Nothing to say: the demo's own server is beside it."""
