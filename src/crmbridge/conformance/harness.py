"""Harness: what a driver's author states, and the bench on which each test tries the driver."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from crmbridge.conformance.cases import Case, ContractBroken, NotApplicable, attach, cases_of, expect
from crmbridge.conformance.samples import SAMPLES, numbered
from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.errors import CrmError, Unsupported
from crmbridge.core.manifest import IdempotencyKind, Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Object, Record, Write, WriteResult
from crmbridge.core.secret import Secret
from crmbridge.core.verticals import Slot, Vertical, slots_for
from crmbridge.core.wire import Transport
from crmbridge.emulation import Emulator, InProcessTransport

__all__ = ["Bench", "Harness", "SlotMap"]

_counter = itertools.count(1)


class SlotMap(Protocol):
    """What the suite needs of ``toolkit.fieldmap.FieldMap``."""

    def to_native(self, fields: Mapping[str, Any], *, partial: bool = False) -> Any: ...

    def to_canonical(self, native: Mapping[str, Any]) -> dict[str, Any]: ...

    def native_path(self, slot: str) -> str: ...


class Bench:
    """One driver before one emulator (or a live CRM), with the verbs that tests say most often."""

    def __init__(self, contract: Harness, access: Access, emulator: Emulator | None) -> None:
        self.contract = contract
        self.access = access
        self._emulator = emulator
        self.made: list[tuple[Object, str]] = []
        self._links: dict[Object, str] = {}
        self.driver = contract.driver(access)

    @property
    def emulator(self) -> Emulator:
        """The emulator; a live target has none, and the test does not apply."""
        if self._emulator is None:
            raise NotApplicable("needs an emulator; a live CRM cannot be told to misbehave")
        return self._emulator

    @property
    def has_emulator(self) -> bool:
        """False for a live target."""
        return self._emulator is not None

    def open(self) -> CrmDriver:
        """Another instance over the same access: drivers keep no state between calls."""
        self.driver = self.contract.driver(self.access)
        return self.driver

    async def write(
        self,
        operation: Operation,
        obj: Object,
        fields: Mapping[str, Any] | None = None,
        *,
        remote_id: str = "",
        match: Sequence[str] = (),
        target_id: str = "",
    ) -> Write:
        """A write mapped through the field map. ``match`` names slots (their values come from fields)."""
        target = target_id or f"00000000-0000-4000-8000-{next(_counter):012x}"
        write = Write(
            target_id=target,
            operation=operation,
            object=obj,
            remote_id=remote_id,
            idempotency_key=target,
        )
        if operation in (Operation.CREATE, Operation.UPDATE, Operation.UPSERT):
            fields = self.contract.sample(obj) if fields is None else fields
            mapped = self.contract.map_for(obj).to_native(fields, partial=operation is Operation.UPDATE)
            expect(not mapped.errors, f"the field map refuses the sample of {obj.value}: {mapped.errors}")
            write.fields = mapped.fields
            write.related = list(mapped.related)
            write.match = {self.contract.map_for(obj).native_path(slot): fields[slot] for slot in match}
            if operation is not Operation.UPDATE:
                write.links = await self.links_for(obj)
        return write

    async def links_for(self, obj: Object) -> dict[str, str]:
        """Linked records of the contract's ``linked``, made once per bench."""
        links = {}
        for other in self.contract.linked_first(obj):
            if other not in self._links:
                self._links[other] = (await self.create(other)).remote_id
            links[other.value] = self._links[other]
        return links

    async def create(self, obj: Object, fields: Mapping[str, Any] | None = None) -> WriteResult:
        """Creates the sample (or ``fields``) and remembers it for cleaning. Raises CrmError."""
        return await self.send(await self.write(Operation.CREATE, obj, fields))

    async def update(self, obj: Object, remote_id: str, fields: Mapping[str, Any]) -> WriteResult:
        """Changes these slots. Raises CrmError."""
        return await self.send(await self.write(Operation.UPDATE, obj, fields, remote_id=remote_id))

    async def send(self, write: Write) -> WriteResult:
        """One create, update or upsert through its own verb. Raises CrmError."""
        verb = {
            Operation.CREATE: self.driver.create_record,
            Operation.UPDATE: self.driver.update_record,
            Operation.UPSERT: self.driver.upsert_record,
        }[write.operation]
        result = await verb(write)
        if result.error is not None:
            raise result.error
        if result.remote_id and write.operation is not Operation.UPDATE:
            self.made.append((write.object, result.remote_id))
        return result

    async def get(self, obj: Object, remote_id: str) -> Record:
        """The record with its slots filled in. Raises CrmError."""
        return self.canonical(await self.driver.get_record(obj, remote_id))

    def canonical(self, record: Record) -> Record:
        """Fills ``record.fields`` through the inverse map."""
        record.fields = self.contract.map_for(record.object).to_canonical(record.native)
        return record

    async def fails(self, call: Awaitable[Any], why: str) -> CrmError:
        """The CrmError that ``call`` must raise; anything else breaks the contract."""
        try:
            answer = await call
        except CrmError as error:
            return error
        except Exception as error:
            raise ContractBroken(f"{why}: raised {type(error).__name__} instead of a CrmError") from error
        raise ContractBroken(f"{why}: no error; answered {type(answer).__name__}")

    def rows(self) -> int:
        """Rows that the emulator holds, of all tables."""
        return sum(len(table) for table in self.emulator.store.tables.values())


