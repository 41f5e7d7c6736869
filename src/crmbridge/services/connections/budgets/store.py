"""SQL of rate_budgets."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from crmbridge.services.connections.budgets.window import Window

# The budgets of a connection, locked. The same statement spares the commit its flush: a budget that a crash set back by
# half a second costs a refused call at worst.
_LOCK_BUDGETS = """
select kind, told_limit, per_seconds, grains, spent, paced_until, foreign_calls, foreign_until, holders, holders_until,
    extract(epoch from held_until)::float8 as held_until, extract(epoch from clock_timestamp())::float8 as moment,
    set_config('synchronous_commit', 'off', true)
from rate_budgets where connection_id = $1 and kind = any($2) order by kind for update
"""

_INSERT_BUDGETS = """
insert into rate_budgets (connection_id, tenant_id, kind) select $1, $2, unnest($3::text[]) on conflict do nothing
"""

_SAVE_BUDGET = """
update rate_budgets set told_limit = $3, per_seconds = $4, grains = $5, spent = $6, paced_until = $7,
    held_until = to_timestamp($8), foreign_calls = $9, foreign_until = $10 where connection_id = $1 and kind = $2
"""

_SAVE_HOLDERS = """
update rate_budgets set holders = $2, holders_until = $3 where connection_id = $1 and kind = 'concurrent'
"""

_READ_BUDGETS = """
select b.connection_id, b.kind, b.told_limit, b.per_seconds, b.grains, b.spent, b.paced_until, b.foreign_calls,
    b.foreign_until,
    extract(epoch from b.held_until)::float8 as held_until, extract(epoch from clock_timestamp())::float8 as moment
from (select 1) as one left join rate_budgets b on b.connection_id = any($1)
"""

# After the database's clock was set back by $2 seconds. What was charged to moments that are yet to come is charged to
# now, which gives it free no earlier than the provider does. A pause or a call in flight that lasts for longer than $1
# seconds lasts for as long as it did.
_MEND = """
update rate_budgets b set
    (grains, spent) = (
        select coalesce(array_agg(m.grain), '{}'), coalesce(array_agg(m.spent), '{}')
        from (
            select least(g.grain, ceil(t.moment * 100 / b.per_seconds)::bigint) as grain, sum(g.spent)::integer as spent
            from unnest(b.grains, b.spent) as g (grain, spent) group by 1) m),
    paced_until = least(b.paced_until, t.moment),
    foreign_until = least(b.foreign_until, t.moment + b.per_seconds, t.moment + $1),
    held_until = case when b.held_until > to_timestamp(t.moment + $1)
                      then greatest(to_timestamp(t.moment), b.held_until - $2::float8 * interval '1 second')
                      else b.held_until end,
    holders_until = (
        select coalesce(array_agg(case when h.until > t.moment + $1 then greatest(t.moment, h.until - $2::float8)
                                       else h.until end order by h.place), '{}')
        from unnest(b.holders_until) with ordinality as h (until, place))
from (select extract(epoch from clock_timestamp())::float8 as moment) t
where b.connection_id in (select connection_id from rate_budgets order by connection_id, kind for update)
"""


def _window(row: Any) -> Window | None:
    if not row["per_seconds"]:
        return None
    return Window(
        limit=1,
        per_seconds=row["per_seconds"],
        told_limit=row["told_limit"],
        spent=dict(zip(row["grains"], row["spent"], strict=True)),
        paced_until=row["paced_until"],
        held_until=row["held_until"] or 0.0,
        foreign=row["foreign_calls"],
        foreign_until=row["foreign_until"],
    )


async def lock_budgets(
    conn: Any, tenant_id: UUID, connection_id: UUID, kinds: list[str]
) -> tuple[float, dict[str, tuple[Window | None, dict[UUID, float]]]]:
    """The database's time, and of each kind its window (None: new) and who has calls in flight; locked."""
    rows = await conn.fetch(_LOCK_BUDGETS, connection_id, kinds)
    if len(rows) < len(kinds):
        await conn.execute(_INSERT_BUDGETS, connection_id, tenant_id, kinds)
        rows = await conn.fetch(_LOCK_BUDGETS, connection_id, kinds)
    return max(row["moment"] for row in rows), {
        row["kind"]: (_window(row), dict(zip(row["holders"], row["holders_until"], strict=True)))
        for row in rows
    }


async def save_budgets(
    conn: Any, connection_id: UUID, windows: dict[str, Window], holders: dict[UUID, float] | None
) -> None:
    """Keep the windows of the locked rows; ``holders`` of the calls in flight where given."""
    values = [
        (
            connection_id,
            kind,
            window.told_limit,
            window.per_seconds,
            list(window.spent),
            list(window.spent.values()),
            window.paced_until,
            window.held_until or None,
            window.foreign,
            window.foreign_until,
        )
        for kind, window in windows.items()
    ]
    if len(values) == 1:
        await conn.execute(_SAVE_BUDGET, *values[0])
    elif values:
        await conn.executemany(_SAVE_BUDGET, values)
    if holders is not None:
        await conn.execute(_SAVE_HOLDERS, connection_id, list(holders), list(holders.values()))


async def mend_times(conn: Any, most_seconds: float, seconds: float) -> None:
    """After the database's clock was set back by so many seconds: what is farther than ``most_seconds`` is as near as
    it was.
    """
    await conn.execute(_MEND, float(most_seconds), float(seconds))


async def read_budgets(
    conn: Any, connection_ids: list[UUID]
) -> tuple[float, dict[tuple[UUID, str], Window | None]]:
    """The database's time, and the windows of these connections as they stand."""
    rows = await conn.fetch(_READ_BUDGETS, connection_ids)
    return rows[0]["moment"], {
        (row["connection_id"], row["kind"]): _window(row) for row in rows if row["kind"]
    }
