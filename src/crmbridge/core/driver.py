"""CrmDriver: the only interface that the author of a driver meets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from crmbridge.core.errors import CrmError, Fix, Unsupported
from crmbridge.core.events import InboundEvent
from crmbridge.core.manifest import BudgetKind, LimitReading, Manifest
from crmbridge.core.operations import DeleteLevel, Operation, Outcome
from crmbridge.core.records import Change, FieldFact, Filter, Object, Page, Record, Write, WriteResult
from crmbridge.core.secret import Secret
from crmbridge.core.tokens import TokenFault
from crmbridge.core.wire import HttpResponse, Transport

__all__ = ["Access", "CrmDriver", "Proof", "refuse"]


class Access(msgspec.Struct, kw_only=True):
    """What a driver is given for one call: never kept longer.

    ``settings`` are the operator's non-secret settings, ``secrets`` the secret ones, ``facts`` what
    :meth:`CrmDriver.test_connection` and :meth:`CrmDriver.prepare` learned (server version, instance URL),
    ``mark_prefix`` a short text unique to the tenant, for external ids. ``renew`` puts a new access token (and new
    facts) into this access and answers True; the toolkit's exchange calls it once when a call is refused with 401.
    """

    settings: dict[str, str]
    secrets: dict[str, Secret]
    transport: Transport
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    mark_prefix: str = "crmbridge"
    renew: Callable[[], Awaitable[bool]] | None = None


class Proof(msgspec.Struct, kw_only=True):
    """What a passed live test proves. ``account`` names the CRM account for people (no secret).

    ``facts`` are kept beside the credential and handed to later calls. ``missing_rights`` names what the
    credential may not do, so that the gap shows at connect time and not at the first write.
    """

    account: str = ""
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    scopes: list[str] = msgspec.field(default_factory=list)
    missing_rights: list[str] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)


def refuse(manifest: Manifest, obj: Object | None, operation: Operation) -> Unsupported:
    """The error for a call that the manifest does not declare usable; raised before a socket opens."""
    if manifest.why_unavailable:
        return Unsupported(
            manifest.why_unavailable,
            subcode="driver_unavailable",
            provider=manifest.slug,
            operation=operation.value,
            fix=Fix("use_custom_webhook", "Connect the custom_webhook driver to an adapter of your own."),
        )
    if obj is not None and obj not in manifest.objects:
        return Unsupported(
            f"{manifest.display_name} has no {obj.value} in this driver.",
            subcode="object_unsupported",
            provider=manifest.slug,
            operation=operation.value,
        )
    support = manifest.supports(obj, operation) if obj is not None else None
    reason = support.reason if support else "not declared"
    is_removal = operation in (Operation.DELETE, Operation.ERASE)
    subcode = "delete_unsupported" if is_removal else "operation_unsupported"
    action = "erase_by_hand" if is_removal else "change_settings"
    what = f"{operation.value} of {obj.value}" if obj else operation.value
    return Unsupported(
        f"{manifest.display_name} does not offer {what}: {reason}.",
        subcode=subcode,
        provider=manifest.slug,
        operation=operation.value,
        fix=Fix(action, support.fix) if support and support.fix else None,
        provider_facts={"link": support.link} if support and support.link else None,
    )


class CrmDriver:
    """One provider. Subclasses override what the provider can do; everything else refuses.

    A driver works in the provider's own field names: mapping happens above it. It keeps no state between
    calls, never retries a write, and raises only :class:`crmbridge.core.errors.CrmError`.
    """

    MANIFEST: ClassVar[Manifest]

    def __init__(self, access: Access) -> None:
        self.access = access
        self.manifest = self.manifest_for(access.settings)

    @classmethod
    def manifest_for(cls, settings: Mapping[str, str]) -> Manifest:
        """The manifest under these settings. Only drivers whose manifest the operator writes override it."""
        return cls.MANIFEST

    @classmethod
    def budgets_from(cls, response: HttpResponse) -> Mapping[BudgetKind, LimitReading]:
        """What an answer tells of rate budgets, where ``Budget.headers`` cannot say it."""
        return {}

    # Tokens. A provider that keeps to RFC 6749 overrides none of these but, perhaps, token_facts.

    @classmethod
    def callback_facts(cls, parameters: Mapping[str, str]) -> dict[str, str]:
        """Facts in the provider's callback, before the code is exchanged (a data centre's accounts server).

        They fill ``{names}`` of ``auth.token_url`` and are pinned to the credential. The parameters come by way of a
        browser, so check them against a list of yours; raise EgressRefused for what is not on it.
        """
        return {}

    @classmethod
    def token_facts(cls, answer: Mapping[str, Any]) -> dict[str, str]:
        """Facts beside a token (instance URL, API domain), read anew at every refresh; tokens are taken out before."""
        return {}

    @classmethod
    def token_fault(cls, status: int, answer: Mapping[str, Any]) -> TokenFault | None:
        """The class of a token answer without a token (of any status); None = by RFC 6749 section 5.2."""
        return None

    @classmethod
    def missing_scopes(cls, granted: frozenset[str]) -> list[str]:
        """Scopes that the manifest asks for and the grant lacks."""
        return [scope for scope in cls.MANIFEST.auth.scopes if scope not in granted]

    async def sign_in(self) -> dict[str, Any]:
        """A token by the provider's own way, in the names of RFC 6749 (``access_token``, ``expires_in``, ``scope``).

        For ``sign_in`` and odd ``client_credentials`` providers. Called by one process at a time and its token is
        shared by all, so it keeps nothing. Raises AuthError when the provider refuses the secrets.
        """
        raise refuse(self.manifest, None, Operation.GET)

    async def test_connection(self) -> Proof:
        """The lightest call that proves the credential. Raises AuthError, Unavailable, EgressRefused, …"""
        raise refuse(self.manifest, None, Operation.GET)

    async def prepare(self) -> dict[str, str]:
        """Makes what must exist at the provider before the first write; answers further facts."""
        return {}

    async def describe(self, obj: Object) -> list[FieldFact]:
        """The live schema of the native object."""
        raise refuse(self.manifest, obj, Operation.DESCRIBE)

    async def lookup_customer(self, *, phone: str = "", email: str = "") -> list[Record]:
        """Customers with this E.164 phone or this e-mail, best match first, at most 20."""
        raise refuse(self.manifest, Object.CUSTOMER, Operation.LOOKUP)

    async def search_records(self, obj: Object, filter: Filter, cursor: str = "") -> Page:
        """One page of records that match."""
        raise refuse(self.manifest, obj, Operation.SEARCH)

    async def get_record(self, obj: Object, remote_id: str) -> Record:
        """One record. Raises NotFound."""
        raise refuse(self.manifest, obj, Operation.GET)

    async def list_recent(self, obj: Object, *, since: str = "", cursor: str = "", limit: int = 50) -> Page:
        """Records by last change, newest first; ``since`` is RFC 3339 UTC."""
        raise refuse(self.manifest, obj, Operation.LIST)

    async def create_record(self, write: Write) -> WriteResult:
        """Creates. Raises CrmError with its outcome; never retries."""
        raise refuse(self.manifest, write.object, Operation.CREATE)

    async def update_record(self, write: Write) -> WriteResult:
        """Changes the named fields of ``write.remote_id``; others stay."""
        raise refuse(self.manifest, write.object, Operation.UPDATE)

    async def upsert_record(self, write: Write) -> WriteResult:
        """Updates the one record that matches ``write.match``, else creates; refuses more than one match."""
        raise refuse(self.manifest, write.object, Operation.UPSERT)

    async def delete_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        """The provider's ordinary delete; answers the level it reached. Raises NotFound, Unsupported."""
        raise refuse(self.manifest, obj, Operation.DELETE)

    async def erase_record(self, obj: Object, remote_id: str) -> DeleteLevel:
        """The privacy delete, second stage included. Raises NotFound, Unsupported."""
        raise refuse(self.manifest, obj, Operation.ERASE)

    async def write_batch(self, writes: Sequence[Write]) -> list[WriteResult]:
        """One outcome per write, in order. All writes share object and operation.

        Drivers with a provider batch override this; the default sends one by one. A CrmError of one write
        does not touch the others.
        """
        return [await self.write_one(write) for write in writes]

    async def write_one(self, write: Write) -> WriteResult:
        """Any one write, with a CrmError turned into its result."""
        try:
            if write.operation is Operation.CREATE:
                return await self.create_record(write)
            if write.operation is Operation.UPDATE:
                return await self.update_record(write)
            if write.operation is Operation.UPSERT:
                return await self.upsert_record(write)
            if write.operation is Operation.ERASE:
                level = await self.erase_record(write.object, write.remote_id)
            else:
                level = await self.delete_record(write.object, write.remote_id)
        except CrmError as error:
            return WriteResult(outcome=error.outcome, remote_id=write.remote_id, error=error)
        return WriteResult(outcome=Outcome.APPLIED, remote_id=write.remote_id, delete_level=level.value)

    async def find_written(self, write: Write) -> WriteResult:
        """Looks for the effect of a write whose outcome is unknown.

        ``applied`` with the remote id when the mark is found, ``not_applied`` when its absence is certain,
        ``unknown`` when it cannot be told. Never sends the write.
        """
        return WriteResult(outcome=Outcome.UNKNOWN)

    async def changes(self, obj: Object, cursor: str = "") -> tuple[list[Change], str]:
        """Changes after ``cursor`` and the next cursor; may repeat, never skips."""
        raise refuse(self.manifest, obj, Operation.CHANGES)

    async def verify_event(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether an inbound webhook is genuine."""
        raise refuse(self.manifest, None, Operation.CHANGES)

    async def parse_events(self, headers: Mapping[str, str], body: bytes) -> list[InboundEvent]:
        """The events of a verified webhook."""
        raise refuse(self.manifest, None, Operation.CHANGES)

    async def revoke(self) -> bool:
        """Revokes the credential at the provider; False where no such call exists."""
        return False

    def record_url(self, obj: Object, remote_id: str) -> str:
        """The page of the record for people, or an empty text."""
        return ""

    def preview(self, write: Write) -> Any:
        """What would be sent, for ``mode: plan``; nothing leaves."""
        return {"fields": write.fields, "related": [msgspec.to_builtins(part) for part in write.related]}