class Harness:
    """What a contract states about its driver.

    ``driver``, ``emulator`` (None: live, or a provider without an API) · ``samples`` canonical fields per
    object (default: the general samples, as far as mapped) · ``gaps`` test name → reason, strict ·
    ``vertical``, ``region`` for slots and phones · ``settings`` and ``secrets`` replace those of the
    emulator's working credential by name · ``linked`` object → objects that must exist and be linked
    first (default: a customer for notes and activities, where customers can be created) · ``refused``
    native fields per object that the provider refuses with a field error · ``missing_id`` a well-formed
    remote id that never exists (default: made from a real one) · ``changes`` slots per object that an update
    changes (default: one free text of the sample) · ``fixed_texts`` slots whose text the
    provider limits to known values · ``server_error_is_certain`` why a provider-shaped 500 proves that
    nothing was done (default: it proves nothing).
    """

    driver: ClassVar[type[CrmDriver]]
    emulator: ClassVar[type[Emulator] | None] = None
    samples: ClassVar[dict[Object, dict[str, Any]]] = {}
    gaps: ClassVar[dict[str, str]] = {}
    vertical: ClassVar[Vertical] = Vertical.GENERAL
    region: ClassVar[str] = "US"
    settings: ClassVar[dict[str, str]] = {}
    secrets: ClassVar[dict[str, str]] = {}
    linked: ClassVar[dict[Object, tuple[Object, ...]]] = {}
    refused: ClassVar[dict[Object, dict[str, Any]]] = {}
    missing_id: ClassVar[str] = ""
    changes: ClassVar[dict[Object, dict[str, Any]]] = {}
    fixed_texts: ClassVar[tuple[str, ...]] = ("country", "language", "currency", "status", "stage", "source")
    server_error_is_certain: ClassVar[str] = ""
    cases: ClassVar[list[Case]] = []
    _manifest: ClassVar[Manifest | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if getattr(cls, "driver", None) is not None:
            cls._manifest = None
            cls.cases = cases_of(cls, cls.manifest(), cls.gaps)
            attach(cls, cls.cases)

    @classmethod
    def manifest(cls) -> Manifest:
        """The manifest under the settings of this contract; read once per class."""
        if cls._manifest is None:
            settings = cls.emulator().settings() if cls.emulator is not None else {}
            cls._manifest = cls.driver.manifest_for({**settings, **cls.settings})
        return cls._manifest

    @property
    def benches(self) -> list[Bench]:
        """The benches of the running test."""
        made: list[Bench] = self.__dict__.setdefault("_benches", [])
        return made

    async def make(
        self,
        *,
        variant: str = "",
        settings: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        is_prepared: bool = True,
    ) -> Bench:
        """A fresh driver before a fresh emulator; ``variant`` makes an emulator with other secrets."""
        if self.emulator is None:
            raise NotApplicable("no emulator and no live target")
        emulator = self.emulator()
        emulator.variant = variant
        texts = {**emulator.secrets(), **self.secrets, **(secrets or {})}
        access = Access(
            settings={**emulator.settings(), **self.settings, **(settings or {})},
            secrets={name: Secret(text) for name, text in texts.items()},
            transport=self.transport(emulator),
        )
        return await self.bench(access, emulator, is_prepared=is_prepared)

    async def bench(self, access: Access, emulator: Emulator | None, *, is_prepared: bool = True) -> Bench:
        """A bench over this access; prepared as a connection would be: tested, prepared, facts kept."""
        await self.sign_in(access)
        bench = Bench(self, access, emulator)
        self.benches.append(bench)
        if is_prepared:
            try:
                proof = await bench.driver.test_connection()
            except Unsupported as error:  # said once, by the topic connection
                raise NotApplicable(f"waits for test_connection: {error.message}") from None
            access.facts.update(proof.facts)
            access.facts.update(await bench.open().prepare())
            bench.open()
            if emulator is not None:
                emulator.requests.clear()
                emulator.calls.clear()
                emulator.write_calls = 0
                emulator.store.written = 0
        return bench

    async def sign_in(self, access: Access) -> None:
        """A token as a connection would lend it, where the driver has its own sign-in and none is given.

        A refusal is left to the calls that need the token.
        """
        if self.driver.sign_in is CrmDriver.sign_in or "access_token" in access.secrets:
            return
        try:
            answer = await self.driver(access).sign_in()
        except CrmError:
            return
        access.secrets["access_token"] = Secret(answer["access_token"])

    def transport(self, emulator: Emulator) -> Transport:
        """The way to the emulator; in-process unless overridden."""
        return InProcessTransport(emulator)

    async def clean(self) -> None:
        """Runs after each test; live contracts delete what the test made."""
        self.benches.clear()

    def map_for(self, obj: Object) -> SlotMap:
        """The driver's default field map of this object, for the contract's vertical."""
        maps: dict[Object, SlotMap] = self.__dict__.setdefault("_maps", {})
        if obj not in maps:
            maps[obj] = self.field_map(obj)
        return maps[obj]

    def field_map(self, obj: Object) -> SlotMap:
        """Made from fields.toml; override for a driver whose map the operator writes."""
        from crmbridge.toolkit.fieldmap import FieldMap, load_fields

        rules = load_fields(self.driver).rules(obj, self.vertical)
        return FieldMap(obj, rules, self.slots(obj), region=self.region)

    def slots(self, obj: Object) -> dict[str, Slot]:
        """The slots of the object for the contract's vertical."""
        return slots_for(obj, self.vertical)

    def sample(self, obj: Object, number: int = 0) -> dict[str, Any]:
        """The sample; another ``number`` is another person."""
        if obj in self.samples:
            return numbered(self.samples[obj], number)
        general = {name: value for name, value in SAMPLES[obj].items() if self.is_mapped(obj, name)}
        return numbered(general, number)

    def is_mapped(self, obj: Object, slot: str) -> bool:
        """Whether the map writes this slot somewhere."""
        if slot not in self.slots(obj):
            return False
        try:
            return bool(self.map_for(obj).native_path(slot))
        except (KeyError, CrmError):
            return False

    def two_way(self, obj: Object, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the slots that the map alone carries there and back; the driver must carry them too."""
        mapped = self.map_for(obj).to_native(fields)
        back = self.map_for(obj).to_canonical(mapped.fields)
        return {slot: value for slot, value in fields.items() if slot in back}

    def free_texts(self, obj: Object) -> list[str]:
        """Mapped two-way slots of the sample that take any text."""
        slots = self.slots(obj)
        return [
            name
            for name in self.two_way(obj, self.sample(obj))
            if slots[name].type.value in ("text", "long_text")
            and name not in self.fixed_texts
            and not slots[name].options
        ]

    def linked_first(self, obj: Object) -> tuple[Object, ...]:
        """The objects to create and link before this one."""
        if obj in self.linked or obj not in (Object.NOTE, Object.ACTIVITY):
            return self.linked.get(obj, ())
        can_create = self.manifest().supports(Object.CUSTOMER, Operation.CREATE).is_usable
        return (Object.CUSTOMER,) if can_create else ()

    def may_repeat(self, obj: Object) -> bool:
        """Whether the declared idempotency proves that a repeated create has no second effect."""
        return self.manifest().objects[obj].idempotency.kind is IdempotencyKind.KEY_SENT

    def absent_id(self, real_id: str) -> str:
        """An id of the same make as a real one that names no record."""
        if self.missing_id:
            return self.missing_id
        if real_id.isdigit():
            return str(int(real_id) + 987_000)
        return "".join("0" if each.isdigit() else each for each in real_id[:-1]) + (
            "b" if real_id.endswith("a") else "a"
        )

    def first(self, operation: Operation) -> Object:
        """The first object that declares the operation usable. Raises NotApplicable without one."""
        manifest = self.manifest()
        for obj in manifest.objects:
            if manifest.supports(obj, operation).is_usable:
                return obj
        raise NotApplicable(f"no object declares {operation.value}")

    async def wait(self, bench: Bench, seconds: float) -> None:
        """Lets ``seconds`` pass at the provider: by the emulator's clock, or by waiting for a live one."""
        if bench.has_emulator:
            bench.emulator.clock.advance(seconds + 1)
        elif seconds:
            await asyncio.sleep(seconds)
