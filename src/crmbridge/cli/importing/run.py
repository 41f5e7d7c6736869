"""One import: rows in a stream, batches in flight, an answer for every row, a mark to go on from.

Nothing is doubled when a batch is sent again or the whole import is run again: the idempotency key of a row is
made of the file's content, the row's line and its values. Nothing is lost when the server goes away: a batch
without an answer is sent again until ``patience`` seconds have passed without any.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple, Protocol

from crmbridge.cli.client import Client
from crmbridge.cli.importing.cleaning import Cleaner, SpoiltRow
from crmbridge.cli.importing.marks import Mark, write_mark
from crmbridge.cli.importing.rejects import Rejects
from crmbridge.cli.importing.rows import BadRow, Row, RowReader
from crmbridge.cli.problems import Problem, ServerRefusal, ServerUnreachable

__all__ = ["Delivered", "Importer", "Reason", "Target", "View", "follow"]

IN_FLIGHT = 3
_MOST_BYTES = 600_000
_MOST_ROWS_READ = 1_000
_MARK_SECONDS = 0.5
_PENDING = ("accepted", "sending", "retrying", "unknown")
# Errors of one item that no other row would escape either: the import stops and says so.
_NOT_THE_ROW = frozenset({"auth_error", "not_configured", "gate_closed", "unsupported", "egress_refused"})
_TRY_AGAIN = frozenset({"unavailable", "rate_limited", "internal"})


class View(Protocol):
    """What is told while it runs."""

    def loading(self, position: int, total: int, mark: Mark) -> None:
        """``position`` of ``total`` bytes are answered."""

    def delivering(self, delivered: Delivered) -> None:
        """The counts of the moment."""

    def trouble(self, text: str) -> None:
        """Why it does not go on just now; empty when it does again."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the rows go."""

    tenant: str
    object: str
    import_id: str
    connection: str = ""
    match: tuple[str, ...] = ()


class Reason(NamedTuple):
    """Why writes were given up on one connection, and how many."""

    times: int
    reason: str
    connection: str = ""

    @property
    def told(self) -> str:
        """The reason with the connection before it, where there is one to name."""
        return f"{self.connection}: {self.reason}" if self.connection else self.reason


@dataclass(kw_only=True)
class Delivered:
    """What became of the accepted rows so far."""

    counts: dict[str, int] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def pending(self) -> int:
        return sum(self.counts.get(state, 0) for state in _PENDING)

    @property
    def applied(self) -> int:
        return self.counts.get("applied", 0)

    @property
    def given_up(self) -> int:
        """Dead letters and parked writes."""
        return self.counts.get("dead_letter", 0) + self.counts.get("parked", 0)


