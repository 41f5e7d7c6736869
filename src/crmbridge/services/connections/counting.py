"""Counting: one call at a CRM as a span and in the metrics. Words of ours and numbers, no content."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any

from crmbridge import metrics, tracing
from crmbridge.core.errors import CrmError
from crmbridge.core.operations import Outcome
from crmbridge.core.records import WriteResult
from crmbridge.services.connections.access import Metered

__all__ = ["Counted"]


class Counted:
    """``with counted: counted.answer = ...`` around one call; an exception that passes is its answer."""

    def __init__(self, driver: str, operation: str, obj: str, records: int, metered: Metered) -> None:
        self.answer: object = None
        self._driver = driver
        self._operation = operation
        self._object = obj
        self._metered = metered
        self._started = 0.0
        self._span = tracing.span(
            "provider call", driver=driver, operation=operation, object=obj, records=records
        )

    def __enter__(self) -> Counted:
        self._started = monotonic()
        self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome, code = _told(error if error is not None else self.answer, self._metered)
        requests = self._metered.calls
        self._span.set(outcome=outcome, requests=requests)
        if self._metered.status:
            self._span.set(http__response__status_code=self._metered.status)
        if code:
            self._span.fail(code)
        self._span.__exit__(None, None, None)
        metrics.note_provider_call(
            driver=self._driver,
            obj=self._object,
            operation=self._operation,
            outcome=outcome,
            code=code,
            requests=requests,
            seconds=monotonic() - self._started,
        )


def _told(answer: object, metered: Metered) -> tuple[str, str]:
    """The outcome, and the code of the first error or an empty text."""
    if isinstance(answer, CrmError):
        return answer.outcome.value, answer.code
    if isinstance(answer, BaseException):
        # A driver that failed, or a call that was given up.
        outcome = Outcome.UNKNOWN if metered.calls else Outcome.NOT_APPLIED
        return outcome.value, "unexpected_response" if isinstance(answer, Exception) else "cancelled"
    results: list[Any] = answer if isinstance(answer, list) else [answer]
    if not results or not isinstance(results[0], WriteResult):
        return "ok", ""
    outcomes = {result.outcome.value for result in results}
    code = next((_code(result.error) for result in results if result.error is not None), "")
    return outcomes.pop() if len(outcomes) == 1 else "mixed", code


def _code(error: Exception) -> str:
    return error.code if isinstance(error, CrmError) else "unexpected_response"
