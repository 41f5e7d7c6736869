"""What the demo found out, driver by driver, and what to try next."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from crmbridge.cli.output import Output

__all__ = ["Result", "show_next_steps", "show_results"]


@dataclass(kw_only=True)
class Result:
    """One driver's import. ``held`` is what the emulator has in the end, ``good`` the rows that any CRM must take.

    ``way`` says how it was connected, ``gate`` which papers were recorded first, ``fewer`` why not all rows were read,
    ``unmapped`` the slots whose field the CRM does not have.
    """

    slug: str
    way: str = ""
    gate: str = ""
    object: str = ""
    fewer: str = ""
    unmapped: list[str] = field(default_factory=list)
    read: int = 0
    accepted: int = 0
    rejected: int = 0
    delivered: int = 0
    given_up: int = 0
    good: int = 0
    held: int = 0
    calls: int = 0
    seconds: float = 0.0
    reasons: list[tuple[int, str]] = field(default_factory=list)
    refusal: str = ""
    way_out: str = ""
    error: str = ""

    @property
    def complaints(self) -> list[str]:
        """Why this driver is not as it should be; empty when it is."""
        if self.refusal:
            return []
        if self.error:
            return [self.error]
        found = []
        if self.delivered < self.accepted / 2:
            found.append(f"only {self.delivered:,} of {self.accepted:,} accepted rows are delivered")
        elif self.delivered < self.good:
            found.append(f"{self.good - self.delivered} good rows are not delivered")
        if self.delivered + self.given_up != self.accepted:
            found.append(f"{self.accepted - self.delivered - self.given_up} accepted rows have no end")
        if self.held < self.delivered:
            found.append(f"{self.delivered - self.held} records are missing in the CRM")
        if self.held > self.delivered:
            found.append(f"{self.held - self.delivered} records too many in the CRM")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "driver": self.slug,
            "refusal": self.refusal or None,
            "way_out": self.way_out or None,
            "connected_by": self.way or None,
            "gate": self.gate or None,
            "object": self.object or None,
            "fewer_rows_because": self.fewer.removeprefix(":").strip() or None,
            "unmapped": self.unmapped,
            "read": self.read,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "delivered": self.delivered,
            "dead_letters": self.given_up,
            "reasons": [{"count": count, "reason": text} for count, text in self.reasons],
            "held_by_crm": self.held,
            "provider_calls": self.calls,
            "seconds": round(self.seconds, 2),
            "records_per_second": round(self.delivered / self.seconds) if self.seconds else None,
            "complaints": self.complaints,
        }


_HEADERS = ("", "driver", "by", "as", "accepted", "delivered", "dead", "calls", "per s")
# Columns that a wider terminal has room for, and from which width on.
_MORE = ((100, "rows"), (100, "CRM holds"), (112, "rejected"))


def show_results(output: Output, results: list[Result]) -> None:
    """One line per driver; then reasons, refusals and complaints. A narrow terminal gets fewer columns."""
    width = output.console().width
    more = tuple(header for least, header in _MORE if width >= least)
    rows = [(*_cells(result), *(_more_cells(result)[header] for header in more)) for result in results]
    output.table((*_HEADERS, *more), rows, right=(*_HEADERS[4:], *more))
    output.line()
    output.line("by: how it was connected   as: the object   dead: given up, reasons below", "dim")
    output.line("calls: requests that the CRM saw   per s: records delivered per second", "dim")
    for result in results:
        _show_remarks(output, result)


def _cells(result: Result) -> tuple[str, ...]:
    if result.refusal:
        return ("-", result.slug, "refused", *("-" for _ in _HEADERS[3:]))
    rate = f"{result.delivered / result.seconds:,.0f}" if result.seconds else "-"
    numbers = (result.accepted, result.delivered, result.given_up, result.calls)
    sign = "✗" if result.complaints else "✓"
    return (sign, result.slug, result.way, result.object or "-", *(f"{number:,}" for number in numbers), rate)


def _more_cells(result: Result) -> dict[str, str]:
    numbers = {"rows": result.read, "CRM holds": result.held, "rejected": result.rejected}
    return {name: "-" if result.refusal else f"{number:,}" for name, number in numbers.items()}


def _show_remarks(output: Output, result: Result) -> None:
    lines: list[tuple[str, str]] = []
    if result.refusal:
        lines.append((f"refuses, as declared: {result.refusal}", "dim"))
        lines += [(f"way out: {result.way_out}", "dim")] if result.way_out else []
    if result.gate:
        lines.append(("its health-data gate was opened with the demo's papers first", "dim"))
    if result.fewer:
        lines.append((f"only {result.read:,} rows{result.fewer}", "dim"))
    if result.unmapped:
        names = ", ".join(result.unmapped)
        lines.append((f"has no field for {names}: unmapped, so the import keeps them in a text", "dim"))
    if not (result.object or result.refusal or result.error):
        lines.append(("takes no leads and no customers: connected and tested, nothing imported", "dim"))
    lines += [(f"{count:,} x {reason}", "yellow") for count, reason in result.reasons[:5]]
    lines += [(complaint, "red") for complaint in result.complaints]
    if lines:
        output.line()
        output.line(result.slug, "bold")
    width = max(output.console().width, 40)
    for text, style in lines:
        for line in textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    "):
            output.line(line, style)


def show_next_steps(
    output: Output,
    *,
    url: str,
    page: str,
    tenant: str,
    token: str,
    key_path: str,
    log: str,
    command: str,
    consent: tuple[str, str, dict[str, str]] | None,
) -> None:
    """Addresses and lines to copy. The key is the demo's own and ends with it.

    ``consent`` is a tenant, a driver and its settings, to be connected once more in a person's own browser.
    """
    output.line()
    output.line("Running until Ctrl-C", "bold")
    output.facts(
        [
            ("API", f"{url}/api/openapi.json"),
            ("CRMs", f"{page}  (stand-ins: what they hold, live)"),
            ("log", log),
        ]
    )
    output.line()
    output.line("Write a lead into a CRM and wait for it:", "bold")
    output.line(f"KEY={token}")
    output.line(f"curl -s {url}/api/tenants/{tenant}/records/lead \\")
    output.line('  -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\')
    output.line('  -H "Idempotency-Key: try-1" -H "Prefer: wait=5" \\')
    output.line('  -d \'{"fields": {"full_name": "Mei Chen", "email": "mei@example.com"}}\'')
    output.line()
    output.line("Or in another terminal:", "bold")
    output.line(f"export CRMBRIDGE_URL={url}")
    output.line(f'export CRMBRIDGE_API_KEY="$(cat {key_path})"')
    output.line(f"{command} drivers")
    output.line(f"{command} writes list {tenant} --state dead_letter")
    output.line(f"{command} audit list {tenant}")
    if consent is not None:
        owner, driver, settings = consent
        output.line()
        output.line("Connect one once more, and consent in your own browser:", "bold")
        parts = [f"{command} connect {owner} {driver} --name mine"]
        parts += [f"  --set {name}={text}" for name, text in settings.items()]
        for part in parts[:-1]:
            output.line(f"{part} \\")
        output.line(parts[-1])
