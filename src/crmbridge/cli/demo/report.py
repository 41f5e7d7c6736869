"""What the demo found out, driver by driver, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crmbridge.cli.output import Output

__all__ = ["Result", "show_next_steps", "show_results"]


@dataclass(kw_only=True)
class Result:
    """One driver's import. ``held`` is what the emulator has in the end, ``good`` the rows that any CRM must take."""

    slug: str
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
        if self.delivered < self.good:
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


def show_results(output: Output, results: list[Result]) -> None:
    """One line per driver; then reasons, refusals and complaints."""
    rows = []
    for result in results:
        if result.refusal:
            rows.append((result.slug, *("-" for _ in range(7)), "refused"))
            continue
        verdict = "ok" if not result.complaints else "NOT AS IT SHOULD BE"
        rate = f"{result.delivered / result.seconds:,.0f}" if result.seconds else "-"
        numbers = (
            result.accepted,
            result.rejected,
            result.delivered,
            result.given_up,
            result.held,
            result.calls,
        )
        rows.append((result.slug, *(f"{number:,}" for number in numbers), rate, verdict))
    headers = (
        "driver",
        "accepted",
        "rejected",
        "delivered",
        "dead",
        "CRM holds",
        "CRM calls",
        "records/s",
        "",
    )
    output.table(headers, rows, right=headers[1:-1])
    for result in results:
        if result.refusal:
            output.line()
            output.line(f"{result.slug} refuses, as declared: {result.refusal}", "dim")
            if result.way_out:
                output.line(f"  way out: {result.way_out}", "dim")
        for count, reason in result.reasons[:5]:
            output.line(f"  {result.slug}: {count:,} x {reason}", "yellow")
        for complaint in result.complaints:
            output.line(f"  {result.slug}: {complaint}", "red")


def show_next_steps(
    output: Output, *, url: str, page: str, tenant: str, token: str, key_path: str, log: str, command: str
) -> None:
    """Addresses and lines to copy. The key is the demo's own and ends with it."""
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
    output.line(f"curl -s {url}/api/tenants/{tenant}/records/lead \\")
    output.line(f"  -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\")
    output.line("  -H 'Idempotency-Key: try-1' -H 'Prefer: wait=5' \\")
    output.line('  -d \'{"fields": {"first_name": "Mei", "last_name": "Chen", "email": "mei@example.com"}}\'')
    output.line()
    output.line("Or in another terminal:", "bold")
    output.line(f'export CRMBRIDGE_URL={url} CRMBRIDGE_API_KEY="$(cat {key_path})"')
    output.line(f"{command} drivers")
    output.line(f"{command} writes list {tenant} --state dead_letter")
    output.line(f"{command} audit list {tenant}")
