"""PROVIDERS: the registry, slug → ``module:Class``, alphabetical and lazy.

Deleting a provider's folder and its line here removes the provider.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import Fix, NotConfigured

__all__ = ["DRIVERS", "load", "load_emulator", "slugs"]

DRIVERS: dict[str, str] = {
    "custom_webhook": "crmbridge.drivers.custom_webhook.driver:CustomWebhook",
    "odoo": "crmbridge.drivers.odoo.driver:Odoo",
    "opentable": "crmbridge.drivers.opentable.driver:OpenTable",
    "rest_api": "crmbridge.drivers.rest_api.driver:RestApi",
}


def slugs() -> list[str]:
    """All registered slugs, alphabetical."""
    return sorted(DRIVERS)


@cache
def load(slug: str) -> type[CrmDriver]:
    """The driver class of a slug. Raises NotConfigured that names the known slugs."""
    try:
        module, name = DRIVERS[slug].split(":")
    except KeyError:
        raise NotConfigured(
            f"There is no driver {slug!r}.",
            fix=Fix("choose_driver", f"Known drivers: {', '.join(slugs())}."),
        ) from None
    driver: type[CrmDriver] = getattr(import_module(module), name)
    return driver


@cache
def load_emulator(slug: str) -> type | None:
    """The emulator class in the driver's folder (named ``<Driver class>Emulator``), or None without one."""
    driver = load(slug)
    try:
        module = import_module(driver.__module__.rsplit(".", 1)[0] + ".emulator")
    except ModuleNotFoundError:
        return None
    emulator: type = getattr(module, f"{driver.__name__}Emulator")
    return emulator
