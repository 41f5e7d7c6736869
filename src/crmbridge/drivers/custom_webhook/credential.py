"""What an operator fills in to connect a receiver."""

from __future__ import annotations

from crmbridge.core.manifest import Setting

__all__ = ["SETTINGS"]

SETTINGS = (
    Setting(
        name="url",
        label="Receiver URL",
        help="The https address that takes POST requests with JSON. Redirects are not followed.",
        kind="url",
        pattern=r"https?://[^\s]{3,2000}",
        example="https://crm-bridge.example.com/hooks/crmbridge",
    ),
    Setting(
        name="secret",
        label="Signing secret",
        help="Made by crmbridge and shown once; the receiver verifies signatures with it. Paste one of "
        "your own (whsec_ and base64 of 24 to 64 bytes) to keep an existing receiver unchanged.",
        is_secret=True,
        is_generated=True,
        pattern=r"(whsec_)?[A-Za-z0-9+/]{32,88}={0,2}",
    ),
    Setting(
        name="previous_secret",
        label="Previous signing secret",
        help="Only while rotating, and filled in by crmbridge: requests then carry both signatures, so the "
        "receiver may change over at any moment. It ends when the old credential is revoked.",
        is_secret=True,
        is_required=False,
        follows="secret",
        pattern=r"(whsec_)?[A-Za-z0-9+/]{32,88}={0,2}",
    ),
)
