"""Ingest jobs of the Bulk API 2.0: CSV in, three result files out.

Bulk API 2.0 Developer Guide and recorded jobs (read 2026-11-22). A job is worked on at its second look after it was
closed; ``bulk_looks`` makes it slower. ``stops_bulk_after`` ends a job as Failed after so many rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from crmbridge.drivers.salesforce.emulated_records import RecordRefused, stamp
from crmbridge.drivers.salesforce.emulated_schema import checked

if TYPE_CHECKING:
    from crmbridge.drivers.salesforce.emulated_org import Org

__all__ = ["Jobs"]

_DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
_OPERATIONS = ("insert", "update", "upsert", "delete", "hardDelete")


class Jobs:
    """The jobs of one emulator."""

    def __init__(self, emulator: Org) -> None:
        self.emulator = emulator
        self.all: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.looks: dict[str, int] = {}

    def open(self, asked: dict[str, Any], version: str) -> dict[str, Any]:
        """A new job. Raises RecordRefused."""
        kind, operation = str(asked.get("object")), asked.get("operation")
        if operation not in _OPERATIONS:
            raise RecordRefused("INVALIDOPERATION", f"Operation {operation} is not supported")
        if kind not in self.emulator.fields or kind in self.emulator.not_in_bulk:
            raise RecordRefused("INVALIDENTITY", f"Entity '{kind}' is not supported by the Bulk API.")
        if operation == "hardDelete" and not self.emulator.may_hard_delete:
            raise RecordRefused("FEATURENOTENABLED", "hardDelete is not enabled for this user")
        job_id = checked(f"750Hu0{len(self.all) + 1:09d}")
        now = stamp(self.emulator.clock.now())
        self.all[job_id] = {
            "id": job_id,
            "operation": operation,
            "object": kind,
            "createdById": self.emulator.user_id,
            "createdDate": now,
            "systemModstamp": now,
            "state": "Open",
            "externalIdFieldName": asked.get("externalIdFieldName"),
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(version.lstrip("v")),
            "contentUrl": f"services/data/{version}/jobs/ingest/{job_id}/batches",
            "lineEnding": asked.get("lineEnding", "LF"),
            "columnDelimiter": asked.get("columnDelimiter", "COMMA"),
            "jobType": "V2Ingest",
            "numberRecordsProcessed": 0,
            "numberRecordsFailed": 0,
            "retries": 0,
            "totalProcessingTime": 0,
        }
        return self.all[job_id]

    def need(self, job_id: str) -> dict[str, Any]:
        """The job. Raises RecordRefused."""
        job = self.all.get(checked(job_id[:15]))
        if job is None:
            raise RecordRefused("NOT_FOUND", "The requested resource does not exist")
        return job

    def fill(self, job_id: str, text: str) -> None:
        """The CSV of a job; once only. Raises RecordRefused."""
        job = self.need(job_id)
        if job["state"] != "Open" or job["id"] in self.files:
            raise RecordRefused("INVALIDJOBSTATE", "The job is not open for content, or has it already")
        self.files[job["id"]] = {"given": text}

    def turn(self, job_id: str, state: str) -> dict[str, Any]:
        """Closed or given up. Raises RecordRefused."""
        job = self.need(job_id)
        if state not in ("UploadComplete", "Aborted") or job["state"] != "Open":
            raise RecordRefused("INVALIDJOBSTATE", f"Job state cannot be changed to {state}")
        if state == "UploadComplete" and job["id"] not in self.files:
            raise RecordRefused("INVALIDJOBSTATE", "There is nothing uploaded yet")
        job["state"] = state
        return job

    def look(self, job_id: str) -> dict[str, Any]:
        """The job, which goes on by being looked at."""
        job = self.need(job_id)
        looks = self.looks[job["id"]] = self.looks.get(job["id"], 0) + (job["state"] != "Open")
        if job["state"] in ("UploadComplete", "InProgress"):
            job["state"] = "InProgress"
            if looks >= self.emulator.bulk_looks:
                self._work(job)
        return job

    def file(self, job_id: str, name: str) -> str:
        """A result file. Raises RecordRefused."""
        job = self.need(job_id)
        if job["state"] not in ("JobComplete", "Failed", "Aborted"):
            raise RecordRefused("INVALIDJOBSTATE", "The job has not ended")
        return self.files.get(job["id"], {}).get(name.lower(), "")

    def _work(self, job: dict[str, Any]) -> None:
        delimiter = _DELIMITERS[job["columnDelimiter"]]
        lines = list(csv.reader(io.StringIO(self.files[job["id"]]["given"], newline=""), delimiter=delimiter))
        if not lines:
            job |= {"state": "Failed", "errorMessage": "InvalidBatch : The CSV file is empty"}
            return
        names, rows = lines[0], lines[1:]
        if problem := self._column_problem(job, names):
            job |= {
                "state": "Failed",
                "errorMessage": f"InvalidBatch : {problem}",
                "numberRecordsProcessed": 0,
            }
            self._write(job, names, [], [], rows)
            return
        stop = self.emulator.stops_bulk_after
        done, lost = [], []
        for row in rows[:stop]:
            given = dict(zip(names, row, strict=False))
            try:
                record_id, is_new = self._apply(job, given)
                done.append([record_id, "true" if is_new else "false", *row])
            except RecordRefused as error:
                told = f"{error.code}:{error.message}:{','.join(error.fields)} --"
                lost.append([given.get("Id", ""), told, *row])
        job["state"] = "JobComplete" if stop is None or stop >= len(rows) else "Failed"
        job["numberRecordsProcessed"] = len(done) + len(lost)
        job["numberRecordsFailed"] = len(lost)
        self._write(job, names, done[::-1], lost, rows[len(done) + len(lost) :])

    def _column_problem(self, job: dict[str, Any], names: list[str]) -> str:
        if job["operation"] in ("delete", "hardDelete") and names != ["Id"]:
            return "delete and hardDelete take the column Id alone"
        known = self.emulator.visible(job["object"])
        for name in names:
            if name not in known and "." not in name:
                return f"Field name not found : {name}"
        return ""

    def _apply(self, job: dict[str, Any], given: dict[str, str]) -> tuple[str, bool]:
        records, kind = self.emulator.records, job["object"]
        record_id = given.get("Id", "")
        body: dict[str, Any] = {
            name: None if text == "#N/A" else text
            for name, text in given.items()
            if text != "" and name != "Id"
        }
        if job["operation"] == "insert":
            return records.create(kind, body).id, True
        if job["operation"] == "upsert":
            key = job["externalIdFieldName"]
            if key == "Id":
                return (
                    (records.update(kind, record_id, body).id, False)
                    if record_id
                    else (records.create(kind, body).id, True)
                )
            row, is_new = records.upsert(kind, key, body.get(key), body)
            return row.id, is_new
        if job["operation"] == "update":
            return records.update(kind, record_id, body).id, False
        if job["operation"] == "delete":
            records.delete(kind, record_id)
        else:
            records.delete_for_good(kind, record_id)
        return checked(record_id[:15]), False

    def _write(
        self,
        job: dict[str, Any],
        names: list[str],
        done: list[list[str]],
        lost: list[list[str]],
        rest: list[list[str]],
    ) -> None:
        files = self.files[job["id"]]
        files["given"] = ""
        files["successfulresults"] = _csv(["sf__Id", "sf__Created", *names], done)
        files["failedresults"] = _csv(["sf__Id", "sf__Error", *names], lost)
        files["unprocessedrecords"] = _csv(names, rest)


def _csv(names: list[str], rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    lines.writerow(names)
    lines.writerows(rows)
    return text.getvalue()
