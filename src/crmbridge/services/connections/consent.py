"""Consent: from a link, over the provider's page and its callback, to a tested ``pending`` credential."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from crmbridge.core.driver import CrmDriver, refuse
from crmbridge.core.errors import AuthError, Conflict, CrmError, Fix, NotFound, UnexpectedResponse
from crmbridge.core.manifest import AuthKind
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.secret import Secret
from crmbridge.db.pool import Database
from crmbridge.services.connections import store
from crmbridge.services.connections.access import OFFLINE
from crmbridge.services.connections.forms import read_form
from crmbridge.services.connections.model import TestReport
from crmbridge.services.oauth.model import Flow, FlowRefused, FlowState, Link, Redirect, TokenSet
from crmbridge.services.oauth.service import ACCESS_TOKEN, REFRESH_TOKEN, OAuth
from crmbridge.services.tenants.model import Tenant
from crmbridge.toolkit.egress import EgressPolicy

if TYPE_CHECKING:
    from crmbridge.services.connections.service import Connections

__all__ = ["Connected", "Consent"]

# What a callback carries besides facts of the provider.
_OWN = frozenset({"state", "code", "error", "error_description", "error_uri"})
_MOST_PARAMETERS = 20


class Connected(msgspec.Struct, kw_only=True):
    """What a callback came to: a credential, tested."""

    tenant: Tenant
    display_name: str
    report: TestReport


class Consent:
    """OAuth authorization code, from the operator's wish to the row in ``tenant_credentials``."""

    def __init__(
        self,
        owner: Connections,
        *,
        db: Database,
        oauth: OAuth,
        policy: EgressPolicy,
        load_driver: Callable[[str], type[CrmDriver]],
    ) -> None:
        self._owner = owner
        self._db = db
        self._oauth = oauth
        self._policy = policy
        self._load = load_driver

    async def start(
        self, tenant: Tenant, driver: str, form: Mapping[str, str], *, actor: str, name: str = "primary"
    ) -> Link:
        """A link for the person who may consent. Nothing is connected yet.

        Raises Unsupported (a reserved driver), Conflict (a driver that is connected by form), GateClosed,
        ValidationError (each bad setting named), NotConfigured (no OAuth app).
        """
        driver_class = self._load(driver)
        base = driver_class.MANIFEST
        if base.why_unavailable:
            raise refuse(base, None, Operation.CREATE)
        answers = read_form(base, form, self._policy)
        manifest = driver_class.manifest_for(answers.settings)
        if manifest.auth.kind is not AuthKind.OAUTH_CODE:
            raise Conflict(
                f"{base.display_name} is connected by a form, not by consent.",
                provider=driver,
                fix=Fix(
                    "fill_in",
                    f"`crmbridge connect {tenant.slug} {driver}`, or POST /api/tenants/{tenant.slug}/credentials with "
                    "its settings.",
                ),
            )
        await self._owner.check_gate(tenant, manifest)
        return await self._oauth.start(
            tenant, manifest, answers.settings, answers.secrets, connection=name, actor=actor
        )

    async def begin(self, handle: str, cookie: str) -> Redirect:
        """A visit of the link. Raises FlowRefused."""
        return await self._oauth.begin(handle, cookie, self._load)

    async def complete(self, parameters: Mapping[str, str], cookie: str) -> Connected:
        """The provider's callback. Raises FlowRefused (state, cookie), AuthError (consent denied), CrmError.

        A credential that was made and whose live test fails is no exception: the report says so.
        """
        flow = await self._oauth.take(parameters.get("state", ""), cookie)
        try:
            return await self._complete(flow, parameters)
        except CrmError as error:
            error.provider = error.provider or flow.driver
            await self._oauth.fail(flow, error)
            raise

    async def _complete(self, flow: Flow, parameters: Mapping[str, str]) -> Connected:
        driver = self._load(flow.driver)
        manifest = driver.manifest_for(flow.settings)
        tenant = await self._owner.tenant(flow.tenant_id)
        if "error" in parameters:
            raise _denied(manifest.display_name, parameters["error"])
        code = parameters.get("code", "")
        if not code or len(code) > 4096 or not code.isprintable() or len(parameters) > _MOST_PARAMETERS:
            raise FlowRefused("The provider's answer holds no usable code.")
        await self._owner.check_gate(tenant, manifest)
        facts = driver.callback_facts({name: text for name, text in parameters.items() if name not in _OWN})
        tokens = await self._oauth.exchange(driver, flow, Secret(code), facts)
        await self._insert(tenant, driver, flow, tokens)
        report = await self._owner.test(tenant, flow.id, actor=flow.actor)
        return Connected(tenant=tenant, display_name=manifest.display_name, report=report)

    async def _insert(self, tenant: Tenant, driver: type[CrmDriver], flow: Flow, tokens: TokenSet) -> None:
        manifest = driver.manifest_for(flow.settings)
        secrets = {**flow.secrets, ACCESS_TOKEN: tokens.access_token}
        missing = []
        if tokens.refresh_token:
            secrets[REFRESH_TOKEN] = tokens.refresh_token
        elif tokens.expires_in is not None:
            missing.append(OFFLINE)
        # RFC 6749 section 5.1: no scope in the answer means all that were asked for.
        scopes = list(manifest.auth.scopes) if tokens.scopes is None else tokens.scopes
        missing += driver.missing_scopes(frozenset(scopes))
        async with self._db.tenant(tenant.id) as conn:
            await self._owner.insert_credential(
                conn, tenant, flow.driver, flow.connection, flow.id, flow.settings, secrets, actor=flow.actor
            )
            await store.save_grant(
                conn,
                flow.id,
                facts=tokens.facts,
                scopes=scopes,
                missing_rights=missing,
                expires_in=tokens.expires_in,
                is_renewed_ahead=REFRESH_TOKEN in secrets,
            )
            await self._oauth.finish(conn, flow)

    async def state_of(self, tenant: Tenant, flow_id: UUID) -> FlowState:
        """How far a flow is; ``done`` when its credential is there. Raises NotFound."""
        found = await self._oauth.state_of(tenant, flow_id)
        if found is not None:
            return found
        for credential in await self._owner.credentials(tenant):
            if credential.id == flow_id:
                return FlowState(flow_id=flow_id, state="done" if credential.tested_at else "exchanging")
        raise NotFound(
            "There is no such flow, or it has expired.", fix=Fix("start_again", "Ask for a new link.")
        )


def _denied(display_name: str, code: str) -> CrmError:
    if code == "access_denied":
        return AuthError(
            f"The person at {display_name} did not consent.",
            subcode="insufficient_scope",
            fix=Fix("start_again", "Start again, and consent with a user who may grant these rights."),
        )
    # The provider's own text is not shown: it comes by way of a browser.
    known = code if len(code) <= 60 and code.replace("_", "").isalnum() and code.isascii() else "unknown"
    return UnexpectedResponse(
        f"{display_name} ended the consent with the error {known}.",
        outcome=Outcome.NOT_APPLIED,
        fix=Fix("check_oauth_app", "Check scopes and redirect address of the OAuth app, then start again."),
    )
