"""Connecting by consent: a link for a person with a browser, and the wait for what comes of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import typer

from crmbridge.cli.client import Client
from crmbridge.cli.output import Output, plain
from crmbridge.cli.problems import Problem, ServerRefusal, ServerUnreachable

__all__ = ["follow_flow", "show_link", "start_flow"]

_LINK_SECONDS = 600.0
_EVERY = 1.0
_GRACE = 30.0  # the code may be under way to the provider when the link expires


async def start_flow(
    client: Client, tenant: str, driver: str, settings: dict[str, str], connection: str
) -> dict[str, Any]:
    """A link to consent: ``url``, ``flow_id`` (the id of the credential to be), ``expires_at``."""
    body = {"settings": settings, "connection": connection}
    link: dict[str, Any] = await client.post("tenants", tenant, "oauth", driver, "start", body=body)
    return link


def show_link(output: Output, link: dict[str, Any], display_name: str) -> None:
    """The link, alone on its line. With ``--json`` on standard error: standard output is for the result."""
    if output.as_json:
        typer.echo(plain(link["url"]), err=True)
        return
    minutes = round(_seconds_left(link) / 60)
    output.line(
        f"Let a person who may grant access to {display_name} open this link, within {minutes} minutes:"
    )
    output.line()
    output.line(link["url"], "bold")
    output.line()


async def follow_flow(client: Client, tenant: str, link: dict[str, Any], output: Output) -> None:
    """Waits until the person has consented and the credential is there.

    Raises Problem: consent denied or failed (the server's error), the link expired. A server that is away for a while
    is waited for as long as the link is good.
    """
    flow_id = link["flow_id"]
    until = monotonic() + _seconds_left(link)
    try:
        with _countdown(output, until) as show:
            while True:
                flow = await _read(client, tenant, flow_id, until)
                if flow["state"] == "done":
                    return
                if flow["state"] == "failed":
                    error = flow.get("error") or {}
                    raise Problem(str(error.get("message", "Nothing came of the consent.")), body=error)
                if flow["state"] == "expired" or monotonic() > until + _GRACE:
                    raise Problem(
                        "Nobody consented while the link was good.",
                        code="link_expired",
                        hint="Run the same command again for a new link.",
                    )
                show(flow["state"])
                await asyncio.sleep(_EVERY)
    except asyncio.CancelledError:
        output.remark(
            "Stopped waiting; the link stays good. After consent: "
            f"crmbridge test {tenant} {flow_id}, then crmbridge activate {tenant} {flow_id}"
        )
        raise


async def _read(client: Client, tenant: str, flow_id: str, until: float) -> dict[str, Any]:
    try:
        flow: dict[str, Any] = await client.get("tenants", tenant, "oauth", "flows", flow_id)
    except (ServerUnreachable, ServerRefusal) as problem:
        is_passing = isinstance(problem, ServerUnreachable) or problem.status >= 500 or problem.status == 429
        if not is_passing or monotonic() > until:
            raise
        return {"state": "unreachable"}
    return flow


def _seconds_left(link: dict[str, Any]) -> float:
    """By our own clock when it is anywhere near the server's, else what a new link has."""
    try:
        expires = datetime.fromisoformat(str(link["expires_at"]))
        left = (expires - datetime.now(UTC)).total_seconds()
    except (KeyError, ValueError, TypeError):
        return _LINK_SECONDS
    return left if 0 < left <= _LINK_SECONDS * 1.1 else _LINK_SECONDS


_TOLD = {
    "waiting": "waiting for consent",
    "exchanging": "consent is given, connecting",
    "unreachable": "the server does not answer, trying again",
}


@contextmanager
def _countdown(output: Output, until: float) -> Iterator[Any]:
    """A spinner with the time left on a terminal; elsewhere one line per state."""
    if output.as_json or not sys.stderr.isatty():
        said: list[str] = []

        def say(state: str) -> None:
            if state not in said[-1:]:
                said.append(state)
                output.remark(_TOLD.get(state, plain(state)) + " …")

        yield say
        return
    with output.console(errors=True).status("") as status:

        def spin(state: str) -> None:
            left = max(0, round(until - monotonic()))
            status.update(
                f"{_TOLD.get(state, plain(state))}, {left // 60}:{left % 60:02d} left (Ctrl-C stops)"
            )

        spin("waiting")
        yield spin
