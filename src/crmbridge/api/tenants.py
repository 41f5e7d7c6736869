"""Tenants, their API keys, connections, credentials and mappings."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, post, put

from crmbridge.api.authentication import object_named, require_admin, tenant_of
from crmbridge.api.bodies import ConnectBody, KeyBody, MappingBody, TenantBody
from crmbridge.api.catalogue import supports
from crmbridge.api.parameters import FromPath, FromQuery, House, JSONBody, Who
from crmbridge.drivers import load
from crmbridge.services.connections.model import Credential, TestReport
from crmbridge.services.tenants.model import Tenant

__all__ = ["CredentialRoutes", "MappingRoutes", "TenantRoutes"]


class TenantRoutes(Controller):
    """Operators make tenants and keys."""

    path = "/api/tenants"
    tags = ("tenants",)

    @get(summary="All tenants (operator)")
    async def list_tenants(self, services: House, who: Who) -> dict[str, list[Tenant]]:
        require_admin(who)
        return {"tenants": await services.tenants.list()}

    @post(summary="A new tenant (operator)")
    async def add_tenant(self, services: House, who: Who, data: JSONBody[TenantBody]) -> Tenant:
        require_admin(who)
        return await services.tenants.add(
            slug=data.slug,
            name=data.name,
            vertical=data.vertical,
            region=data.region,
            time_zone=data.time_zone,
            unknown_slots=data.unknown_slots,
            actor=who.actor,
        )

    @get("/{tenant:str}", summary="One tenant")
    async def read_tenant(self, services: House, who: Who, tenant: FromPath[str]) -> Tenant:
        who.require("read")
        return await tenant_of(services, who, tenant)

    @get("/{tenant:str}/keys", summary="API keys of a tenant (operator)")
    async def list_keys(self, services: House, who: Who, tenant: FromPath[str]) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return {"keys": await services.tenants.list_keys(found)}

    @post("/{tenant:str}/keys", summary="A new API key for a tenant (operator); the token is shown once")
    async def add_key(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[KeyBody]
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        key, token = await services.tenants.create_key(found, data.name, data.scopes, who.actor)
        return {"key": key, "token": token}

    @delete("/{tenant:str}/keys/{key_id:uuid}", summary="Revoke an API key (operator)")
    async def revoke_key(
        self, services: House, who: Who, tenant: FromPath[str], key_id: FromPath[UUID]
    ) -> None:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        await services.tenants.revoke_key(found, key_id, who.actor)

    @get("/{tenant:str}/connections", summary="Connections of a tenant")
    async def list_connections(self, services: House, who: Who, tenant: FromPath[str]) -> dict[str, Any]:
        who.require("read")
        found = await tenant_of(services, who, tenant)
        return {"connections": await services.connections.summaries(found.id)}

    @get("/{tenant:str}/supports", summary="What the tenant's CRM can do, before asking it")
    async def read_supports(
        self, services: House, who: Who, tenant: FromPath[str], connection: FromQuery[str] = "primary"
    ) -> dict[str, Any]:
        who.require("read")
        found = await tenant_of(services, who, tenant)
        opened = await services.connections.open(found.id, name=connection)
        return {"driver": opened.driver, "objects": supports(opened.manifest)}

    @get("/{tenant:str}/schema/{object_name:str}", summary="The live schema of one object in the CRM")
    async def read_schema(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        object_name: FromPath[str],
        connection: FromQuery[str] = "",
    ) -> dict[str, Any]:
        who.require("read")
        found = await tenant_of(services, who, tenant)
        obj = object_named(object_name)
        opened = await services.connections.routing.open(found.id, obj, connection)
        return {"fields": await opened.describe(obj, actor=who.actor, request_id=who.request_id)}


class CredentialRoutes(Controller):
    """Connect by form, test live, activate, revoke."""

    path = "/api/tenants/{tenant:str}/credentials"
    tags = ("connections",)

    @get(summary="Credentials of a tenant, newest first, without secrets")
    async def list_credentials(
        self, services: House, who: Who, tenant: FromPath[str]
    ) -> dict[str, list[Credential]]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return {"credentials": await services.connections.credentials(found)}

    @post(summary="Connect by form: a pending credential; values that crmbridge made are shown once")
    async def connect(
        self, services: House, who: Who, tenant: FromPath[str], data: JSONBody[ConnectBody]
    ) -> Credential:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.connect(
            found, data.driver, data.settings, actor=who.actor, name=data.connection
        )

    @post("/{credential_id:uuid}/test", status_code=200, summary="Live test: the provider's lightest call")
    async def test(
        self, services: House, who: Who, tenant: FromPath[str], credential_id: FromPath[UUID]
    ) -> TestReport:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.test(found, credential_id, actor=who.actor)

    @post("/{credential_id:uuid}/activate", status_code=200, summary="Use this credential from now on")
    async def activate(
        self, services: House, who: Who, tenant: FromPath[str], credential_id: FromPath[UUID]
    ) -> Credential:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.activate(found, credential_id, actor=who.actor)

    @post("/{credential_id:uuid}/revoke", status_code=200, summary="Never use this credential again")
    async def revoke(
        self, services: House, who: Who, tenant: FromPath[str], credential_id: FromPath[UUID]
    ) -> Credential:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        return await services.connections.revoke(found, credential_id, actor=who.actor)


class MappingRoutes(Controller):
    """The effective field map and its overrides."""

    path = "/api/tenants/{tenant:str}/mappings"
    tags = ("mappings",)

    @get(summary="The effective map: driver defaults and the tenant's overrides")
    async def read_mappings(
        self, services: House, who: Who, tenant: FromPath[str], connection: FromQuery[str] = "primary"
    ) -> dict[str, Any]:
        who.require("read")
        found = await tenant_of(services, who, tenant)
        opened = await services.connections.open(found.id, name=connection)
        lines = await services.mapping.read(found, opened.id, load(opened.driver))
        return {"driver": opened.driver, "mappings": msgspec.to_builtins(lines)}

    @put(summary="Set overrides by slot path; null goes back to the driver's own rule")
    async def change_mappings(
        self,
        services: House,
        who: Who,
        tenant: FromPath[str],
        data: JSONBody[MappingBody],
        connection: FromQuery[str] = "primary",
    ) -> dict[str, Any]:
        require_admin(who)
        found = await tenant_of(services, who, tenant)
        opened = await services.connections.open(found.id, name=connection)
        await services.mapping.put(found, opened.id, load(opened.driver), data.changes, who.actor)
        services.connections.mapping_changed(found.id)
        lines = await services.mapping.read(found, opened.id, load(opened.driver))
        return {"driver": opened.driver, "mappings": msgspec.to_builtins(lines)}
