"""docs/reference/retries.md: what happens to a write that does not simply work, drawn from what the code does.

The numbers are the constants of delivery. By what a driver settles an unknown outcome is declared in its manifest, and
the contract tries it. What a driver makes of a failure is tried here: each writing operation is sent to the driver's
emulator, which fails on demand, and delivery judges the result.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from tools.reference.markdown import NOTE, code, head, row

from crmbridge.conformance import DriverContract
from crmbridge.conformance.cases import NotApplicable
from crmbridge.conformance.run import contract_for
from crmbridge.core.errors import Unavailable
from crmbridge.core.manifest import AuthKind, LookUp, Manifest
from crmbridge.core.operations import Operation, Outcome
from crmbridge.core.records import Object, WriteResult
from crmbridge.drivers import DRIVERS
from crmbridge.services.delivery.lane.outcome import JITTER, Verdict, backoff_seconds, judge, judge_look_up
from crmbridge.services.delivery.model import TRANSITIONS, Event, Limits, TargetState
from crmbridge.toolkit.failures import MAX_RETRY_AFTER_SECONDS

__all__ = ["anchor", "retries_page"]

_LIMITS = Limits()
_WRITES = tuple(operation for operation in Operation if operation.is_write)
_TOKENS = (AuthKind.OAUTH_CODE, AuthKind.CLIENT_CREDENTIALS, AuthKind.SIGN_IN)
_ASKED_SECONDS = 120
# The cut comes last: it takes effect, and what follows would meet its record.
_FAULTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (f"429, `Retry-After: {_ASKED_SECONDS}`", "status", {"status": 429, "retry_after": str(_ASKED_SECONDS)}),
    ("429 without `Retry-After`", "status", {"status": 429}),
    ("500", "status", {"status": 500}),
    ("503", "status", {"status": 503}),
    ("401", "status", {"status": 401}),
    ("403", "status", {"status": 403}),
    ("422, the content is refused", "status", {"status": 422}),
    ("no connection, or a time-out before it was sent", "refused", {}),
    ("a web page instead of an answer (502)", "html", {"status": 502}),
    ("time-out or cut after it was sent", "timeout_after", {}),
)
_RENEWED = "401 again, with a token renewed for it"
_MEANS = {
    LookUp.NONE: "nothing",
    LookUp.NATURAL_KEY: "a search for {fields}; the record has all written values",
    LookUp.MARK: "our mark in {fields}",
    LookUp.EXTERNAL_ID: "our mark in {fields}",
    LookUp.KEY_SENT: "no look-up: each try carries the same key ({fields}), and the receiver drops repeats",
    LookUp.RECORD: "the record itself is read",
    LookUp.MATCH: "the record that the match finds has all written values; else sent again, which changes nothing more",
    LookUp.REPEAT: "no look-up shows it; sent again, which has no second effect",
}

Place = tuple[Object, Operation]


def anchor(display_name: str) -> str:
    """The fragment by which a heading is linked to."""
    return re.sub(r"[^a-z0-9_-]", "", display_name.lower().replace(" ", "-"))


def retries_page() -> str:
    """docs/reference/retries.md."""
    return asyncio.run(_page())


async def _page() -> str:
    text = "# Retries\n\n" + NOTE + _introduction()
    for slug in sorted(DRIVERS):
        contract = contract_for(slug)
        text += await _driver(contract() if issubclass(contract, DriverContract) else DriverContract())
    return text.rstrip() + "\n"


# -- the same for all ----------------------------------------------------------------------------------------


def _introduction() -> str:
    limits = _LIMITS
    steps = [backoff_seconds(failures, limits, JITTER[1]) for failures in range(1, 20)]
    growing = list(dict.fromkeys(steps))
    series = ", ".join(_seconds(step) for step in growing)
    return f"""What delivery does with a write that does not simply work. Only delivery sends a write again; a driver
never does, but for one repeat with a renewed token after a 401. [States](states.md) shows how a target moves,
[errors](errors.md) the codes.

## Outcomes

Every try ends with one of three outcomes, and none is ever guessed.

