"""``crmbridge import``: a CSV or JSON Lines file into a tenant's CRM."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmbridge.cli.client import Client, find_key
from crmbridge.cli.options import DEFAULT_URL, AsJson, Url
from crmbridge.cli.output import Output, guarded
from crmbridge.cli.problems import Problem, UsageProblem

if TYPE_CHECKING:
    from crmbridge.cli.importing.cleaning import Cleaner, Slots
    from crmbridge.cli.importing.marks import Mark
    from crmbridge.cli.importing.rows import RowReader
    from crmbridge.cli.importing.run import Delivered, Target
    from crmbridge.cli.importing.targets import Refusals, Targets

__all__ = ["ImportForm", "begin", "import_file", "prepare"]


@dataclass(frozen=True, kw_only=True)
class ImportForm:
    """All that decides what an import does."""

    source: Path
    tenant: str
    object: str = "lead"
    map_option: str = ""
    match: tuple[str, ...] = ()
    region: str = ""
    dayfirst: bool | None = None
    zone: str = ""
    encoding: str | None = None
    delimiter: str | None = None
    connection: str = ""
    batch: int = 200
    patience: float = 900.0


@dataclass(kw_only=True)
class Prepared:
    """An import that may begin: the open file, the mapping, what makes values of cells."""

    reader: RowReader
    mapping: dict[str, str | None]
    targets: Targets
    cleaner: Cleaner
    settings: str

    @property
    def slots(self) -> Slots:
        """Of the connection by which rows are made."""
        return self.targets.first


async def prepare(client: Client, form: ImportForm) -> Prepared:
    """Opens the file and reads the tenant's slots, of all connections that get the rows. Raises Problem; the caller
    closes ``reader``.
    """
    from crmbridge.cli.importing.cleaning import Cleaner, choose_mapping
    from crmbridge.cli.importing.rows import UnreadableFile, open_rows
    from crmbridge.cli.importing.targets import ask_targets
    from crmbridge.core.records import Object

    if form.object not in list(Object):
        raise UsageProblem(f"There is no object {form.object!r}.", hint=f"Objects: {', '.join(Object)}.")
    try:
        reader = await asyncio.to_thread(
            open_rows, form.source, encoding=form.encoding, delimiter=form.delimiter
        )
    except UnreadableFile as error:
        raise Problem(str(error), code="unreadable_file", hint=error.fix) from None
    except (OSError, LookupError) as error:
        reason = getattr(error, "strerror", None) or "there is no such encoding"
        raise Problem(f"{form.source} cannot be read: {reason}.", code="unreadable_file") from None
    try:
        tenant = await client.get("tenants", form.tenant)
        targets = await ask_targets(client, tenant, form.object, form.connection)
        slots = targets.first
        mapping = choose_mapping(reader.headers, slots, form.map_option)
        if unknown := [slot for slot in form.match if slot not in mapping.values()]:
            raise UsageProblem(
                f"--match {unknown[0]} has no column in this file.",
                hint='Map one: --map "Header=slot".',
            )
        region = form.region or tenant.get("region") or ""
        zone = form.zone or tenant.get("time_zone") or "UTC"
        cleaner = Cleaner(form.object, mapping, slots, region=region, dayfirst=form.dayfirst, zone=zone)
    except BaseException:
        reader.close()
        raise
    decides = [mapping, region, form.dayfirst, zone, reader.encoding.name, reader.delimiter, form.match]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
    return Prepared(reader=reader, mapping=mapping, targets=targets, cleaner=cleaner, settings=digest)


async def begin(client: Client, form: ImportForm, prepared: Prepared, *, restart: bool) -> tuple[Mark, str]:
    """The mark to go on from, or a new one with a new import, and a sentence about it.

    Raises Problem where going on would write rows a second time.
    """
    from crmbridge.cli.importing.marks import Mark, fingerprint_of, read_mark

    fingerprint = await asyncio.to_thread(fingerprint_of, form.source)
    mark = read_mark(form.source, (client.url, form.tenant, form.object, form.connection))
    if mark is not None and not restart:
        _refuse_doubling(mark, fingerprint, prepared.settings, form.source)
        if not mark.finished:
            return mark, f"Going on with the interrupted import after line {mark.line:,}."
        mark = _again(mark)
        return mark, "This file was imported before: rows that the server knows are not written again."
    answer = await client.post("tenants", form.tenant, "imports", body={"object": form.object})
    made = Mark(
        fingerprint=fingerprint,
        size=prepared.reader.total_bytes,
        settings=prepared.settings,
        import_id=answer["id"],
        url=client.url,
        tenant=form.tenant,
        object=form.object,
        connection=form.connection,
    )
    return made, ""


def _refuse_doubling(mark: Mark, fingerprint: str, settings: str, source: Path) -> None:
    what = (
        "has changed"
        if mark.fingerprint != fingerprint
        else "would be read with other settings"
        if mark.settings != settings
        else ""
    )
    if what:
        raise Problem(
            f"{source.name} {what} since its import into {mark.tenant}; rows imported then "
            f"({mark.accepted + mark.replayed:,}) would be written a second time.",
            code="import_differs",
            hint="Import only the new rows from a file of their own (the .rejects.csv file is one), use --match "
            "to update what is there, or write all again with --restart.",
        )


def _again(mark: Mark) -> Mark:
    import msgspec

    return msgspec.structs.replace(
        mark, line=0, read=0, accepted=0, replayed=0, rejected=0, rejects_bytes=0, seconds=0.0, finished=False
    )


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the import as Ctrl-C does: the mark is saved."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _run(form: ImportForm, url: str, output: Output, *, restart: bool, yes: bool, wait: bool) -> None:
    from crmbridge.cli.importing.marks import import_lock

    async with Client(url, find_key(url)) as client:
        prepared = await prepare(client, form)
        with prepared.reader, import_lock(form.source), _terminable():
            _show_mapping(output, form, prepared)
            mark, sentence = await begin(client, form, prepared, restart=restart)
            if sentence:
                output.remark(sentence)
            await asyncio.to_thread(_confirm, output, yes)
            await _load_and_follow(client, form, prepared, mark, output, wait=wait)


async def _load_and_follow(
    client: Client, form: ImportForm, prepared: Prepared, mark: Mark, output: Output, *, wait: bool
) -> None:
    from crmbridge.cli.importing.bars import Bars
    from crmbridge.cli.importing.run import Target, follow

    target = Target(
        tenant=form.tenant,
        object=form.object,
        import_id=mark.import_id,
        connection=form.connection,
        match=form.match,
    )
    began = monotonic() - mark.seconds
    delivered: Delivered | None = None
    with Bars(output) as bars:
        try:
            await load(client, form, prepared, mark, target, bars)
            if wait and (mark.accepted or mark.replayed):
                delivered = await follow(client, target, bars, began=began, patience=form.patience)
        except asyncio.CancelledError:
            _tell_stopped(output, mark)
            raise typer.Exit(130) from None
    rejects = form.source.with_name(form.source.name + ".rejects.csv") if mark.rejected else None
    _summary(output, mark, delivered, rejects)
    if mark.rejected or (delivered and delivered.given_up):
        raise typer.Exit(1)


async def load(
    client: Client, form: ImportForm, prepared: Prepared, mark: Mark, target: Target, view: Any
) -> Mark:
    """The loading half: rejects cut back to the mark, then all rows after it."""
    from crmbridge.cli.importing.rejects import Rejects
    from crmbridge.cli.importing.rows import UnreadableFile
    from crmbridge.cli.importing.run import Importer

    reader = prepared.reader
    is_resumed = mark.line > 0
    path = form.source.with_name(form.source.name + ".rejects.csv")
    if is_resumed and path.exists() and path.stat().st_size > mark.rejects_bytes:
        os.truncate(path, mark.rejects_bytes)
    with Rejects(form.source, reader.headers, delimiter=reader.delimiter, append=is_resumed) as rejects:
        importer = Importer(
            client,
            target,
            reader,
            prepared.cleaner,
            rejects,
            mark,
            view,
            batch=form.batch,
            patience=form.patience,
        )
        try:
            return await importer.load()
        except UnreadableFile as error:
            raise Problem(str(error), code="unreadable_file", hint=error.fix) from None


def _show_mapping(output: Output, form: ImportForm, prepared: Prepared) -> None:
    if output.as_json:
        return
    reader = prepared.reader
    kind = "JSON Lines" if reader.json_lines else f"CSV, delimiter {reader.delimiter!r}"
    output.line(f"{form.source.name}  {kind}, {reader.encoding.name}, {reader.total_bytes:,} bytes", "bold")
    for notice in reader.notices:
        output.remark(notice)
    rows = [
        (header, f"{form.object}.{slot}" if slot else "-", _fate(form, prepared, slot))
        for header, slot in prepared.mapping.items()
    ]
    output.table(("column", "slot", ""), rows)
    output.line()


def _fate(form: ImportForm, prepared: Prepared, slot: str | None) -> str:
    from crmbridge.cli.importing.cleaning import note_slot

    if slot is None:
        return "left out"
    if prepared.slots.reaches(slot):
        lacking = prepared.targets.lacking(slot)
        return f"refused by {', '.join(lacking)}: no place there" if lacking else ""
    note = note_slot(form.object, prepared.slots)
    place = f"kept in {form.object}.{note}" if note else "left out"
    return f"no place in this CRM: {place}"


def _confirm(output: Output, yes: bool) -> None:
    if yes or output.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not typer.confirm("Import with this mapping?", default=True, err=True):
        raise typer.Exit(1)


def _tell_stopped(output: Output, mark: Mark) -> None:
    if mark.finished:
        output.remark("Stopped watching. All rows are accepted; the server goes on delivering them.")
    else:
        output.remark(f"Stopped after line {mark.line:,}. Run the same command again to go on from there.")


def _summary(output: Output, mark: Mark, delivered: Delivered | None, rejects: Path | None) -> None:
    seconds = delivered.seconds if delivered else mark.seconds
    done = delivered.applied if delivered else mark.accepted + mark.replayed
    tree: dict[str, Any] = {
        "import_id": mark.import_id,
        "read": mark.read,
        "accepted": mark.accepted,
        "replayed": mark.replayed,
        "rejected": mark.rejected,
        "rejects_file": str(rejects) if rejects else None,
        "delivered": delivered.applied if delivered else None,
        "dead_letters": delivered.counts.get("dead_letter", 0) if delivered else None,
        "parked": delivered.counts.get("parked", 0) if delivered else None,
        "reasons": [
            {"count": each.times, "connection": each.connection, "reason": each.reason}
            for each in (delivered.reasons if delivered else [])
        ],
        "seconds": round(seconds, 2),
        "records_per_second": round(done / seconds, 1) if seconds else None,
    }
    if output.as_json:
        output.tree(tree)
        return
    output.line()
    output.facts(
        [
            ("read", f"{mark.read:,} rows"),
            ("accepted", f"{mark.accepted:,}"),
            ("known already", f"{mark.replayed:,}" if mark.replayed else None),
            ("rejected", f"{mark.rejected:,}, see {rejects}" if rejects else None),
            ("delivered", _told_delivered(mark, delivered)),
            ("given up", f"{delivered.given_up:,}" if delivered and delivered.given_up else None),
            ("took", f"{seconds:.1f} s" + (f", {done / seconds:,.0f} records/s" if done and seconds else "")),
            ("import", mark.import_id),
        ]
    )
    for each in islice(delivered.reasons if delivered else (), 10):
        output.line(f"  {each.times:,} x {each.told}", "yellow")


def _told_delivered(mark: Mark, delivered: Delivered | None) -> str:
    if delivered is None:
        return "goes on in the server" if mark.accepted or mark.replayed else "nothing to deliver"
    return f"{delivered.applied:,}" if delivered.total else "nothing new"


async def _dry_run(form: ImportForm, url: str, output: Output) -> None:
    """Reads and cleans every row, and asks what each connection would refuse; sends none."""
    from crmbridge.cli.importing.cleaning import SpoiltRow
    from crmbridge.cli.importing.rows import BadRow
    from crmbridge.cli.importing.targets import Refusals, would_refuse

    async with Client(url, find_key(url)) as client:
        prepared = await prepare(client, form)
        good, bad, example = 0, [], None
        refusals = Refusals(prepared.targets, form.object)
        with prepared.reader as reader:
            _show_mapping(output, form, prepared)
            for row in reader:
                try:
                    if isinstance(row, BadRow):
                        raise SpoiltRow(row.reason)
                    fields = prepared.cleaner.fields(row.values)
                    example = example or fields
                    good += 1
                    refusals.note(row.line, fields)
                except SpoiltRow as spoilt:
                    bad.append((row.line, str(spoilt)))
        asked = await would_refuse(
            client, form.tenant, refusals, connection=form.connection, match=form.match
        )
    _show_dry_run(output, good, bad, example, refusals, asked)


def _show_dry_run(
    output: Output,
    good: int,
    bad: list[tuple[int, str]],
    example: dict[str, Any] | None,
    refusals: Refusals,
    asked: list[tuple[str, int, str]],
) -> None:
    connections = list(refusals.targets.slots)
    if output.as_json:
        refused = [{"connection": name, "rows": n, "reason": text} for name, n, text in refusals.lines()]
        refused += [{"connection": name, "line": n, "reason": text} for name, n, text in asked]
        output.tree(
            {
                "good": good,
                "rejected": [{"line": n, "reason": text} for n, text in bad],
                "example": example,
                "connections": connections,
                "would_refuse": refused,
            }
        )
        return
    output.line(f"{good:,} rows can be sent, {len(bad):,} cannot. Nothing was sent.")
    if len(connections) > 1:
        output.line(f"Each goes to {', '.join(connections)}.")
    if example:
        output.line()
        output.facts((f"first row, {name}", value) for name, value in example.items())
    rows = [(name, f"{n:,} {'row' if n == 1 else 'rows'}", text) for name, n, text in refusals.lines()]
    rows += [(name, f"such as line {n:,}", text) for name, n, text in asked]
    if rows:
        output.line()
        output.table(("would refuse", "", "reason"), rows[:20])
        output.remark(
            "What a connection but the first refuses becomes a dead letter there; the others get it."
        )
    if bad:
        output.line()
        output.table(("line", "reason"), _first(bad, 20), right=("line",))


def _first(rows: list[tuple[int, str]], most: int) -> Iterable[tuple[Any, str]]:
    yield from rows[:most]
    if len(rows) > most:
        yield "", f"and {len(rows) - most:,} more"


@guarded
def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or JSON Lines.")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Slug or id of the tenant.")],
    object_name: Annotated[str, typer.Option("--object", help="What a row is.")] = "lead",
    map_option: Annotated[
        str, typer.Option("--map", help='Columns to slots: "E-Mail=email,Created=" (empty: leave out).')
    ] = "",
    match: Annotated[
        list[str] | None, typer.Option("--match", help="Slot that tells a known person: update, not create.")
    ] = None,
    region: Annotated[
        str, typer.Option("--region", help="Country of phone numbers without one; default: the tenant's.")
    ] = "",
    dayfirst: Annotated[
        bool | None, typer.Option("--dayfirst/--monthfirst", help="How to read 03/04/2026.")
    ] = None,
    zone: Annotated[
        str, typer.Option("--zone", help="Time zone of moments without one; default: the tenant's.")
    ] = "",
    encoding: Annotated[str, typer.Option("--encoding", help="Default: found by reading.")] = "",
    delimiter: Annotated[str, typer.Option("--delimiter", help="Default: found by reading.")] = "",
    connection: Annotated[str, typer.Option("--connection", help="Only to this connection.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check all rows, send none.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the CRM has the rows.")] = True,
    batch: Annotated[int, typer.Option("--batch", min=1, max=500, help="Rows per request.")] = 200,
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds without an answer before giving up.")
    ] = 900.0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget how far an earlier import of this file came.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Import a file of people, deals and so on into a tenant's CRM. May be interrupted and run again."""
    form = ImportForm(
        source=file,
        tenant=tenant,
        object=object_name,
        map_option=map_option,
        match=tuple(match or ()),
        region=region,
        dayfirst=dayfirst,
        zone=zone,
        encoding=encoding or None,
        delimiter=delimiter or None,
        connection=connection,
        batch=batch,
        patience=patience,
    )
    output = Output(as_json)
    if dry_run:
        asyncio.run(_dry_run(form, url, output))
    else:
        asyncio.run(_run(form, url, output, restart=restart, yes=yes, wait=wait))
