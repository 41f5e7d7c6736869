"""What ends a command early: one error with a code, a message, the fields and the fix, and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the server does not answer, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from crmbridge.core.errors import CrmError

__all__ = ["Problem", "ServerRefusal", "ServerUnreachable", "UsageProblem", "problem_of"]


class Problem(Exception):
    """An error as it is shown. ``body`` has the keys of ``CrmError.to_dict`` as far as they are known."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        code: str = "failed",
        hint: str = "",
        fields: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        made: dict[str, Any] = {"code": code, "message": message}
        if hint:
            made["fix"] = {"action": code, "hint": hint}
        if fields:
            made["fields"] = [{"field": name, "message": text} for name, text in fields]
        self.body: dict[str, Any] = dict(body) if body is not None else made

    @property
    def code(self) -> str:
        """``code`` or ``code/subcode``."""
        code, subcode = self.body.get("code", "failed"), self.body.get("subcode", "")
        return f"{code}/{subcode}" if subcode else str(code)


class UsageProblem(Problem):
    """The command was given something that it cannot use."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, code="usage", hint=hint, fields=fields)


class ServerRefusal(Problem):
    """The server answered with an error; ``status`` is the HTTP status, ``body`` its problem+json."""

    def __init__(self, status: int, body: Mapping[str, Any], *, retry_after: float | None = None) -> None:
        super().__init__(str(body.get("message") or body.get("detail") or "The server refused."), body=body)
        self.status = status
        self.retry_after = retry_after


class ServerUnreachable(Problem):
    """No answer from the server. ``was_sent`` tells whether the request may have arrived."""

    exit_code = 3

    def __init__(self, url: str, reason: str, *, was_sent: bool = False, hint: str = "") -> None:
        super().__init__(
            f"No answer from {url}: {reason}",
            code="server_unreachable",
            hint=hint or "Start it with `crmbridge serve`, or name another with --url or CRMBRIDGE_URL.",
        )
        self.was_sent = was_sent


def problem_of(error: CrmError) -> Problem:
    """An error of the error tree, raised in this process, as a problem."""
    return Problem(error.message, body=error.to_dict())
