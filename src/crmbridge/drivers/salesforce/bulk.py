"""Bulk API 2.0: many records in one job, for library callers who hand over more than 2,000 writes at once.

Pages: Bulk API 2.0 Developer Guide, "Ingest" (read 2026-11-22), which calls it worth while above 2,000 records. Results
come as CSV files without order, so each row is found again by its key: our mark of a create, the id of the rest.
Nothing is processed before the job is closed; after that an outcome is what the result files say, or unknown.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from crmbridge.core.errors import CrmError, RateLimited, Unavailable, UnexpectedResponse
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import WriteResult
from crmbridge.core.wire import HttpRequest
from crmbridge.drivers.salesforce.natives import DATA, Native

if TYPE_CHECKING:
    from crmbridge.drivers.salesforce.writing import Writer

__all__ = ["THRESHOLD", "load"]

THRESHOLD = 2_000
MOST_BYTES = 3_000_000
"""Of one job's CSV: the result files repeat it, and an answer above 5 MiB is refused on our side."""
JOB_SECONDS = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
_OPERATIONS = {
    "insert": Operation.CREATE,
    "update": Operation.UPDATE,
    "delete": Operation.DELETE,
    "hardDelete": Operation.ERASE,
}
_NULL = "#N/A"
_ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
Bodies = Mapping[int, dict[str, Any]]
Results = dict[int, WriteResult]


class Job(msgspec.Struct, kw_only=True):
    """A job, as far as it is read."""

    id: str
    state: str = ""
    error_message: str | None = msgspec.field(default=None, name="errorMessage")


async def load(
    writer: Writer, native: Native, verb: str, bodies: Bodies, *, key: str
) -> tuple[Results, dict[int, dict[str, Any]]]:
    """Results by place, and the bodies that must go another way: values CSV cannot say, an object that has no bulk."""
    results: Results = {}
    rest = {place: body for place, body in bodies.items() if not _fits(body)}
    rows = {place: body for place, body in bodies.items() if place not in rest}
    for part in _by_size(rows):
        try:
            results |= await _Load(writer, native, verb, part, key).run()
        except _NotTaken:
            rest |= part
    return results, rest


class _NotTaken(Exception):
    """This object has no bulk service (INVALIDENTITY), or none of the rows was looked at."""


