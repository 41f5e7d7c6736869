"""What Tekmetric's refusals mean."""

from __future__ import annotations

import re
from typing import Any

from crmbridge.core.errors import AuthError, CrmError, FieldError, Fix, ValidationError
from crmbridge.core.operations import Outcome
from crmbridge.core.wire import HttpResponse
from crmbridge.toolkit import failures

__all__ = ["SHOP_FIX", "error_of"]

SHOP_FIX = Fix("grant_shop", "Let the shop grant your Tekmetric client access, or correct the shop id.")
_REFUSED = failures.StatusRule(error=ValidationError, outcome=Outcome.NOT_APPLIED, retry_safe=False)
_STATUSES = {403: failures.StatusRule(error=AuthError, subcode="insufficient_scope", fix=SHOP_FIX)}


def error_of(response: HttpResponse, *, provider: str, operation: str, is_write: bool) -> CrmError | None:
    """A refusal may come with 200; its fields stand in ``details``. 401 and 429 have empty bodies."""
    tree = failures.tree_or_none(response)
    if not isinstance(tree, dict):
        return None
    is_fine = 200 <= response.status < 300
    if is_fine and tree.get("type") != "ERROR":
        return None
    details = tree.get("details")
    return failures.error_for_status(
        response,
        provider=provider,
        operation=operation,
        is_write=is_write,
        overrides=_STATUSES | ({response.status: _REFUSED} if is_fine else {}),
        message=str(tree.get("message") or ""),
        fields=tuple(
            FieldError(_slot(name), str(text)) for name, text in details.items() if isinstance(text, str)
        )
        if isinstance(details, dict)
        else (),
    )


def _slot(name: Any) -> str:
    return re.sub(r"[^\w.\[\]-]", "", str(name))[:80]