- **{Outcome.APPLIED}**: the CRM says that it was done.
- **{Outcome.NOT_APPLIED}**: nothing was done: it was never sent, or the CRM refused it. It is sent again later if
  that can help, else it becomes a dead letter at once, with the reason.
- **{Outcome.UNKNOWN}**: it was sent, and no clear answer came. It is looked up before anything is sent again.

## Waiting

A failure of the CRM, the credential or a rate limit holds the entire lane back: its other writes would fail too. A
failure of one write makes that write alone wait.

- **Back-off**: {series}, and no more than that. Of each step
  {JITTER[0]:.0%} to {JITTER[1]:.0%} is waited, drawn anew, so that lanes do not come back together. Anything that
  gets through starts it over.
- **`Retry-After`** is kept when it asks for more than the back-off, up to {_seconds(MAX_RETRY_AFTER_SECONDS)}.
- **Rate budgets** keep most 429 from happening: see the limits on each driver's page.
- A write that failed {limits.alone_after} times travels alone, so that it takes no others down with it.
- A write that failed {limits.most_attempts} times while its lane delivers others becomes a dead letter.
- While a lane is held back, it is tried for as long as it takes. After {_seconds(limits.overdue_seconds)} an incident
  `crm_sync_failure` opens, and closes by itself when the lane has caught up. For a paused connection it says who
  paused it, since when, and how to resume.

## An unknown outcome

The first look-up comes after {_seconds(limits.settle_seconds)}, or after the provider's search lag where that is
longer. If the process died while it was sending, the lag begins when the time that one batch may take is over
({_seconds(limits.send_seconds)}, or twice the driver's time-out where that is longer, and half a lease of
{_seconds(limits.lease_seconds)}). Then:

{_look_ups()}
## Parked and dead

- **{TargetState.PARKED.value}**: whether it took effect cannot be told. An incident `write_parked` opens and says
  why, how many there are and how to list them; it resolves itself with the last one. Nothing is sent again by itself,
  and later writes to the same record wait. A *redrive* looks it up first: found, it is applied; surely not there, it is
  sent; where that cannot be told, it is parked again. Then look into the CRM yourself: *redrive without looking*
  (`--without-looking`, `?without_looking=true`, or the box in the console) if the effect is missing, *discard* if it is
  there.
- **{TargetState.DEAD_LETTER.value.replace("_", " ")}**: the CRM will not take it as it is. Correct the cause (a field,
  a right, a mapping), then *redrive*; or *discard* it.
- **redrive** sends it as new: the count of its tries begins again. `crmbridge writes redrive`, the console, or
  `POST /api/tenants/{{tenant}}/writes/{{id}}/redrive`; without the id, all that fit a filter.

## By driver

*Settled by* says by what an unknown outcome is looked up. *Else* is what happens when that cannot tell. The second
table was made by trying: each operation was sent to the driver's emulator, which failed as the first column says.
Waiting times are those of a first failure.