class _Load:
    """One job."""

    def __init__(self, writer: Writer, native: Native, verb: str, bodies: Bodies, key: str) -> None:
        self.writer = writer
        self.driver = writer.driver
        self.native = native
        self.verb = verb
        self.operation = _OPERATIONS[verb]
        self.bodies = bodies
        self.key = key
        self.body_key = "id" if key == "Id" else key
        self.places = {str(body[self.body_key]): place for place, body in bodies.items()}

    async def run(self) -> Results:
        """Open, fill, close, wait, read. Raises _NotTaken."""
        try:
            job = await self._open()
            await self._fill(job)
            await self._close(job)
        except CrmError as error:
            if error.provider_facts.get("provider_code") in ("INVALIDENTITY", "INVALID_TYPE"):
                raise _NotTaken from None
            # The job is not closed, so nothing of it is ever processed.
            error.outcome, error.retry_safe = Outcome.NOT_APPLIED, True
            return {place: self._failed(error, place) for place in self.bodies}
        try:
            ended = await self._ended(job)
        except CrmError as error:
            return {place: self._failed(_unknown(error, self.operation), place) for place in self.bodies}
        return await self._read(ended)

    async def _open(self) -> Job:
        body = {
            "object": self.native.name,
            "operation": self.verb,
            "contentType": "CSV",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
        }
        request = HttpRequest(method="POST", url=f"{DATA}/jobs/ingest", json=body)
        return self._job(await self._exchange(request, is_write=True))

    async def _fill(self, job: Job) -> None:
        names = [
            self.key,
            *sorted({name for body in self.bodies.values() for name in body} - {self.body_key}),
        ]
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(names)
        for body in self.bodies.values():
            flat = {self.key: body[self.body_key], **body}
            lines.writerow([_cell(flat[name]) if name in flat else "" for name in names])
        request = HttpRequest(
            method="PUT",
            url=f"{DATA}/jobs/ingest/{job.id}/batches",
            body=text.getvalue().encode(),
            headers={"Content-Type": "text/csv"},
        )
        await self.driver.exchange(request, operation=self.operation.value, is_write=True)

    async def _close(self, job: Job) -> None:
        """A lost answer does not matter: the job's state tells. Raises CrmError when the job certainly stays open."""
        request = HttpRequest(
            method="PATCH", url=f"{DATA}/jobs/ingest/{job.id}", json={"state": "UploadComplete"}
        )
        try:
            await self.driver.exchange(request, operation=self.operation.value, is_write=True)
        except (Unavailable, UnexpectedResponse):
            return

    async def _ended(self, job: Job) -> Job:
        """Polls. Raises CrmError when the job does not end in time or its state cannot be read."""
        deadline = time.monotonic() + JOB_SECONDS
        pause = FIRST_PAUSE
        request = HttpRequest(method="GET", url=f"{DATA}/jobs/ingest/{job.id}")
        while True:
            await asyncio.sleep(pause)
            try:
                asked = msgspec.structs.replace(request, headers={})
                found = self._job(await self._exchange(asked, is_write=False))
            except (Unavailable, RateLimited) as error:
                if time.monotonic() > deadline:
                    raise
                pause = max(pause, min(error.retry_after_seconds or 0.0, LONGEST_PAUSE))
                continue
            if found.state in _ENDED:
                return found
            if time.monotonic() > deadline or found.state == "Open":
                raise Unavailable(
                    f"The bulk job did not end: it is {found.state[:20]}.", provider="salesforce"
                )
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _read(self, job: Job) -> Results:
        results: Results = {}
        try:
            for row in await self._file(job, "successfulResults"):
                if (place := self.places.get(row.get(self._column, ""), -1)) >= 0:
                    remote_id = self.driver.id_text(row.get("sf__Id"))
                    if remote_id:
                        is_new = self.operation is Operation.CREATE
                        results[place] = self.writer.applied(remote_id, was_created=is_new)
            if len(results) < len(self.bodies):
                for row in await self._file(job, "failedResults"):
                    if (place := self.places.get(row.get(self._column, ""), -1)) >= 0:
                        body = self.bodies[place]
                        said = HttpRequest(method="PUT", url="", json=body)  # the request itself is CSV
                        error = self.writer.refusal(
                            self.operation,
                            body,
                            [_problem(row.get("sf__Error", ""))],
                            self.driver.redactor_for(said),
                        )
                        results.setdefault(place, self._failed(error, place))
            if len(results) < len(self.bodies):
                for row in await self._file(job, "unprocessedrecords"):
                    if (place := self.places.get(row.get(self.key, ""), -1)) >= 0:
                        error = Unavailable(
                            f"The bulk job ended ({job.state}) before this record's turn.",
                            provider="salesforce",
                            operation=self.operation.value,
                            retry_safe=True,
                        )
                        results.setdefault(place, self._failed(error, place))
        except CrmError as error:
            lost = _unknown(error, self.operation)
            return {place: results.get(place) or self._failed(lost, place) for place in self.bodies}
        untold = UnexpectedResponse(
            f"The bulk job ended ({job.state[:20]}) without a word about this record.",
            provider="salesforce",
            operation=self.operation.value,
        )
        return {place: results.get(place) or self._failed(untold, place) for place in self.bodies}

    @property
    def _column(self) -> str:
        return "sf__Id" if self.key == "Id" else self.key

    async def _file(self, job: Job, name: str) -> list[dict[str, str]]:
        """A result file as rows by column. Raises UnexpectedResponse for something that is no CSV of ours."""
        request = HttpRequest(
            method="GET", url=f"{DATA}/jobs/ingest/{job.id}/{name}", headers={"Accept": "text/csv"}
        )
        response = await self.driver.exchange(request, operation=self.operation.value)
        try:
            lines = list(csv.reader(io.StringIO(response.body.decode("utf-8-sig"), newline=""), strict=True))
        except (UnicodeError, csv.Error):
            lines = []
        wanted = self.key if name == "unprocessedrecords" else self._column
        if not lines or wanted not in lines[0]:
            if not response.body.strip() or (lines and lines[0] and lines[0][0].startswith("sf__")):
                return []
            raise UnexpectedResponse(
                "Salesforce answered a result file that is no CSV.", provider="salesforce"
            )
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]

    async def _exchange(self, request: HttpRequest, *, is_write: bool) -> Any:
        return await self.driver.exchange_json(request, operation=self.operation.value, is_write=is_write)

    def _job(self, tree: Any) -> Job:
        try:
            job = msgspec.convert(tree, Job)
        except msgspec.ValidationError:
            job = Job(id="")
        if not self.driver.id_text(job.id):
            raise self.driver.unexpected("something that is no bulk job", self.operation, is_write=False)
        return job

    def _failed(self, error: CrmError, place: int) -> WriteResult:
        return WriteResult(
            outcome=error.outcome, remote_id=str(self.bodies[place].get("id", "")), error=error
        )


def _fits(body: Mapping[str, Any]) -> bool:
    """Whether CSV can say it: nested records and the very text that means null go another way."""
    return not any(isinstance(value, dict) or value == _NULL for value in body.values())


def _cell(value: Any) -> str:
    if value is None or value == "":
        return _NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _by_size(bodies: Bodies) -> Iterator[dict[int, dict[str, Any]]]:
    """Parts whose CSV stays well below the largest answer."""
    part: dict[int, dict[str, Any]] = {}
    size = 0
    for place, body in bodies.items():
        own = sum(len(str(value).encode()) + 3 for value in body.values()) + 40
        if part and size + own > MOST_BYTES:
            yield part
            part, size = {}, 0
        part[place] = body
        size += own
    if part:
        yield part


def _problem(text: str) -> dict[str, Any]:
    """``CODE:message:field --`` of a result file, in the shape of a row's error."""
    code, _, rest = text.partition(":")
    message, _, fields = rest.rpartition(":")
    names = [name.strip() for name in fields.replace("--", "").split(",") if name.strip()]
    return {"statusCode": code.strip(), "message": message or rest, "fields": names}


def _unknown(error: CrmError, operation: Operation) -> CrmError:
    """The job was closed, and what became of it cannot be read."""
    return Unavailable(
        f"What became of a bulk job cannot be told: {error.message}",
        provider="salesforce",
        operation=operation.value,
        outcome=Outcome.UNKNOWN,
        provider_facts=error.provider_facts,
    )
