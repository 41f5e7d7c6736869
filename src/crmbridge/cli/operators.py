"""``crmbridge operators``: the people who sign in to the console. Works beside a running server."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crmbridge.cli.options import AsJson, read_text
from crmbridge.cli.output import Output, guarded, moment
from crmbridge.cli.problems import UsageProblem
from crmbridge.cli.processes import Processes
from crmbridge.cli.serving import read_settings

if TYPE_CHECKING:
    from crmbridge.services.operators.model import Operator
    from crmbridge.services.operators.service import Operators

__all__ = ["PASSWORD_VARIABLE", "build_operators"]

PASSWORD_VARIABLE = "CRMBRIDGE_OPERATOR_PASSWORD"  # noqa: S105 - a name
_ACTOR = "system"

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="What the operator signs in with.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and show it once.")]
RoleName = Annotated[
    str,
    typer.Option(
        "--role",
        help="admin; operator: all but operators and API keys; auditor: reads only.",
    ),
]


def build_operators(processes: Processes) -> typer.Typer:
    """The command group; every command opens the services."""
    app = typer.Typer(no_args_is_help=True, help="People who sign in to the console.")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Operators]:
        async with processes.services(read_settings()) as services:
            yield services.operators

    @app.command()
    @guarded
    async def add(
        email: Email,
        name: Annotated[
            str, typer.Option("--name", help="Full name; default: the first part of EMAIL.")
        ] = "",
        role: RoleName = "operator",
        password_stdin: FromStdin = False,
        generate: Generate = False,
        as_json: AsJson = False,
    ) -> None:
        """Add an operator. The password comes from a prompt, CRMBRIDGE_OPERATOR_PASSWORD or --password-stdin."""
        password = _password(password_stdin, generate, as_json)
        async with opened() as operators:
            operator, made = await operators.add(
                email, name or email.partition("@")[0], role, password, _ACTOR
            )
        output = Output(as_json)
        _show(output, operator, made)
        output.remark("Sign in at /admin of your server.")

    @app.command("list")
    @guarded
    async def list_operators(as_json: AsJson = False) -> None:
        """All operators, disabled ones included."""
        output = Output(as_json)
        async with opened() as operators:
            found = await operators.list()
        if as_json:
            output.tree({"operators": [_tree(each) for each in found]})
            return
        rows = [
            (
                each.email,
                each.name,
                each.role.value,
                "disabled" if each.disabled_at else "active",
                moment(each.signed_in_at or ""),
            )
            for each in found
        ]
        output.table(
            ("e-mail", "name", "role", "state", "last sign-in"),
            rows,
            empty="Nobody can sign in yet: crmbridge operators add EMAIL --role admin",
        )

    @app.command()
    @guarded
    async def disable(email: Email, as_json: AsJson = False) -> None:
        """End all sessions and refuse further sign-ins. `enable` undoes it."""
        async with opened() as operators:
            found = await operators.get(email)
            _show(Output(as_json), await operators.disable(found.id, _ACTOR))

    @app.command()
    @guarded
    async def enable(email: Email, as_json: AsJson = False) -> None:
        """Let a disabled operator sign in again."""
        async with opened() as operators:
            found = await operators.get(email)
            _show(Output(as_json), await operators.enable(found.id, _ACTOR))

    @app.command()
    @guarded
    async def role(
        email: Email,
        new_role: Annotated[str, typer.Argument(metavar="ROLE", help="admin, operator or auditor.")],
        as_json: AsJson = False,
    ) -> None:
        """Give another role; it counts at once."""
        async with opened() as operators:
            found = await operators.get(email)
            _show(Output(as_json), await operators.set_role(found.id, new_role, _ACTOR))

    @app.command()
    @guarded
    async def password(
        email: Email,
        password_stdin: FromStdin = False,
        generate: Generate = False,
        as_json: AsJson = False,
    ) -> None:
        """Set a new password; ends all sessions and any pause after failed sign-ins."""
        new = _password(password_stdin, generate, as_json)
        async with opened() as operators:
            found = await operators.get(email)
            operator, made = await operators.set_password(found.id, new, _ACTOR)
        _show(Output(as_json), operator, made)

    return app


def _password(from_stdin: bool, generate: bool, as_json: bool) -> str | None:
    """The password, or None when one is to be made. Never an argument: those are seen by every user of a machine."""
    if from_stdin and generate:
        raise UsageProblem("Give --password-stdin or --generate, not both.")
    if generate:
        return None
    if from_stdin:
        return read_text("-")
    if os.environ.get(PASSWORD_VARIABLE):
        return os.environ[PASSWORD_VARIABLE]
    if as_json or not sys.stdin.isatty():
        raise UsageProblem(
            "There is no password.",
            hint=f"Use --password-stdin, --generate, or set {PASSWORD_VARIABLE}.",
        )
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def _tree(operator: Operator) -> dict[str, Any]:
    import msgspec

    tree: dict[str, Any] = msgspec.to_builtins(operator)
    return tree


def _show(output: Output, operator: Operator, made: str = "") -> None:
    if output.as_json:
        output.tree({**_tree(operator), **({"password": made} if made else {})})
        return
    state = ", disabled" if operator.disabled_at else ""
    output.line(f"{operator.email}: {operator.role.value}{state}")
    if made:
        output.line(f"Password: {made}")
        output.remark("Shown once.")