"""


def _look_ups() -> str:
    def verdict(result: WriteResult, **more: Any) -> Verdict:
        given = {
            "attempt": 1,
            "first_error": None,
            "lane_failures": 0,
            "limits": _LIMITS,
            "jitter": JITTER[1],
        }
        return judge_look_up(result, **(given | more))

    failed = WriteResult(outcome=Outcome.UNKNOWN, error=Unavailable("down", retry_safe=True))
    blind = WriteResult(outcome=Outcome.UNKNOWN)
    harmless = {"retry_safe": True}
    days = _seconds(_LIMITS.look_up_seconds)
    text = head("The look-up", "What follows")
    for what, said in (
        ("finds the effect", verdict(WriteResult(outcome=Outcome.APPLIED))),
        ("shows that there is none", verdict(WriteResult(outcome=Outcome.NOT_APPLIED))),
        ("cannot tell", verdict(blind)),
        ("cannot tell, and a repeat has no second effect", verdict(blind, first_error=harmless)),
        ("fails itself (the CRM is down, say)", verdict(failed)),
        (f"still fails {days} after the first one", verdict(failed, looked_seconds=_LIMITS.look_up_seconds)),
    ):
        text += row(what, _said(said, "it is looked up again"))
    return text


# -- one driver ----------------------------------------------------------------------------------------------


async def _driver(contract: DriverContract) -> str:
    manifest = contract.manifest()
    text = f"### {contract.driver.MANIFEST.display_name}\n\n[The driver's page](drivers/{manifest.slug}.md). "
    if manifest.why_unavailable:
        return text + "Everything is refused before anything is sent.\n\n"
    bound = max(_LIMITS.send_seconds, 2 * manifest.timeout_seconds)
    text += f"One call may take {_seconds(manifest.timeout_seconds)}, one batch {_seconds(bound)}."
    if manifest.objects != contract.driver.MANIFEST.objects:
        text += " Its settings decide what it can do; shown are those that the contract is run with."
    return text + "\n\n" + _means(manifest) + "\n" + await _failures(contract) + "\n"


def _means(manifest: Manifest) -> str:
    text = head("Objects", "Operations", "Settled by", "First look-up after", "Else")
    together: dict[tuple[str, ...], list[str]] = {}
    for obj, spec in manifest.objects.items():
        told: dict[tuple[str, str, str], list[str]] = {}
        for operation in _WRITES:
            if not manifest.supports(obj, operation).is_usable:
                continue
            means = manifest.look_up(obj, operation)
            lost = judge(
                WriteResult(outcome=Outcome.UNKNOWN),
                attempt=1,
                lane_failures=0,
                limits=_LIMITS,
                lag=spec.idempotency.search_lag_seconds,
                jitter=JITTER[1],
            )
            named = [spec.idempotency.field] if spec.idempotency.field else list(spec.natural_keys)
            by = _MEANS[means].format(fields=", ".join(code(name) for name in named))
            if operation is Operation.UPSERT and means in (LookUp.EXTERNAL_ID, LookUp.MARK):
                by += "; without it sent again, which changes nothing more"
            cells = (by, _seconds(lost.delay_seconds), _else(manifest, obj, operation))
            told.setdefault(cells, []).append(operation.value)
        for settled, operations in told.items():
            together.setdefault((", ".join(operations), *settled), []).append(obj.value)
    for line, objects in together.items():
        text += row(", ".join(objects), *line)
    return text


def _else(manifest: Manifest, obj: Object, operation: Operation) -> str:
    """What becomes of a look-up that cannot tell."""
    means = manifest.look_up(obj, operation)
    if means is LookUp.REPEAT:
        return "–"
    verdict = judge_look_up(
        WriteResult(outcome=Outcome.UNKNOWN),
        attempt=1,
        first_error=None,
        lane_failures=0,
        limits=_LIMITS,
        jitter=JITTER[1],
        is_key_sent=means is LookUp.KEY_SENT,
    )
    doubt = manifest.objects[obj].doubts.get(operation, "")
    if means is LookUp.NONE:
        return _said(verdict) + (f"; {doubt}" if doubt else "")
    if not doubt and means in (LookUp.NATURAL_KEY, LookUp.MATCH):
        doubt = "several records fit, or the one that fits has other values"
        doubt = doubt if means is LookUp.NATURAL_KEY else "several records fit"
    return _said(verdict) + (f" when {doubt}" if doubt else "")


async def _failures(contract: DriverContract) -> str:
    manifest = contract.manifest()
    found: dict[str, dict[tuple[str, str, str], list[Place]]] = {}
    for obj in manifest.objects:
        for operation in _WRITES:
            if not manifest.supports(obj, operation).is_usable:
                continue
            for name, tried in (await _tried(contract, obj, operation)).items():
                found.setdefault(name, {}).setdefault(tried, []).append((obj, operation))
    text = head("What comes", "Of", "Error", "Outcome", "What follows")
    for name, told in found.items():
        _settle_clock(told)
        most = max(told.values(), key=len)
        for cells, places in sorted(told.items(), key=lambda item: -len(item[1])):
            of = "all" if len(told) == 1 else "all others" if places is most else _where(places)
            text += row(name, of, *cells)
    return text


def _settle_clock(told: dict[tuple[str, str, str], list[Place]]) -> None:
    """A provider's own reset may have passed while it was tried: then its back-off was as good as its clock."""
    drawn = next((cells for cells in told if _BY_CLOCK in cells[2]), None)
    if drawn is None:
        return
    for cells in [cells for cells in told if cells[:2] == drawn[:2] and cells != drawn]:
        told[drawn] += told.pop(cells)


