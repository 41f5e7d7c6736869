"""Operators on a real PostgreSQL: sign-in, pauses, sessions, and what the audit log keeps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from argon2 import PasswordHasher

from crmbridge.core.errors import Conflict, NotFound, RateLimited, ValidationError
from crmbridge.db.pool import Database, connect
from crmbridge.db.roles import RoleDsns
from crmbridge.services.audit import AuditLog
from crmbridge.services.operators import Operators, Role, SignInRefused
from crmbridge.services.operators.rules import Throttle

pytestmark = pytest.mark.postgres

PASSWORD = "seven quiet herons wade"
QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def operators(database: Database, audit: AuditLog) -> Operators:
    return Operators(database, audit, hasher=QUICK, throttle=Throttle(burst=1000))


async def shift(dsns: RoleDsns, statement: str) -> None:
    """Move times in the tables, as if the clock had gone on."""
    conn = await connect(dsns.owner)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


async def actions(audit: AuditLog) -> list[str]:
    return [row.action for row in reversed(await audit.read(None))]


async def test_add_when_valid_then_signs_in_and_is_audited_by_id_only(
    operators: Operators, audit: AuditLog
) -> None:
    assert not await operators.are_there()
    operator, made = await operators.add(" Ann@Example.com ", "Ann  Lee", "admin", PASSWORD, "system")
    assert (operator.email, operator.name, operator.role, made) == (
        "ann@example.com",
        "Ann Lee",
        Role.ADMIN,
        "",
    )
    assert await operators.are_there()
    signed = await operators.sign_in("ANN@example.com", PASSWORD, request_id="r-1")
    assert signed.session.operator.id == operator.id
    held = await operators.session(signed.token)
    assert held is not None and held.operator.email == "ann@example.com"
    await operators.sign_out(held)
    assert await operators.session(signed.token) is None
    assert await actions(audit) == ["operator.created", "operator.signed_in", "operator.signed_out"]
    told = str(await audit.read(None))
    assert "ann" not in told.lower().replace("channel", "") and str(operator.id) in told


async def test_add_when_without_a_password_then_one_is_made_that_works(operators: Operators) -> None:
    _, made = await operators.add("ann@example.com", "Ann", "auditor", None, "system")
    assert (await operators.sign_in("ann@example.com", made)).session.operator.role is Role.AUDITOR


async def test_add_when_fields_are_wrong_then_each_is_named(operators: Operators) -> None:
    with pytest.raises(ValidationError) as refused:
        await operators.add("ann", " ", "owner", "short", "system")
    assert {problem.field for problem in refused.value.fields} == {"email", "name", "role", "password"}


async def test_add_when_the_address_is_taken_then_conflict(operators: Operators) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    with pytest.raises(Conflict):
        await operators.add("ANN@example.com", "Other", "admin", PASSWORD, "system")


async def test_rows_when_read_raw_then_neither_password_nor_token(
    operators: Operators, database_dsns: RoleDsns
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    signed = await operators.sign_in("ann@example.com", PASSWORD, user_agent="Firefox\n" + "x" * 300)
    conn = await connect(database_dsns.owner)
    try:
        raw = str(await conn.fetch("select * from operators")) + str(
            await conn.fetch("select * from operator_sessions")
        )
        agent = await conn.fetchval("select user_agent from operator_sessions")
    finally:
        await conn.close()
    assert PASSWORD not in raw and signed.token not in raw and "$argon2id$" in raw
    assert agent.startswith("Firefoxx") and len(agent) == 100


@pytest.mark.parametrize("email", ["ann@example.com", "nobody@example.com", "no address", ""])
async def test_sign_in_when_refused_then_the_answer_is_the_same(operators: Operators, email: str) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    with pytest.raises(SignInRefused) as refused:
        await operators.sign_in(email, "not the password at all")
    assert refused.value.message == "The e-mail address or the password is not right."


async def test_sign_in_when_nobody_has_the_name_then_it_takes_as_long(
    database: Database, audit: AuditLog
) -> None:
    slow = Operators(
        database,
        audit,
        hasher=PasswordHasher(time_cost=4, memory_cost=32 * 1024),
        throttle=Throttle(burst=99),
    )
    await slow.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    spent: dict[str, list[float]] = {"ann@example.com": [], "nobody@example.com": []}
    for _ in range(4):
        for email, times in spent.items():
            started = time.perf_counter()
            with pytest.raises(SignInRefused):
                await slow.sign_in(email, "not the password at all")
            times.append(time.perf_counter() - started)
    known, unknown = (min(times) for times in spent.values())
    assert unknown > 0.5 * known, (known, unknown)


async def test_sign_in_when_it_failed_five_times_then_even_the_right_password_waits(
    operators: Operators, audit: AuditLog, database_dsns: RoleDsns
) -> None:
    operator, _ = await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await operators.sign_in("ann@example.com", "wrong wrong wrong")
    with pytest.raises(SignInRefused):
        await operators.sign_in("ann@example.com", PASSWORD)
    held = await operators.get(operator.id)
    assert held.locked_until is not None
    assert (await actions(audit)).count("operator.locked") == 1
    (locked,) = await audit.read(None, action="operator.locked")
    assert locked.details == {"seconds": 30, "failures": 5} and locked.subject_id == str(operator.id)
    back = "update operators set locked_until = locked_until - interval '31 seconds'"
    await shift(database_dsns, back)
    with pytest.raises(SignInRefused):
        await operators.sign_in("ann@example.com", "wrong wrong wrong")
    (longer, _) = await audit.read(None, action="operator.locked")
    assert longer.details["seconds"] == 60
    await shift(database_dsns, back)
    with pytest.raises(SignInRefused):
        await operators.sign_in("ann@example.com", PASSWORD)
    await shift(database_dsns, back)
    await operators.sign_in("ann@example.com", PASSWORD)
    assert (await operators.get(operator.id)).locked_until is None


async def test_sign_in_when_many_try_at_once_then_five_passwords_are_looked_at(
    operators: Operators, audit: AuditLog
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    tries = [operators.sign_in("ann@example.com", f"guess number {number}") for number in range(40)]
    tries.append(operators.sign_in("ann@example.com", PASSWORD))
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(answer, SignInRefused) for answer in answers)
    seen = [
        row for row in await audit.read(None, action="operator.sign_in_failed") if "failures" in row.details
    ]
    assert len(seen) == 5


async def test_sign_in_when_one_address_tries_many_names_then_it_is_held_up(
    database: Database, audit: AuditLog
) -> None:
    operators = Operators(database, audit, hasher=QUICK, throttle=Throttle(burst=3, seconds=60))
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    for number in range(3):
        with pytest.raises(SignInRefused):
            await operators.sign_in(f"n{number}@example.com", PASSWORD, address="192.0.2.1")
    with pytest.raises(RateLimited) as refused:
        await operators.sign_in("ann@example.com", PASSWORD, address="192.0.2.1")
    assert 0 < (refused.value.retry_after_seconds or 0) <= 60
    await operators.sign_in("ann@example.com", PASSWORD, address="192.0.2.2")


@pytest.mark.parametrize(
    ("moved", "holds"),
    [
        ("seen_at = now() - interval '59 minutes'", True),
        ("seen_at = now() - interval '61 minutes'", False),
        ("expires_at = now() - interval '1 second'", False),
    ],
)
async def test_session_when_idle_or_old_then_it_ends(
    operators: Operators, database_dsns: RoleDsns, moved: str, holds: bool
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    signed = await operators.sign_in("ann@example.com", PASSWORD)
    lasts = signed.session.expires_at - signed.session.created_at
    assert lasts.total_seconds() == 12 * 3600
    await shift(database_dsns, f"update operator_sessions set {moved}")
    assert (await operators.session(signed.token) is not None) is holds
    if holds:
        # Seen again: the idle window begins anew, the absolute one does not.
        await shift(database_dsns, "update operator_sessions set seen_at = seen_at - interval '59 minutes'")
        assert await operators.session(signed.token) is not None


async def test_sign_in_when_sessions_have_ended_then_their_rows_go(
    operators: Operators, database_dsns: RoleDsns, database: Database
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    await operators.sign_in("ann@example.com", PASSWORD)
    await shift(database_dsns, "update operator_sessions set seen_at = now() - interval '2 hours'")
    await operators.sign_in("ann@example.com", PASSWORD)
    async with database.system() as conn:
        assert await conn.fetchval("select count(*) from operator_sessions") == 1


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "é" * 43, "x" * 10_000])
async def test_session_when_the_cookie_is_made_up_then_none(operators: Operators, token: str) -> None:
    assert await operators.session(token) is None


async def test_disable_when_signed_in_then_sessions_end_and_no_sign_in_until_enabled(
    operators: Operators,
) -> None:
    await operators.add("root@example.com", "Root", "admin", PASSWORD, "system")
    ann, _ = await operators.add("ann@example.com", "Ann", "operator", PASSWORD, "system")
    signed = await operators.sign_in("ann@example.com", PASSWORD)
    assert (await operators.disable(ann.id, "system")).disabled_at
    assert await operators.session(signed.token) is None
    with pytest.raises(SignInRefused):
        await operators.sign_in("ann@example.com", PASSWORD)
    await operators.enable(ann.id, "system")
    await operators.sign_in("ann@example.com", PASSWORD)
    assert await operators.session(signed.token) is None


async def test_last_admin_when_disabled_or_demoted_then_conflict(operators: Operators) -> None:
    one, _ = await operators.add("one@example.com", "One", "admin", PASSWORD, "system")
    for step in (operators.disable(one.id, "x"), operators.set_role(one.id, "auditor", "x")):
        with pytest.raises(Conflict):
            await step
    two, _ = await operators.add("two@example.com", "Two", "admin", PASSWORD, "system")
    answers = await asyncio.gather(
        operators.disable(one.id, "x"), operators.set_role(two.id, "operator", "x"), return_exceptions=True
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 1


async def test_role_when_changed_then_the_session_has_it_at_once(
    operators: Operators, audit: AuditLog
) -> None:
    await operators.add("root@example.com", "Root", "admin", PASSWORD, "system")
    ann, _ = await operators.add("ann@example.com", "Ann", "auditor", PASSWORD, "system")
    signed = await operators.sign_in("ann@example.com", PASSWORD)
    await operators.set_role(ann.id, "operator", "system")
    held = await operators.session(signed.token)
    assert held is not None and held.operator.role is Role.OPERATOR
    (row,) = await audit.read(None, action="operator.role_changed")
    assert row.details == {"from": "auditor", "to": "operator"}


async def test_password_when_changed_by_oneself_then_other_sessions_end(operators: Operators) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    here, there = [await operators.sign_in("ann@example.com", PASSWORD) for _ in range(2)]
    for current, new, field in (
        ("not mine at all", "another fine password", "current"),
        (PASSWORD, "short", "new"),
        (PASSWORD, PASSWORD, "new"),
    ):
        with pytest.raises(ValidationError) as refused:
            await operators.change_password(here.session, current, new)
        assert refused.value.fields[0].field == field
    await operators.change_password(here.session, PASSWORD, "another fine password")
    assert await operators.session(here.token) is not None
    assert await operators.session(there.token) is None
    with pytest.raises(SignInRefused):
        await operators.sign_in("ann@example.com", PASSWORD)
    await operators.sign_in("ann@example.com", "another fine password")


async def test_password_when_set_by_somebody_else_then_all_sessions_and_the_pause_end(
    operators: Operators,
) -> None:
    ann, _ = await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    signed = await operators.sign_in("ann@example.com", PASSWORD)
    for _ in range(5):
        with pytest.raises(SignInRefused):
            await operators.sign_in("ann@example.com", "wrong wrong wrong")
    _, made = await operators.set_password(ann.id, None, "system")
    assert await operators.session(signed.token) is None
    await operators.sign_in("ann@example.com", made)


async def test_hash_when_made_with_weaker_parameters_then_renewed_at_sign_in(
    operators: Operators, database: Database, audit: AuditLog
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    stronger = Operators(database, audit, hasher=PasswordHasher(time_cost=2, memory_cost=2048, parallelism=1))
    await stronger.sign_in("ann@example.com", PASSWORD)
    async with database.system() as conn:
        assert "m=2048,t=2" in await conn.fetchval("select password_hash from operators")
    await stronger.sign_in("ann@example.com", PASSWORD)


async def test_get_when_unknown_then_not_found(operators: Operators) -> None:
    for wanted in ("nobody@example.com", "", "no address"):
        with pytest.raises(NotFound):
            await operators.get(wanted)


async def test_tables_when_read_by_the_app_role_then_refused(
    database: Database, operators: Operators
) -> None:
    await operators.add("ann@example.com", "Ann", "admin", PASSWORD, "system")
    conn: Any
    async with database.app.acquire() as conn:
        for table in ("operators", "operator_sessions"):
            with pytest.raises(Exception, match="permission denied"):
                await conn.fetch(f"select * from {table}")
