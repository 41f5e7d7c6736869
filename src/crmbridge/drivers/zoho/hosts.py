"""Where calls go: the data centre that the consent named and the token confirmed, and no host that is not Zoho's.

Pages: https://www.zoho.com/crm/developer/docs/api/v8/multi-dc.html and
https://www.zoho.com/accounts/protocol/oauth/multi-dc.html (read 2026-11-25). A browser brings ``accounts-server`` and
``location``, the token answer brings ``api_domain``; both are followed only to hosts of this list. API hosts of the
UK and of the Emirates are not on Zoho's CRM pages: UNCONFIRMED.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from crmbridge.core.errors import EgressRefused, Fix, NotConfigured

__all__ = [
    "ACCOUNTS",
    "ACCOUNTS_PATTERN",
    "CENTRES",
    "ENVIRONMENTS",
    "accounts_of",
    "api_of",
    "callback_facts",
    "own_address",
    "pages_of",
    "token_facts",
]

_CENTRES: dict[str, tuple[str, str]] = {
    "us": ("zoho.com", "zohoapis.com"),
    "eu": ("zoho.eu", "zohoapis.eu"),
    "in": ("zoho.in", "zohoapis.in"),
    "au": ("zoho.com.au", "zohoapis.com.au"),
    "jp": ("zoho.jp", "zohoapis.jp"),
    "cn": ("zoho.com.cn", "zohoapis.com.cn"),
    "ca": ("zohocloud.ca", "zohoapis.ca"),
    "sa": ("zoho.sa", "zohoapis.sa"),
    "uk": ("zoho.uk", "zohoapis.uk"),
    "ae": ("zoho.ae", "zohoapis.ae"),
}
ENVIRONMENTS = {"production": "www", "sandbox": "sandbox", "developer": "developer"}
CENTRES = {name: f"https://www.{api}" for name, (_, api) in _CENTRES.items()}
"""Data centre → its API address."""
_ACCOUNTS = {name: f"https://accounts.{site}" for name, (site, _) in _CENTRES.items()}
_APIS = frozenset(f"{prefix}.{api}" for _, api in _CENTRES.values() for prefix in ENVIRONMENTS.values())
_DOORS = frozenset(_host.removeprefix("https://") for _host in _ACCOUNTS.values())
ACCOUNTS = _ACCOUNTS["us"]
ACCOUNTS_PATTERN = r"https?://[^\s?#@{}]{1,200}"
_AGAIN = Fix("start_again", "Start the connection again from crmbridge; if it stays so, report the address.")


def _host_of(url: str, known: frozenset[str]) -> str:
    """The host of a bare https address, if it is one of these; else an empty text."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return ""
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    host = parts.hostname or ""
    return host if parts.scheme == "https" and port in (None, 443) and is_bare and host in known else ""


def own_address(settings: Mapping[str, str]) -> str:
    """The operator's own address instead of Zoho's (an emulator's): it stands for accounts and API alike."""
    url = (settings.get("accounts_url") or ACCOUNTS).strip().rstrip("/")
    return "" if _host_of(url, _DOORS) else url


def accounts_of(settings: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """The accounts server of the connection, without a slash at its end. Raises EgressRefused."""
    if own := own_address(settings):
        return own
    url = facts.get("accounts_url") or settings.get("accounts_url") or ACCOUNTS
    if not (host := _host_of(url, _DOORS)):
        raise _refused("accounts server")
    return f"https://{host}"


def api_of(settings: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """Where data calls go. Raises NotConfigured before the API domain is known, EgressRefused for a host not Zoho's."""
    if own := own_address(settings):
        return own
    url = facts.get("api_domain", "")
    if not url:
        raise NotConfigured(
            "The API domain of this Zoho organisation is not known yet.",
            provider="zoho",
            fix=Fix("reconnect", "Connect Zoho CRM again: the token answer names the API domain."),
        )
    if not (host := _host_of(url, _APIS)):
        raise _refused("API domain")
    prefix = ENVIRONMENTS.get(settings.get("environment", ""), "")
    if prefix and prefix != "www":
        host = f"{prefix}.{host.partition('.')[2]}"
    return f"https://{host}"


def pages_of(facts: Mapping[str, str]) -> str:
    """The web address of the CRM for people, empty when the data centre is not known."""
    return _pages(facts.get("api_domain", ""))


@lru_cache(maxsize=64)
def _pages(domain: str) -> str:
    host = _host_of(domain, _APIS).partition(".")[2]
    site = next((site for site, api in _CENTRES.values() if api == host), "")
    return f"https://crm.{site}" if site else ""


def callback_facts(parameters: Mapping[str, str]) -> dict[str, str]:
    """The accounts server that the code must be taken to: named by itself, else by the location.

    Raises EgressRefused for a server that is not Zoho's.
    """
    server = parameters.get("accounts-server", "")
    if server:
        if not (host := _host_of(server, _DOORS)):
            raise _refused("accounts server")
        return {"accounts_url": f"https://{host}"}
    location = parameters.get("location", "").strip().lower()
    if not location:
        return {}
    if location not in _ACCOUNTS:
        raise _refused("location")
    return {"accounts_url": _ACCOUNTS[location]}


def token_facts(answer: Mapping[str, Any]) -> dict[str, str]:
    """The API domain beside a token. Raises EgressRefused for one that is not Zoho's."""
    domain = answer.get("api_domain")
    if not isinstance(domain, str) or not domain.strip():
        return {}
    if not (host := _host_of(domain, _APIS)):
        raise _refused("API domain")
    return {"api_domain": f"https://{host}"}


def _refused(what: str) -> EgressRefused:
    return EgressRefused(
        f"The {what} of this consent is not one of Zoho's data centres that crmbridge knows.",
        provider="zoho",
        fix=_AGAIN,
    )