async def _tried(
    contract: DriverContract, obj: Object, operation: Operation
) -> dict[str, tuple[str, str, str]]:
    """What each fault makes of this operation; nothing where the contract cannot make such a write."""
    bench = await contract.make()
    try:
        write = await contract.some_write(bench, obj, operation)
    except NotApplicable:
        return {}
    lag = contract.manifest().objects[obj].idempotency.search_lag_seconds
    faults = list(_FAULTS)
    if contract.manifest().auth.kind in _TOKENS:
        faults.insert([name for name, _, _ in faults].index("401") + 1, (_RENEWED, "status", {"status": 401}))
    found = {}
    for name, kind, more in faults:
        # What an earlier try has used up of a rate limit comes back.
        await contract.wait(bench, 60.0)
        bench.access.renew = _renew if name == _RENEWED else None
        bench.emulator.faults.clear()
        bench.emulator.faults.add(kind, only="writes", times=0, **more)
        result = await bench.open().write_one(write)
        verdict = judge(result, attempt=1, lane_failures=0, limits=_LIMITS, lag=lag, jitter=JITTER[1])
        error = code(result.error.full_code) if result.error is not None else "–"  # type: ignore[attr-defined]
        found[name] = (error, result.outcome.value, _said(verdict))
    contract.benches.clear()
    return found


async def _renew() -> bool:
    return True


def _where(places: Iterable[Place]) -> str:
    """``delete, erase of customer, lead``; objects with the same operations stand together."""
    by_object: dict[str, list[str]] = {}
    for obj, operation in places:
        by_object.setdefault(obj.value, []).append(operation.value)
    together: dict[str, list[str]] = {}
    for name, operations in by_object.items():
        together.setdefault(", ".join(operations), []).append(name)
    return "; ".join(f"{operations} of {', '.join(names)}" for operations, names in together.items())


# -- words ---------------------------------------------------------------------------------------------------

_BY_CLOCK = ", when the provider says"
_AFTER = {
    Event.APPLIED: "done",
    Event.FOUND: "done",
    Event.NOT_NOW: "sent again",
    Event.NOT_FOUND: "sent again",
    Event.LOST: "looked up",
}


def _said(verdict: Verdict, without: str = "") -> str:
    """A verdict in words: what becomes of the write, when, and whether its lane waits too."""
    if verdict.event is None:
        return f"{without}, with back-off{'; the lane waits' if verdict.is_lane_fault else ''}"
    state = next(new for (_, event), new in TRANSITIONS.items() if event is verdict.event)
    said = _AFTER.get(verdict.event, f"**{state.value.replace('_', ' ')}**")
    if verdict.event in (Event.NOT_NOW, Event.LOST):
        asked = verdict.delay_seconds
        is_drawn = asked != int(asked)  # the provider's own clock, read to the fraction of a second
        is_back_off = verdict.event is Event.NOT_NOW and asked == backoff_seconds(1, _LIMITS, JITTER[1])
        wait = "with back-off" if is_back_off else f"after {_seconds(asked)}"
        said += _BY_CLOCK if is_drawn else f" {wait}"
    if verdict.event is Event.NOT_FOUND:
        said += " at once" if not verdict.delay_seconds else f" after {_seconds(verdict.delay_seconds)}"
    return said + ("; the lane waits" if verdict.is_lane_fault else "")


def _seconds(seconds: float) -> str:
    """``90 s``, ``15 min``, ``24 h``, ``3 days``."""
    for unit, size, least in (("days", 86_400, 2), ("h", 3_600, 1), ("min", 60, 1)):
        if seconds >= least * size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