@dataclass
class _Batch:
    """Rows of the file one after the other: what is sent, and what was rejected before."""

    entries: list[tuple[Row | BadRow, str]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    last_line: int = 0
    position: int = 0

    def is_full(self, most: int) -> bool:
        return len(self.items) >= most or self.size >= _MOST_BYTES or len(self.entries) >= _MOST_ROWS_READ


class Importer:
    """Runs the loading half of one import. ``mark`` is changed in place and saved as it goes."""

    def __init__(
        self,
        client: Client,
        target: Target,
        reader: RowReader,
        cleaner: Cleaner,
        rejects: Rejects,
        mark: Mark,
        view: View,
        *,
        batch: int = 200,
        patience: float = 900.0,
    ) -> None:
        self._client = client
        self._target = target
        self._reader = reader
        self._cleaner = cleaner
        self._rejects = rejects
        self.mark = mark
        self._view = view
        self._batch = batch
        self._patience = _Patience(patience, view)
        self._saved_at = 0.0

    async def load(self) -> Mark:
        """Sends every row after the mark. The mark is saved in any case, also when interrupted.

        Raises Problem (the server refuses the import as such), ServerUnreachable, UnreadableFile, OSError.
        """
        began, before = monotonic(), self.mark.seconds
        under_way: deque[tuple[_Batch, asyncio.Task[list[dict[str, Any]]]]] = deque()
        try:
            for batch in self._batches():
                if len(under_way) >= IN_FLIGHT:
                    await self._settle(*under_way.popleft())
                under_way.append((batch, asyncio.create_task(self._send(batch.items))))
                await asyncio.sleep(0)
            while under_way:
                await self._settle(*under_way.popleft())
            self.mark.finished = True
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
            self.mark.seconds = before + monotonic() - began
            self._save()
        return self.mark

    def _batches(self) -> Iterator[_Batch]:
        batch = _Batch()
        for row in self._reader:
            if row.line <= self.mark.line:
                continue
            self._add(batch, row)
            if batch.is_full(self._batch):
                batch.position = self._reader.position
                yield batch
                batch = _Batch()
        if batch.entries:
            batch.position = self._reader.total_bytes
            yield batch

    def _add(self, batch: _Batch, row: Row | BadRow) -> None:
        batch.last_line = row.line
        if isinstance(row, BadRow):
            batch.entries.append((row, row.reason))
            return
        try:
            fields = self._cleaner.fields(row.values)
        except SpoiltRow as spoilt:
            batch.entries.append((row, str(spoilt)))
            return
        batch.entries.append((row, ""))
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False)
        batch.size += len(text.encode())
        item: dict[str, Any] = {"fields": fields, "idempotency_key": self._key(row.line, text)}
        if self._target.match:
            item |= {"match": list(self._target.match), "operation": "upsert"}
        batch.items.append(item)

    def _key(self, line: int, values: str) -> str:
        target = self._target
        parts = (self.mark.fingerprint, target.object, target.connection, *target.match, str(line), values)
        return "import-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:48]

    # ---------------------------------------------------------------- sending

    async def _send(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers in the order of the items; sends again what got none or a passing refusal."""
        answers: dict[int, dict[str, Any]] = {}
        waiting = list(range(len(items)))
        tries = 0
        while waiting:
            tries += 1
            try:
                results = await self._post([items[place] for place in waiting])
            except ServerRefusal as refusal:
                if refusal.status == 413:
                    results = await self._send_smaller([items[place] for place in waiting], refusal)
                elif refusal.status not in (429, 500, 502, 503, 504):
                    raise
                else:
                    await self._patience.pause(refusal, tries)
                    continue
            except ServerUnreachable as silence:
                await self._patience.pause(silence, tries)
                continue
            waiting = self._sort(waiting, results, answers)
            if waiting:
                await self._patience.pause(ServerRefusal(503, answers_error(results)), tries)
            else:
                self._patience.rewarded()
        return [answers[place] for place in range(len(items))]

    async def _send_smaller(
        self, items: list[dict[str, Any]], refusal: ServerRefusal
    ) -> list[dict[str, Any]]:
        """The batch was too large for the server: halves, down to the one row that is."""
        if len(items) == 1:
            return [{"error": refusal.body}]
        middle = len(items) // 2
        return [*await self._send(items[:middle]), *await self._send(items[middle:])]

    async def _post(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        target = self._target
        answer = await self._client.post(
            "tenants",
            target.tenant,
            "records",
            target.object,
            "batch",
            body={"writes": items, "import_id": target.import_id},
            connection=target.connection,
        )
        results: list[dict[str, Any]] = answer["results"]
        if len(results) != len(items):
            raise Problem(f"The server answered {len(results)} results for {len(items)} rows.")
        return results

    @staticmethod
    def _sort(
        waiting: list[int], results: list[dict[str, Any]], answers: dict[int, dict[str, Any]]
    ) -> list[int]:
        again = []
        for place, result in zip(waiting, results, strict=True):
            error = result.get("error") or {}
            code = error.get("code")
            if code in _NOT_THE_ROW:
                raise Problem(str(error.get("message", "")), body=error)
            if code in _TRY_AGAIN:
                again.append(place)
            else:
                answers[place] = result
        return again

    # ---------------------------------------------------------------- settling

    async def _settle(self, batch: _Batch, task: asyncio.Task[list[dict[str, Any]]]) -> None:
        """Waits for the oldest batch, writes its rejects in file order, moves the mark past it."""
        answers = iter(await task)
        mark = self.mark
        for row, reason in batch.entries:
            mark.read += 1
            answer = {} if reason else next(answers)
            error = answer.get("error")
            if reason or error:
                mark.rejected += 1
                self._reject(row, reason or reason_of(error or {}))
            elif answer.get("replayed"):
                mark.replayed += 1
            else:
                mark.accepted += 1
        mark.line = batch.last_line
        self._view.loading(batch.position, self._reader.total_bytes, mark)
        if monotonic() - self._saved_at > _MARK_SECONDS:
            self._save()

    def _reject(self, row: Row | BadRow, reason: str) -> None:
        if isinstance(row, BadRow):
            self._rejects.write(row.line, reason, raw=row.raw)
        else:
            self._rejects.write(row.line, reason, values=row.values)

    def _save(self) -> None:
        self._rejects.flush()
        path = self._rejects.path
        self.mark.rejects_bytes = path.stat().st_size if path.exists() else 0
        write_mark(self._reader.path, self.mark)
        self._saved_at = monotonic()


class _Patience:
    """Pauses between tries, for all batches together; gives up after so many seconds without any answer."""

    def __init__(self, seconds: float, view: View) -> None:
        self._seconds = seconds
        self._view = view
        self._since: float | None = None

    async def pause(self, problem: Problem, tries: int) -> None:
        """Waits a moment, longer each time. Raises ``problem`` when patience has run out."""
        now = monotonic()
        if self._since is None:
            self._since = now
        gone = now - self._since
        if gone > self._seconds:
            problem.body["fix"] = {
                "action": "run_again",
                "hint": "Run the same command again when the server is back: it goes on where it stopped.",
            }
            raise problem
        seconds = min(5.0, 0.25 * 2 ** min(tries, 6)) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        if isinstance(problem, ServerRefusal) and problem.retry_after:
            seconds = max(seconds, min(problem.retry_after, 60.0))
        text = f"{problem.code}: trying again" + (f", for {gone:.0f} s now" if gone >= 1 else "")
        self._view.trouble(text)
        await asyncio.sleep(seconds)

    def rewarded(self) -> None:
        """There was an answer."""
        if self._since is not None:
            self._since = None
            self._view.trouble("")


def answers_error(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first error of a batch's answers."""
    return next((result["error"] for result in results if result.get("error")), {"code": "unavailable"})


def reason_of(error: Mapping[str, Any]) -> str:
    """An error of the server as one line: its fields, else its message."""
    fields = "; ".join(f"{entry.get('field')}: {entry.get('message')}" for entry in error.get("fields") or [])
    return fields or str(error.get("message") or error.get("detail") or error.get("code", "refused"))


async def follow(
    client: Client, target: Target, view: View, *, began: float, patience: float = 900.0, every: float = 0.3
) -> Delivered:
    """Watches the import's writes until none is under way. Raises when the server stays silent for ``patience``."""
    delivered = Delivered()
    waiting = _Patience(patience, view)
    tries = 0
    while True:
        try:
            page = await client.get("tenants", target.tenant, "writes", import_id=target.import_id, limit=1)
        except (ServerUnreachable, ServerRefusal) as problem:
            if isinstance(problem, ServerRefusal) and problem.status < 500 and problem.status != 429:
                raise
            tries += 1
            await waiting.pause(problem, tries)
            continue
        waiting.rewarded()
        delivered.counts = {state: count for state, count in page["counts"].items() if count}
        delivered.seconds = monotonic() - began
        view.delivering(delivered)
        if not delivered.pending:
            break
        await asyncio.sleep(every)
    if delivered.given_up:
        delivered.reasons = await _reasons(client, target)
    return delivered


async def _reasons(client: Client, target: Target, most: int = 1_000) -> list[Reason]:
    """Why writes were given up, on which connection and how often, of the newest ``most``."""
    found: Counter[tuple[str, str]] = Counter()
    for state in ("dead_letter", "parked"):
        cursor, seen = "", 0
        while seen < most:
            page = await client.get(
                "tenants",
                target.tenant,
                "writes",
                import_id=target.import_id,
                state=state,
                limit=200,
                cursor=cursor,
            )
            for write in page["writes"]:
                seen += 1
                for entry in write["targets"]:
                    if entry["state"] == state:
                        error = entry.get("error") or {}
                        reason = reason_of(error)
                        if existing := error.get("existing_remote_id"):
                            # Else every clash would be a reason of its own.
                            reason = reason.replace(str(existing), "…")
                        told = f"{error.get('code', state)}: {reason}"
                        found[told, str(entry.get("connection", ""))] += 1
            cursor = page.get("next_cursor") or ""
            if not cursor:
                break
    return [Reason(count, reason, connection) for (reason, connection), count in found.most_common()]
