"""Overlap: while a new secret takes over, the one in use goes along, so the other side may change at any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from crmbridge.core.driver import CrmDriver
from crmbridge.core.manifest import Manifest
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.connections import store
from crmbridge.services.connections.lending import Lending
from crmbridge.services.connections.model import Held
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.service import Vault

__all__ = ["Overlap"]


class Overlap:
    """Begins with a new credential on a connection in use, and ends with the old one's revocation."""

    def __init__(
        self, *, db: Database, vault: Vault, lending: Lending, load_driver: Callable[[str], type[CrmDriver]]
    ) -> None:
        self._db = db
        self._vault = vault
        self._lending = lending
        self._load = load_driver

    async def begun(
        self, tenant: Tenant, manifest: Manifest, name: str, secrets: Mapping[str, Secret]
    ) -> dict[str, Secret]:
        """The secrets of a new credential, with those in use under the settings that follow them."""
        following = [one for one in manifest.settings if one.follows and one.name not in secrets]
        if not following:
            return dict(secrets)
        async with self._db.tenant(tenant.id) as conn:
            current = await store.read_connection(conn, name=name)
        if current is None or current.held is None or current.driver != manifest.slug:
            return dict(secrets)
        in_use = await self._lending.open(tenant, current.held)
        carried = {
            one.name: in_use[one.follows]
            for one in following
            if one.follows in in_use and in_use[one.follows] != secrets.get(one.follows)
        }
        return {**secrets, **carried}

    async def end(self, tenant: Tenant, revoked_id: UUID) -> bool:
        """Take the revoked credential's secrets out of the one that followed it. True when there was something."""
        async with self._db.tenant(tenant.id) as conn:
            followers = [one for one in await store.list_credentials(conn) if one.previous_id == revoked_id]
            held = [await store.read_credential(conn, one.id) for one in followers]
            ended = [await self._without(conn, tenant, one) for one in held if one is not None]
        return any(ended)

    async def _without(self, conn: object, tenant: Tenant, held: Held) -> bool:
        credential = held.credential
        names = {one.name for one in self._load(credential.driver).MANIFEST.settings if one.follows}
        secrets = await self._lending.open(tenant, held) if names else {}
        if not names & set(secrets):
            return False
        sealed = await self._vault.seal_credential(
            {name: secret for name, secret in secrets.items() if name not in names},
            tenant_id=tenant.id,
            driver=credential.driver,
            credential_id=credential.id,
            row_version=credential.row_version + 1,
        )
        return await store.reseal(conn, credential.id, credential.row_version, sealed)
