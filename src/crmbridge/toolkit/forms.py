"""Settings that several providers' forms ask for in the same way."""

from __future__ import annotations

from crmbridge.core.manifest import Setting

__all__ = ["address", "client", "zone"]


def address(default: str, help: str, name: str = "base_url") -> Setting:
    """Where the provider's API answers."""
    pattern = r"https?://[^\s?#@]{3,300}"
    return Setting(name=name, label="Address", help=help, kind="url", pattern=pattern, default=default)


def client(id_help: str, secret_help: str) -> tuple[Setting, Setting]:
    """The id and the secret of client credentials."""
    return (
        Setting(name="client_id", label="Client id", help=id_help),
        Setting(name="client_secret", label="Client secret", help=secret_help, is_secret=True),
    )


def zone(
    of_what: str, help: str, *, default: str = "", is_required: bool = True, example: str = ""
) -> Setting:
    """The time zone in which a provider writes its times, as :func:`crmbridge.toolkit.filling.zone_named` reads it."""
    return Setting(
        name="time_zone",
        label=f"Time zone of the {of_what}",
        help=help,
        pattern=r"[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}",
        default=default,
        example=example,
        is_required=is_required,
    )
