"""The health-data gate of a tenant."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, delete, get, put

from crmbridge.api.authentication import require_admin, tenant_of
from crmbridge.api.bodies import GateBody
from crmbridge.api.parameters import FromPath, House, JSONBody, Who
from crmbridge.services.tenants.model import Gate

__all__ = ["GateRoutes"]


class GateRoutes(Controller):
    """Record the BAA and the compliance review; no call of a health-data driver leaves without both."""

    path = "/api/tenants/{tenant:str}/gate"
    tags = ("tenants",)

    @get(summary="What is recorded, and whether the gate is open (operator)")
    async def read_gate(self, services: House, who: Who, tenant: FromPath[str]) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return _shown(await services.tenants.gate(found.id))

    @put(summary="Record the papers (operator); all five open the gate")
    async def record_gate(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[GateBody]
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        gate = Gate(
            baa_reference=data.baa_reference.strip(),
            baa_signatory=data.baa_signatory.strip(),
            baa_signed_on=data.baa_signed_on,
            reviewer=data.reviewer.strip(),
            reviewed_on=data.reviewed_on,
        )
        return _shown(await services.tenants.record_gate(found, gate, who.actor))

    @delete(status_code=200, summary="Shut the gate (operator); calls stop within seconds, the papers stay")
    async def close_gate(self, services: House, who: Who, tenant: FromPath[str]) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return _shown(await services.tenants.close_gate(found, who.actor))


def _shown(gate: Gate) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(gate)
    return {"is_open": gate.is_open, "missing": gate.missing, **shown}
