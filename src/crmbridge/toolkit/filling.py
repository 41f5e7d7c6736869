"""Settings that an operator fills in: one way to put them into an address, and one way to say that one is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote
from zoneinfo import ZoneInfo

from crmbridge.core.errors import FieldError, Fix, NotConfigured

__all__ = ["AGAIN", "fill_address", "not_filled_in", "zone_named"]

AGAIN = "in the credential form and test it again"


def not_filled_in(
    name: str,
    provider: str = "",
    *,
    operation: str = "",
    kind: str = "setting",
    whose: str = "this connection",
    where: str = AGAIN,
    problem: str = "missing",
) -> NotConfigured:
    """The error for a setting (or ``kind`` secret) that is ``missing`` or, by ``problem``, ``not valid``."""
    return NotConfigured(
        f"The {kind} {name!r} of {whose} is {problem}.",
        provider=provider,
        operation=operation,
        fields=(FieldError(name, f"is {problem}"),),
        fix=Fix("fill_in", f"Fill in {name!r} {where}."),
    )


def fill_address(
    template: str,
    values: Mapping[str, str],
    provider: str,
    *,
    whose: str = "this connection",
    where: str = AGAIN,
) -> str:
    """``template`` with its ``{names}`` filled in. Values that do not begin the address are URL-quoted.

    Raises NotConfigured for a missing value.
    """

    def fill(found: re.Match[str]) -> str:
        value = values.get(found[1], "").strip()
        if not value:
            raise not_filled_in(found[1], provider, whose=whose, where=where)
        return value.rstrip("/") if found.start() == 0 else quote(value, safe="")

    return re.sub(r"\{(\w+)\}", fill, template)


def zone_named(name: str, provider: str) -> ZoneInfo:
    """A zone of the IANA list, named by the setting ``time_zone``. Raises NotConfigured."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        problem = FieldError(
            "time_zone", "is missing, or no zone of the IANA list, such as America/Los_Angeles"
        )
        raise NotConfigured(
            "The time zone is not known, so no time can be converted.",
            provider=provider,
            fields=(problem,),
            fix=Fix("fill_in", f"Fill in 'time_zone' {AGAIN}."),
        ) from None
