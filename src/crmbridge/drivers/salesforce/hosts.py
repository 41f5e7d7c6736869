"""Where calls go: the login host of the operator's choice, and the instance that the token answer names.

Pages: "OAuth Endpoints" and "My Domain" (read 2026-11-22). An instance can change when an org is moved, so it is read
anew at every refresh; it comes from an answer, so only Salesforce's own hosts are followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from crmbridge.core.errors import EgressRefused, Fix, NotConfigured

__all__ = [
    "LOGIN",
    "LOGIN_PATTERN",
    "instance_of",
    "is_salesforce",
    "login_of",
    "token_facts",
    "userinfo_facts",
]

LOGIN = "https://login.salesforce.com"
# Lightning hosts serve pages, neither OAuth nor the API.
LOGIN_PATTERN = r"https?://(?![^/]*\.lightning\.force\.com)[^\s?#@]{1,200}"
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,6}salesforce\.com")
_ORG = re.compile(r"00D[A-Za-z0-9]{12}(?:[A-Za-z0-9]{3})?")


def is_salesforce(url: str) -> bool:
    """Whether this is the bare https address of a host of Salesforce."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port
    except ValueError:
        return False
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    return (
        parts.scheme == "https"
        and port in (None, 443)
        and is_bare
        and _HOST.fullmatch(parts.hostname or "") is not None
    )


def login_of(settings: Mapping[str, str]) -> str:
    """The login host, without a slash at its end."""
    return (settings.get("login_url") or LOGIN).strip().rstrip("/")


def instance_of(settings: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """Where data calls go. A login address outside Salesforce is the operator's own and stands for its instance too.

    Raises NotConfigured before the instance is known, EgressRefused for an instance that is not Salesforce's.
    """
    login = login_of(settings)
    if not is_salesforce(login):
        return login
    instance = facts.get("instance_url", "").strip().rstrip("/")
    if not instance:
        raise NotConfigured(
            "The instance of this Salesforce org is not known yet.",
            provider="salesforce",
            fix=Fix("reconnect", "Connect Salesforce (or test the connection) to learn the instance."),
        )
    if not is_salesforce(instance):
        raise EgressRefused(
            "The instance address of this connection is not a host of Salesforce.", provider="salesforce"
        )
    return instance


def token_facts(answer: Mapping[str, Any]) -> dict[str, str]:
    """Instance and org beside a token. An instance that is not Salesforce's is left out: an older one stays."""
    facts = {}
    instance = answer.get("instance_url")
    if isinstance(instance, str) and is_salesforce(instance):
        facts["instance_url"] = instance.strip().rstrip("/").lower()
    identity = answer.get("id")
    parts = identity.rstrip("/").rsplit("/", 3) if isinstance(identity, str) else []
    if len(parts) == 4 and parts[1] == "id" and _ORG.fullmatch(parts[2]):
        facts["org_id"] = parts[2][:15]
    return facts


def userinfo_facts(tree: Mapping[str, Any]) -> dict[str, str]:
    """The same from ``userinfo``, whose ``urls`` name the instance's services."""
    facts = {}
    urls = tree.get("urls")
    rest = urls.get("rest") if isinstance(urls, Mapping) else None
    if isinstance(rest, str):
        scheme, _, after = rest.partition("://")
        origin = f"{scheme}://{after.partition('/')[0]}"
        if is_salesforce(origin):
            facts["instance_url"] = origin.lower()
    org = tree.get("organization_id")
    if isinstance(org, str) and _ORG.fullmatch(org):
        facts["org_id"] = org[:15]
    return facts
