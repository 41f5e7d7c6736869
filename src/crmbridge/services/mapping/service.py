"""The effective field map of a connection: the driver's table, then the tenant's overrides, slot by slot."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping as AnyMapping
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import FieldError, ValidationError
from crmbridge.core.records import Object
from crmbridge.core.verticals import Vertical, slots_for
from crmbridge.db.pool import Database
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.audit.service import AuditLog
from crmbridge.services.mapping import store
from crmbridge.services.mapping.model import MappedSlot, Overrides, Rule
from crmbridge.services.tenants.model import Tenant
from crmbridge.toolkit.fieldmap import FieldMap, FieldRule, load_fields

__all__ = ["Mapping", "build_field_map"]

_PATH = re.compile(r"[^\s{}\x00-\x1f]{1,200}")


def build_field_map(tenant: Tenant, driver: type[CrmDriver], obj: Object, overrides: Overrides) -> FieldMap:
    """The map of one object under a tenant's overrides. Pure; tenants of one trade without overrides share one."""
    vertical = Vertical(tenant.vertical)
    own = overrides.get(obj)
    if not own:
        return _shared(
            driver,  # type: ignore[arg-type]  # a class hashes as any object does
            obj,
            vertical,
            tenant.unknown_slots,
            tenant.region,
            tenant.time_zone,
        )
    rules = {rule.slot: rule for rule in load_fields(driver).rules(obj, vertical)}
    for slot, rule in own.items():
        rules.pop(slot, None)
        if rule.path is not None:
            rules[slot] = _as_field_rule(slot, rule)
    return _built(rules.values(), obj, vertical, tenant.unknown_slots, tenant.region, tenant.time_zone)


# A map takes some 20 kB and 0.3 ms; with thousands of tenants in memory that would be most of it.
@lru_cache(maxsize=1024)
def _shared(
    driver: type[CrmDriver], obj: Object, vertical: Vertical, unknown_slots: str, region: str, time_zone: str
) -> FieldMap:
    rules = {rule.slot: rule for rule in load_fields(driver).rules(obj, vertical)}
    return _built(rules.values(), obj, vertical, unknown_slots, region, time_zone)


def _built(
    rules: Iterable[FieldRule],
    obj: Object,
    vertical: Vertical,
    unknown_slots: str,
    region: str,
    time_zone: str,
) -> FieldMap:
    return FieldMap(
        obj,
        list(rules),
        slots_for(obj, vertical),
        unknown_slots=unknown_slots,
        region=region,
        time_zone=time_zone,
    )


def _as_field_rule(slot: str, rule: Rule) -> FieldRule:
    return FieldRule(
        slot=slot,
        path=rule.path or "",
        native=rule.native,
        format=rule.format,
        values=rule.values,
        constant=rule.constant,
        default=rule.default,
        direction=rule.direction,
    )


class Mapping:
    """Reads and changes overrides; every change is audited with the slot and its new path."""

    def __init__(self, db: Database, audit: AuditLog) -> None:
        self._db = db
        self._audit = audit

    async def overrides(self, conn: Any, connection_id: UUID) -> Overrides:
        """The overrides of one connection, in the caller's transaction."""
        return await store.read_rules(conn, connection_id)

    async def read(self, tenant: Tenant, connection_id: UUID, driver: type[CrmDriver]) -> list[MappedSlot]:
        """The effective map: every slot of the tenant's trade, with where its rule comes from."""
        async with self._db.tenant(tenant.id) as conn:
            overrides = await self.overrides(conn, connection_id)
        vertical = Vertical(tenant.vertical)
        table = load_fields(driver)
        lines = []
        for obj in Object:
            defaults = {rule.slot: rule for rule in table.rules(obj, vertical)}
            joined = {part: rule for rule in defaults.values() for part in rule.join}
            for slot in slots_for(obj, vertical).values():
                override = overrides.get(obj, {}).get(slot.name)
                rule, origin = override, "tenant"
                if rule is None and slot.name in defaults:
                    rule, origin = _as_rule(defaults[slot.name]), "driver"
                elif rule is None and slot.name in joined:
                    rule, origin = Rule(path=joined[slot.name].path, direction="write"), "driver"
                if rule is None or rule.path is None:
                    origin = "unmapped" if rule is None else origin
                lines.append(
                    MappedSlot(
                        object=obj,
                        slot=slot.name,
                        type=slot.type.value,
                        origin=origin,
                        rule=rule,
                        help=slot.help,
                    )
                )
        return lines

    async def put(
        self,
        tenant: Tenant,
        connection_id: UUID,
        driver: type[CrmDriver],
        changes: AnyMapping[str, Rule | None],
        actor: str,
    ) -> None:
        """Set or (None) remove overrides, by slot path ``lead.budget_max``; all or none.

        Raises ValidationError naming every unknown slot and every rule that cannot work.
        """
        parsed, errors = _parse(tenant, changes)
        if not errors:
            errors = _try_rules(tenant, driver, parsed)
        if errors:
            raise ValidationError("The mapping was not changed.", fields=tuple(errors), operation="mapping")
        async with self._db.tenant(tenant.id) as conn:
            for (obj, slot), rule in parsed.items():
                if rule is None:
                    await store.delete_rule(conn, connection_id, obj, slot)
                else:
                    await store.put_rule(conn, tenant.id, connection_id, obj, slot, rule, actor)
                await self._audit.write(
                    conn,
                    AuditEntry(
                        tenant_id=tenant.id,
                        actor=actor,
                        action="mapping.changed",
                        connection_id=connection_id,
                        subject_id=f"{obj.value}.{slot}",
                        details={"path": rule.path if rule else "driver default"},
                    ),
                )


def _as_rule(rule: FieldRule) -> Rule:
    return Rule(
        path=rule.path,
        native=rule.native,
        format=rule.format,
        values=rule.values,
        constant=rule.constant,
        default=rule.default,
        direction=rule.direction,
    )


def _parse(
    tenant: Tenant, changes: AnyMapping[str, Rule | None]
) -> tuple[dict[tuple[Object, str], Rule | None], list[FieldError]]:
    parsed: dict[tuple[Object, str], Rule | None] = {}
    errors = []
    vertical = Vertical(tenant.vertical)
    for name, rule in changes.items():
        head, _, slot = name.partition(".")
        try:
            obj = Object(head)
        except ValueError:
            errors.append(FieldError(name, f"{head!r} is no object; use one of {', '.join(Object)}"))
            continue
        if slot not in slots_for(obj, vertical):
            known = ", ".join(slots_for(obj, vertical))
            errors.append(FieldError(name, f"no such slot for a {vertical.value} tenant; known: {known}"))
        elif rule is not None and rule.path is not None and not _PATH.fullmatch(rule.path):
            errors.append(
                FieldError(name, "path must be 1 to 200 characters without blanks, braces or controls")
            )
        else:
            parsed[obj, slot] = rule
    return parsed, errors


def _try_rules(
    tenant: Tenant, driver: type[CrmDriver], parsed: dict[tuple[Object, str], Rule | None]
) -> list[FieldError]:
    """Build each changed map once, so that a rule that cannot work is refused now and not at the first write."""
    errors = []
    for (obj, slot), rule in parsed.items():
        if rule is None:
            continue
        try:
            build_field_map(tenant, driver, obj, {obj: {slot: rule}})
        except (ValueError, msgspec.ValidationError) as error:
            errors.append(FieldError(f"{obj.value}.{slot}", str(error)))
        except ValidationError as error:
            errors.extend(error.fields or (FieldError(f"{obj.value}.{slot}", error.message),))
    return errors
