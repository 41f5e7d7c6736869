"""Apps, links to consent, and tokens. Where tokens are kept is the connections room's affair."""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from crmbridge.core.driver import Access, CrmDriver
from crmbridge.core.errors import (
    AuthError,
    CrmError,
    FieldError,
    Fix,
    NotConfigured,
    NotFound,
    ValidationError,
)
from crmbridge.core.manifest import AuthKind, Manifest
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.db.pool import Database
from crmbridge.services.audit import AuditEntry, AuditLog
from crmbridge.services.oauth import protocol, store
from crmbridge.services.oauth.model import (
    App,
    Client,
    Flow,
    FlowRefused,
    FlowState,
    Link,
    Redirect,
    TokenRefused,
    TokenSet,
)
from crmbridge.services.oauth.tokens import hashed, named_token, tenant_in
from crmbridge.services.tenants.model import Tenant
from crmbridge.services.vault.service import Vault
from crmbridge.toolkit.auth import SecretRef
from crmbridge.toolkit.egress import Egress

__all__ = ["OAuth"]

LoadDriver = Callable[[str], type[CrmDriver]]

LINK_SECONDS = 600.0
_NO_LINK = "This link is not valid: it was used, or it is older than ten minutes."
ACCESS_TOKEN, REFRESH_TOKEN = "access_token", "refresh_token"
_VERIFIER = "code_verifier"
_APP, _STATE = "oauth_app", "oauth_state"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class OAuth:
    """The protocol, the installation's apps, and flows between a link and its callback.

    ``base_url`` is how browsers reach this server: links and the exact redirect URI are built from it.
    """

    def __init__(self, *, db: Database, audit: AuditLog, vault: Vault, egress: Egress, base_url: str) -> None:
        self._db = db
        self._audit = audit
        self._vault = vault
        self._egress = egress
        self.base_url = base_url.rstrip("/")

    @property
    def redirect_uri(self) -> str:
        """The one address that every provider's app must have registered, to the letter."""
        return f"{self.base_url}/oauth/callback"

    @property
    def is_secure(self) -> bool:
        """False only for a plain http address, which settings allow for loopback alone."""
        return self.base_url.startswith("https:")

    # -- the installation's apps -------------------------------------------------------------------------------

    async def put_app(self, driver: str, client_id: str, client_secret: Secret, actor: str) -> App:
        """Set client id and secret of our app at a provider. Raises ValidationError for an empty or broken one."""
        client_id = client_id.strip()
        problems = []
        if not 1 <= len(client_id) <= 500 or not client_id.isprintable():
            problems.append(FieldError("client_id", "client_id must be one line of 1 to 500 characters."))
        if not client_secret:
            problems.append(
                FieldError("client_secret", "client_secret is empty; copy it from the app's page.")
            )
        if problems:
            raise ValidationError("The OAuth app cannot be saved.", fields=tuple(problems))
        sealed = await self._vault.seal_secrets(
            {"client_id": Secret(client_id), "client_secret": client_secret},
            tenant_id=None,
            kind=_APP,
            row=driver,
        )
        async with self._db.system() as conn:
            app = await store.save_app(conn, driver, client_id, sealed, actor)
            await self._audit.write(
                conn,
                AuditEntry(None, actor, "oauth_app.changed", subject_id=driver, details={"driver": driver}),
            )
        return app

    async def apps(self) -> list[App]:
        """All apps, without their secrets."""
        async with self._db.system() as conn:
            return await store.list_apps(conn)

    async def remove_app(self, driver: str, actor: str) -> None:
        """Forget an app. Raises NotFound."""
        async with self._db.system() as conn:
            if not await store.delete_app(conn, driver):
                raise NotFound(f"There is no OAuth app for {driver!r}.")
            await self._audit.write(
                conn,
                AuditEntry(None, actor, "oauth_app.removed", subject_id=driver, details={"driver": driver}),
            )

    async def client(
        self, manifest: Manifest, settings: Mapping[str, str], secrets: Mapping[str, Secret]
    ) -> Client:
        """The tenant's own client where its form has one, else the installation's app. Raises NotConfigured."""
        id_name, secret_name = manifest.auth.user or "client_id", manifest.auth.secret or "client_secret"
        own_id = secrets.get(id_name) or Secret(settings.get(id_name, ""))
        own_secret = secrets.get(secret_name)
        if own_id and own_secret:
            return Client(client_id=own_id, client_secret=own_secret, is_tenants=True)
        async with self._db.system() as conn:
            sealed = await store.read_app(conn, manifest.slug)
        if sealed is None:
            raise NotConfigured(
                f"There is no OAuth app for {manifest.display_name}, and the form has no client id and secret.",
                subcode="oauth_app_missing",
                provider=manifest.slug,
                fix=Fix(
                    "set_oauth_app",
                    f"Register an app at {manifest.display_name} with the redirect address {self.redirect_uri}, "
                    f"then `crmbridge oauth set-app {manifest.slug}` or PUT /api/oauth/apps/{manifest.slug}.",
                ),
            )
        opened = await self._vault.open_secrets(sealed, tenant_id=None, kind=_APP, row=manifest.slug)
        return Client(**opened, is_tenants=False)

    # -- from a link to its callback ---------------------------------------------------------------------------

    async def start(
        self,
        tenant: Tenant,
        manifest: Manifest,
        settings: dict[str, str],
        secrets: Mapping[str, Secret],
        *,
        connection: str,
        actor: str,
    ) -> Link:
        """A link to consent, good for ten minutes. Raises NotConfigured without an app or a setting of its URL."""
        await self.client(manifest, settings, secrets)
        protocol.authorize_url(manifest, "", settings, redirect_uri=self.redirect_uri, state="")
        flow_id, handle = uuid4(), named_token(tenant.id)
        sealed = await self._seal(tenant.id, flow_id, secrets)
        async with self._db.tenant(tenant.id) as conn:
            expires_at = await store.insert_state(
                conn,
                flow_id=flow_id,
                tenant_id=tenant.id,
                driver=manifest.slug,
                connection=connection,
                settings=settings,
                sealed=sealed,
                handle_hash=hashed(handle),
                actor=actor,
                seconds=LINK_SECONDS,
            )
            await self._audit.write(
                conn,
                AuditEntry(
                    tenant.id,
                    actor,
                    "oauth.started",
                    subject_id=str(flow_id),
                    details={"driver": manifest.slug, "connection": connection},
                ),
            )
        return Link(url=f"{self.base_url}/oauth/begin/{handle}", flow_id=flow_id, expires_at=expires_at)

    async def begin(self, handle: str, cookie: str, load_driver: LoadDriver) -> Redirect:
        """The visit of a link: a new state, bound to this browser. An earlier visit's state stops working.

        ``cookie`` is what the browser sent already, kept so that two flows in one browser do not disturb each other.
        Raises FlowRefused.
        """
        tenant_id = tenant_in(handle)
        state = named_token(tenant_id)
        cookie = cookie if _TOKEN.fullmatch(cookie) else randomness.token_urlsafe(32)
        async with self._db.tenant(tenant_id) as conn:
            row = await store.visit(conn, hashed(handle))
        if row is None:
            raise FlowRefused(_NO_LINK)
        manifest = load_driver(row["driver"]).manifest_for(row["settings"])
        kept = await self._open(tenant_id, row["id"], row["sealed"])
        kept.pop(_VERIFIER, None)
        code_challenge = ""
        if manifest.auth.uses_pkce:
            verifier = randomness.token_urlsafe(48)
            kept[_VERIFIER] = Secret(verifier)
            code_challenge = protocol.challenge(verifier)
        client = await self.client(manifest, row["settings"], kept)
        sealed = await self._seal(tenant_id, row["id"], kept)
        async with self._db.tenant(tenant_id) as conn:
            if not await store.bind(conn, row["id"], hashed(state), hashed(cookie), sealed):
                raise FlowRefused(_NO_LINK)
        url = protocol.authorize_url(
            manifest,
            self._vault.show_once({"client_id": client.client_id}, ["client_id"])["client_id"],
            row["settings"],
            redirect_uri=self.redirect_uri,
            state=state,
            code_challenge=code_challenge,
        )
        return Redirect(url=url, cookie=cookie)

    async def take(self, state: str, cookie: str) -> Flow:
        """The flow of a callback, once. Raises FlowRefused, which says why."""
        tenant_id = tenant_in(state)
        async with self._db.tenant(tenant_id) as conn:
            row = await store.use(conn, hashed(state), hashed(cookie))
            why = None if row is not None else await store.why_refused(conn, hashed(state))
        if row is None:
            raise FlowRefused(_refusal(why))
        kept = await self._open(tenant_id, row["id"], row["sealed"])
        verifier = kept.pop(_VERIFIER, Secret(""))
        return Flow(
            id=row["id"],
            tenant_id=tenant_id,
            driver=row["driver"],
            connection=row["connection"],
            settings=row["settings"],
            secrets=kept,
            verifier=verifier,
            actor=row["actor"],
        )

    async def fail(self, flow: Flow, error: CrmError) -> None:
        """Keep why nothing came of a flow, for whoever waits for it."""
        async with self._db.tenant(flow.tenant_id) as conn:
            await store.fail(conn, flow.id, error.to_dict())
            await self._audit.write(
                conn,
                AuditEntry(
                    flow.tenant_id,
                    flow.actor,
                    "oauth.failed",
                    subject_id=str(flow.id),
                    details={"driver": flow.driver, "code": error.full_code},
                ),
            )

    async def finish(self, conn: Any, flow: Flow) -> None:
        """Remove a flow in the transaction that inserts its credential."""
        await store.finish(conn, flow.id)

    async def state_of(self, tenant: Tenant, flow_id: UUID) -> FlowState | None:
        """How far a flow is; None when it is unknown, or has become a credential of the same id."""
        async with self._db.tenant(tenant.id) as conn:
            row = await store.read_state(conn, flow_id)
        if row is None:
            return None
        if row["failure"] is not None:
            return FlowState(flow_id=flow_id, state="failed", error=row["failure"])
        if row["is_late"]:
            return FlowState(flow_id=flow_id, state="expired", expires_at=row["expires_at"])
        state = "exchanging" if row["used_at"] else "waiting"
        return FlowState(flow_id=flow_id, state=state, expires_at=row["expires_at"])

    # -- tokens ------------------------------------------------------------------------------------------------

    async def exchange(
        self, driver: type[CrmDriver], flow: Flow, code: Secret, facts: Mapping[str, str]
    ) -> TokenSet:
        """The tokens of a code. Raises CrmError: a refused code, a refused app, a provider that is down."""
        manifest = driver.manifest_for(flow.settings)
        grant: dict[str, Any] = {
            "grant_type": "authorization_code",
            "code": SecretRef("code"),
            "redirect_uri": self.redirect_uri,
        }
        given = {"code": code}
        if flow.verifier:
            grant[_VERIFIER] = SecretRef(_VERIFIER)
            given[_VERIFIER] = flow.verifier
        try:
            answer = await protocol.ask(
                driver,
                grant,
                client=await self.client(manifest, flow.settings, flow.secrets),
                secrets=given,
                settings=flow.settings,
                facts=facts,
                transport=self._egress,
            )
        except TokenRefused as refusal:
            if refusal.fault is TokenFault.REVOKED:
                raise AuthError(
                    f"{manifest.display_name} refuses the code: it was used already, is too old, or is not ours.",
                    subcode="invalid_credentials",
                    provider=manifest.slug,
                    operation="token",
                    fix=Fix("start_again", "Start the connection again and consent once more."),
                    provider_facts=refusal.error.provider_facts,
                ) from None
            raise refusal.error from None
        tokens = protocol.read_tokens(manifest.auth, answer)
        tokens.facts = {**facts, **protocol.facts_of(driver, answer)}
        return tokens

    async def renew(
        self,
        driver: type[CrmDriver],
        settings: dict[str, str],
        secrets: Mapping[str, Secret],
        facts: dict[str, str],
    ) -> TokenSet:
        """New tokens: by refresh token, by client credentials, or by the driver's own sign-in.

        The caller sees to it that one process asks at a time and that the answer is saved before it is used.
        Raises TokenRefused.
        """
        manifest = driver.manifest_for(settings)
        try:
            if driver.sign_in is not CrmDriver.sign_in:
                answer = await self._sign_in(driver, settings, secrets, facts)
            else:
                answer = await protocol.ask(
                    driver,
                    _renewal(manifest, secrets),
                    client=await self.client(manifest, settings, secrets),
                    secrets={name: secrets[name] for name in (REFRESH_TOKEN,) if name in secrets},
                    settings=settings,
                    facts=facts,
                    transport=self._egress,
                )
            tokens = protocol.read_tokens(manifest.auth, answer)
        except CrmError as error:
            error.provider = error.provider or manifest.slug
            raise TokenRefused(_fault_of(error), error) from None
        tokens.facts = protocol.renewed_facts(driver, answer)
        return tokens

    async def _sign_in(
        self,
        driver: type[CrmDriver],
        settings: dict[str, str],
        secrets: Mapping[str, Secret],
        facts: dict[str, str],
    ) -> dict[str, Any]:
        """The driver's own way, with the client id and secret under their setting names and without an old token."""
        manifest = driver.manifest_for(settings)
        given = {name: secret for name, secret in secrets.items() if name != ACCESS_TOKEN}
        id_name, secret_name = manifest.auth.user or "client_id", manifest.auth.secret or "client_secret"
        if manifest.auth.kind is AuthKind.CLIENT_CREDENTIALS:
            client = await self.client(manifest, settings, secrets)
            given.update({id_name: client.client_id, secret_name: client.client_secret})
        access = Access(settings=settings, secrets=given, transport=self._egress, facts=dict(facts))
        return await driver(access).sign_in()

    # -- sealing -----------------------------------------------------------------------------------------------

    async def _seal(self, tenant_id: UUID, flow_id: UUID, secrets: Mapping[str, Secret]) -> bytes:
        return await self._vault.seal_secrets(secrets, tenant_id=tenant_id, kind=_STATE, row=str(flow_id))

    async def _open(self, tenant_id: UUID, flow_id: UUID, sealed: bytes) -> dict[str, Secret]:
        return await self._vault.open_secrets(sealed, tenant_id=tenant_id, kind=_STATE, row=str(flow_id))


