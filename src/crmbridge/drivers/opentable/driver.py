"""OpenTable: a registered slug without an implementation.

OpenTable documents its APIs, and opens them only to those who have an agreement with OpenTable and a client
id that it issues: https://platform.opentable.com/documentation/ and https://docs.opentable.com/ (Platform
Policy, read 2026-11-22). There is no public API by which an agent may read or write a restaurant's guests
and bookings. Restaurants on OpenTable connect ``custom_webhook`` to an adapter that a partner builds.
"""

from __future__ import annotations

from crmbridge.core.driver import CrmDriver, Proof, refuse
from crmbridge.core.manifest import Auth, AuthKind, Manifest
from crmbridge.core.operations import Operation
from crmbridge.core.records import Write, WriteResult

MANIFEST = Manifest(
    slug="opentable",
    display_name="OpenTable",
    api_version="none",
    pages=("https://platform.opentable.com/documentation/", "https://docs.opentable.com/"),
    read_on="2026-11-22",
    auth=Auth(kind=AuthKind.NONE),
    verticals=("restaurant",),
    verification_note="nothing to verify: no calls leave",
    why_unavailable=(
        "OpenTable has no public API for reading or writing guests and bookings; access is by partnership only."
        " Connect the custom_webhook driver to an adapter that a partner builds."
    ),
    setup_help="OpenTable cannot be connected. Choose custom_webhook instead.",
)


class OpenTable(CrmDriver):
    """Refuses every verb with ``unsupported/driver_unavailable`` before a socket opens."""

    MANIFEST = MANIFEST

    async def test_connection(self) -> Proof:
        """Raises Unsupported, as every other verb does."""
        raise refuse(self.manifest, None, Operation.GET)

    async def find_written(self, write: Write) -> WriteResult:
        """Raises Unsupported: nothing can have been written."""
        raise refuse(self.manifest, write.object, write.operation)
