"""DriverContract: all topics in one class; LiveContract: the same against a real CRM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from crmbridge.conformance.batch import BatchTopic
from crmbridge.conformance.cases import NotApplicable
from crmbridge.conformance.connection import ConnectionTopic
from crmbridge.conformance.deletes import DeletesTopic
from crmbridge.conformance.erasure import ErasureTopic
from crmbridge.conformance.failures import FailuresTopic
from crmbridge.conformance.harness import Bench
from crmbridge.conformance.idempotency import IdempotencyTopic
from crmbridge.conformance.limits import LimitsTopic
from crmbridge.conformance.manifest import ManifestTopic
from crmbridge.conformance.paging import PagingTopic
from crmbridge.conformance.round_trip import RoundTripTopic
from crmbridge.conformance.secrecy import SecrecyTopic
from crmbridge.conformance.support import SupportTopic
from crmbridge.conformance.tenancy import TenancyTopic
from crmbridge.core.driver import Access
from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Operation
from crmbridge.core.secret import Secret
from crmbridge.core.wire import Transport

__all__ = ["DriverContract", "LiveContract"]


class DriverContract(
    SecrecyTopic,
    TenancyTopic,
    ErasureTopic,
    DeletesTopic,
    BatchTopic,
    LimitsTopic,
    FailuresTopic,
    IdempotencyTopic,
    PagingTopic,
    RoundTripTopic,
    SupportTopic,
    ConnectionTopic,
    ManifestTopic,
):
    """Subclass it with ``driver`` and ``emulator``; see :class:`crmbridge.conformance.harness.Harness`."""


class LiveContract(DriverContract):
    """The contract against a real CRM: what needs an emulator does not apply, what was made is deleted.

    ``live_settings`` and ``live_secrets`` are a credential of a test account. The transport is ``egress``
    unless :meth:`live_transport` is overridden. Records that the provider does not let go are listed in
    ``left_behind`` as (object, remote id).
    """

    live_settings: ClassVar[dict[str, str]] = {}
    live_secrets: ClassVar[dict[str, str]] = {}
    egress_allow: ClassVar[tuple[str, ...]] = ()
    left_behind: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def manifest(cls) -> Any:
        """The manifest under the live settings."""
        return cls.driver.manifest_for(cls.live_settings)

    async def make(
        self,
        *,
        variant: str = "",
        settings: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        is_prepared: bool = True,
    ) -> Bench:
        """A bench before the live CRM. Raises NotApplicable where a second account would be needed."""
        if variant:
            raise NotApplicable("needs two accounts")
        texts = {**self.live_secrets, **(secrets or {})}
        access = Access(
            settings={**self.live_settings, **(settings or {})},
            secrets={name: Secret(text) for name, text in texts.items()},
            transport=self.live_transport(),
        )
        return await self.bench(access, None, is_prepared=is_prepared)

    def live_transport(self) -> Transport:
        """Egress with the policy of ``egress_allow``, closed after the test."""
        from crmbridge.toolkit.egress import Egress, EgressPolicy

        if "_egress" not in self.__dict__:
            self.__dict__["_egress"] = Egress(EgressPolicy(allow=self.egress_allow))
        transport: Transport = self.__dict__["_egress"]
        return transport

    async def clean(self) -> None:
        """Deletes what the test made, newest first; then closes the transport."""
        for bench in self.benches:
            for obj, remote_id in reversed(bench.made):
                try:
                    if not bench.driver.manifest.supports(obj, Operation.DELETE).is_usable:
                        raise NotApplicable("no delete")
                    await bench.driver.delete_record(obj, remote_id)
                except NotApplicable:
                    self.left_behind.append((obj.value, remote_id))
                except CrmError as error:
                    if error.code != "not_found":
                        self.left_behind.append((obj.value, remote_id))
        self.benches.clear()
        egress = self.__dict__.pop("_egress", None)
        if egress is not None:
            await egress.close()
