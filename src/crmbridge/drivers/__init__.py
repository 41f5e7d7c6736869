"""PROVIDERS: the registry, slug → ``module:Class``, alphabetical and lazy.

Deleting a provider's folder and its line here removes the provider.

Drivers of other packages come by the entry-point group ``crmbridge.drivers`` (name = slug, value =
``module:Class`` as here). The installed packages are read only when a slug is not one of ours, or when all
slugs are asked for. Our own names win: an entry point of the same name is left aside and told by
:func:`problems`. See ``docs/howto/outside-driver.md``.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from crmbridge.core.driver import CrmDriver
from crmbridge.core.errors import Fix, NotConfigured

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["DRIVERS", "GROUP", "forget", "load", "load_emulator", "outside", "problems", "slugs"]

GROUP = "crmbridge.drivers"
_log = logging.getLogger(__name__)

DRIVERS: dict[str, str] = {
    "athenahealth": "crmbridge.drivers.athenahealth.driver:Athenahealth",
    "custom_webhook": "crmbridge.drivers.custom_webhook.driver:CustomWebhook",
    "hubspot": "crmbridge.drivers.hubspot.driver:HubSpot",
    "mindbody": "crmbridge.drivers.mindbody.driver:Mindbody",
    "odoo": "crmbridge.drivers.odoo.driver:Odoo",
    "opentable": "crmbridge.drivers.opentable.driver:OpenTable",
    "rest_api": "crmbridge.drivers.rest_api.driver:RestApi",
    "salesforce": "crmbridge.drivers.salesforce.driver:Salesforce",
    "tekmetric": "crmbridge.drivers.tekmetric.driver:Tekmetric",
    "toast": "crmbridge.drivers.toast.driver:Toast",
    "zoho": "crmbridge.drivers.zoho.driver:Zoho",
}


def slugs() -> list[str]:
    """All slugs, alphabetical: our own (the keys of ``DRIVERS``) and those of installed packages."""
    return sorted({*DRIVERS, *outside()})


def outside() -> dict[str, str]:
    """Slug → package and version of each driver that another package brings."""
    return {slug: _origin(point) for slug, point in _scan()[0].items()}


def problems() -> list[str]:
    """Entry points that were left aside, each with its package and the reason."""
    return list(_scan()[1])


def forget() -> None:
    """Makes the next call read the installed packages again, after one was installed or removed."""
    for kept in (_scan, load, load_emulator):
        kept.cache_clear()


@cache
def load(slug: str) -> type[CrmDriver]:
    """The driver class of a slug.

    Raises NotConfigured: for an unknown slug it names the known ones, for a driver of another package that
    cannot be loaded it names the package.
    """
    if slug in DRIVERS:
        module, name = DRIVERS[slug].split(":")
        driver: type[CrmDriver] = getattr(import_module(module), name)
        return driver
    if (point := _scan()[0].get(slug)) is not None:
        return _loaded(slug, point)
    raise NotConfigured(
        f"There is no driver {slug!r}.",
        fix=Fix("choose_driver", f"Known drivers: {', '.join(slugs())}."),
    )


@cache
def load_emulator(slug: str) -> type | None:
    """The emulator class beside the driver (module ``emulator``, class ``<Driver class>Emulator``), or None.

    Raises NotConfigured when another package's emulator is there and cannot be loaded.
    """
    driver = load(slug)
    module_name = driver.__module__.rpartition(".")[0] + ".emulator"
    try:
        module = import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            return None
        if slug in DRIVERS:
            raise
        raise _broken(slug, _scan()[0][slug], f"its emulator: {_told(error)}") from error
    name = f"{driver.__name__}Emulator"
    if slug not in DRIVERS and not hasattr(module, name):
        raise _broken(slug, _scan()[0][slug], f"{module_name} has no class {name}")
    emulator: type = getattr(module, name)
    return emulator


@cache
def _scan() -> tuple[dict[str, EntryPoint], tuple[str, ...]]:
    """The usable entry points by slug, and what is wrong with the others. Nothing is imported yet."""
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    wrong: dict[str, None] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda each: (each.name, _origin(each))):
        reason = ""
        if point.name in DRIVERS:
            reason = "crmbridge has a driver of that name itself, which is used"
        elif not re.fullmatch(r"[a-z][a-z0-9_]*", point.name):
            reason = "a slug is lower-case letters, digits and underscores"
        elif not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", point.value):
            reason = f"its value {point.value!r} is not of the form package.module:Class"
        elif point.name in found:
            reason = f"{_origin(found[point.name])} brings a driver of that name too, which is used"
        if reason:
            wrong[f"The driver {point.name!r} of {_origin(point)} is left aside: {reason}."] = None
        else:
            found[point.name] = point
    for problem in wrong:
        _log.warning("%s", problem)
    return found, tuple(wrong)


def _loaded(slug: str, point: EntryPoint) -> type[CrmDriver]:
    try:
        driver = point.load()
    except Exception as error:
        raise _broken(slug, point, _told(error)) from error
    if not (isinstance(driver, type) and issubclass(driver, CrmDriver)):
        raise _broken(slug, point, f"{point.value} is no subclass of crmbridge.core.driver.CrmDriver")
    manifest = getattr(driver, "MANIFEST", None)
    if manifest is None or manifest.slug != slug:
        told = "has no MANIFEST" if manifest is None else f"declares the slug {manifest.slug!r}"
        raise _broken(slug, point, f"{point.value} {told}; its entry point is called {slug!r}")
    return driver


def _broken(slug: str, point: EntryPoint, why: str) -> NotConfigured:
    return NotConfigured(
        f"The driver {slug!r} of the package {_origin(point)} cannot be loaded: {why}.",
        provider=slug,
        fix=Fix("mend_package", f"Update or remove the package {_package(point)}, or tell its authors."),
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().rstrip(".")


def _package(point: EntryPoint) -> str:
    return str(point.dist.name) if point.dist is not None else point.module


def _origin(point: EntryPoint) -> str:
    return f"{_package(point)} {point.dist.version}" if point.dist is not None else point.module
