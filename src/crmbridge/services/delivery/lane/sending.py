"""Sending: the call of one batch, and a result for each of its targets whatever comes of it."""

from __future__ import annotations

import asyncio

import structlog

from crmbridge.core.errors import CrmError, Unavailable
from crmbridge.core.operations import Outcome
from crmbridge.core.records import WriteResult
from crmbridge.services.audit.model import AuditEntry
from crmbridge.services.delivery.lane.batch import Batch, Lane, Prepared

__all__ = ["send"]

_log = structlog.get_logger("crmbridge.delivery")


async def send(
    connection: Lane, batch: Batch, prepared: list[Prepared], seconds: float
) -> tuple[list[WriteResult], AuditEntry | None]:
    """One result per item, in order, and the audit entry of the call; the provider is called for what could be mapped.

    ``seconds`` bound the call; when they are over, its outcome is unknown. Raises nothing.
    """
    writes = [item.write for item in prepared if item.write is not None]
    answers: list[WriteResult] = []
    entry: AuditEntry | None = None
    if writes:
        actors = {item.row.actor for item in prepared}
        actor = actors.pop() if len(actors) == 1 else "delivery"
        try:
            async with asyncio.timeout(seconds):
                if batch.is_look_up:
                    found, entry = await connection.find_written(writes[0], actor=actor)
                    answers = [found]
                else:
                    request_id = prepared[0].row.request_id if len(prepared) == 1 else ""
                    sent = await connection.send(writes, actor=actor, request_id=request_id)
                    answers, entry = sent.results, sent.entry
        except Exception as error:
            answers = [_failed(error, batch) for _ in writes]
    missing = Unavailable("The driver gave no outcome for this write.", outcome=Outcome.UNKNOWN)
    answers += [
        WriteResult(outcome=Outcome.UNKNOWN, error=missing) for _ in range(len(writes) - len(answers))
    ]
    following = iter(answers)
    return [
        next(following)
        if item.write is not None
        else WriteResult(
            outcome=Outcome.UNKNOWN if batch.is_look_up else Outcome.NOT_APPLIED, error=item.error
        )
        for item in prepared
    ], entry


def _failed(error: Exception, batch: Batch) -> WriteResult:
    """A call that raised. Only a CrmError says what is known; anything else leaves the outcome open."""
    if isinstance(error, CrmError):
        return WriteResult(outcome=error.outcome, error=error)
    if not isinstance(error, TimeoutError):
        _log.error("send.failed", operation=batch.operation.value, kind=type(error).__name__)
    return WriteResult(
        outcome=Outcome.UNKNOWN,
        error=Unavailable(
            f"No answer within the time allowed ({type(error).__name__}).",
            operation=batch.operation.value,
            outcome=Outcome.UNKNOWN,
        ),
    )