def _renewal(manifest: Manifest, secrets: Mapping[str, Secret]) -> dict[str, Any]:
    auth = manifest.auth
    if auth.kind is AuthKind.CLIENT_CREDENTIALS:
        grant: dict[str, Any] = {"grant_type": "client_credentials"}
        if auth.scopes:
            grant["scope"] = auth.scope_separator.join(auth.scopes)
        return grant
    if not secrets.get(REFRESH_TOKEN):
        raise AuthError(
            f"{manifest.display_name} gave no refresh token, and the access token is not accepted any more.",
            subcode="refresh_failed",
            fix=Fix("reconnect", f"Connect {manifest.display_name} again, with offline access."),
        )
    return {"grant_type": "refresh_token", "refresh_token": SecretRef(REFRESH_TOKEN)}


def _fault_of(error: CrmError) -> TokenFault:
    """The fault of an error that is no token answer (a driver's own sign-in, a missing refresh token)."""
    if isinstance(error, AuthError):
        return (
            TokenFault.REVOKED if error.subcode in ("refresh_failed", "revoked") else TokenFault.MISCONFIGURED
        )
    if error.code == "rate_limited":
        return TokenFault.THROTTLED
    return TokenFault.MISCONFIGURED if isinstance(error, NotConfigured) else TokenFault.TRANSIENT


def _refusal(why: Any) -> str:
    if why is None:
        return (
            "This answer of the provider belongs to no link of ours, or to one that was opened again since."
        )
    if why["is_used"]:
        return "This answer of the provider was used already."
    if why["is_late"]:
        return "This link is older than ten minutes."
    return "This link was opened in another browser, or its cookie is gone."
