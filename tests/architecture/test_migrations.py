"""Migrations let the processes of the version before go on. The rules: docs/decisions/0013-rolling-upgrades.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.architecture.migration_rules import BREAKS, LOCKS, findings_in

from crmbridge.db.schema import MIGRATIONS, migration_files

ROOT = Path(__file__).parents[2]

# Number of the newest migration that a release has brought to anybody; 0: there was no release yet.
# Whoever makes a release sets it to the highest number in src/crmbridge/db/migrations, in the release's own commit
# (CONTRIBUTING.md, "A release"). From then on
# - no file up to that number is changed or renamed: databases out there have run it, and a new file corrects it;
# - what those files made may be taken away, by a file whose name ends in _from_NNNN with NNNN up to that number.
RELEASED = 0

# What stands in the files of before the first release, rule by rule, and why nobody is hurt by it. There is no process
# of an earlier release that could run meanwhile; an installation that is migrated through them is new or empty.
# The first release closes this list: a later file has no exception here.
BEFORE_RELEASE = {
    (
        "0008_schedule_refresh",
        "index without concurrently",
    ): "one row per credential: some thousands, milliseconds",
}


@pytest.mark.parametrize("path", migration_files(MIGRATIONS), ids=lambda path: path.stem)
def test_migration_when_older_processes_still_run_then_it_does_not_break_or_block_them(path: Path) -> None:
    oldest = re.search(r"_from_(\d{4})$", path.stem)
    found = [
        finding
        for finding in findings_in(path.read_text(encoding="utf-8"))
        if (path.stem, finding.rule) not in BEFORE_RELEASE and not (oldest and finding.kind == BREAKS)
    ]
    assert not found, f"{path.name}:\n" + "\n".join(map(str, found))
    if oldest:
        # Expanded in a release that is out, contracted in a later one.
        assert int(oldest[1]) <= RELEASED, f"{path.name}: {oldest[1]} is in no release yet"


def test_released_when_the_changelog_names_a_release_then_it_is_the_number_of_a_migration() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    has_release = re.search(r"^## \[?v?\d", changelog, re.MULTILINE) is not None
    numbers = {int(path.stem[:4]) for path in migration_files(MIGRATIONS)}
    assert has_release == (RELEASED > 0), "raise RELEASED with the release, see CONTRIBUTING.md"
    assert RELEASED in {0, *numbers}
    assert {int(stem[:4]) for stem, _ in BEFORE_RELEASE} <= numbers


def test_release_steps_when_read_then_they_say_what_to_raise() -> None:
    steps = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A release")[2]
    assert "`RELEASED` in `tests/architecture/test_migrations.py`" in steps


def test_allow_list_when_read_then_every_entry_is_needed() -> None:
    found = {
        (path.stem, finding.rule)
        for path in migration_files(MIGRATIONS)
        for finding in findings_in(path.read_text(encoding="utf-8"))
    }
    assert set(BEFORE_RELEASE) <= found, set(BEFORE_RELEASE) - found


@pytest.mark.parametrize(
    ("kind", "rule", "text"),
    [
        (BREAKS, "drop", "drop table lanes;"),
        (BREAKS, "drop", "drop function if exists refuse_change();"),
        (BREAKS, "rename", "alter table lanes rename column owner to holder;"),
        (BREAKS, "rename", "alter table lanes\n  rename to tracks;"),
        (BREAKS, "drop column", "alter table lanes drop column owner;"),
        (BREAKS, "drop column", "alter table lanes add column a int, drop if exists owner cascade;"),
        (BREAKS, "set not null", "alter table lanes alter owner set not null;"),
        (BREAKS, "drop default", "alter table lanes alter column owner drop default;"),
        (BREAKS, "change type", "alter table lanes alter column fence type int;"),
        (BREAKS, "change type", "alter table lanes alter fence set data type int;"),
        (BREAKS, "column without default", "alter table lanes add column note text not null;"),
        (BREAKS, "revoke", "revoke update on lanes from crmbridge_scheduler;"),
        (BREAKS, "row security", "alter table lanes enable row level security;"),
        (BREAKS, "row security", "select isolate_by_tenant('lanes');"),
        (BREAKS, "trigger", "create trigger t before update on lanes for each row execute function f();"),
        (BREAKS, "replace function", "create or replace function refuse_change() returns trigger as $$ $$;"),
        (
            BREAKS,
            "unique index",
            "-- transaction: false\ncreate unique index concurrently a on lanes (owner);",
        ),
        (BREAKS, "drop column", "do $$ begin alter table lanes drop column owner; end $$;"),
        (LOCKS, "execute", "do $body$ begin execute format('drop table %I', 'lanes'); end $body$;"),
        (LOCKS, "index without concurrently", "create index a on writes (id);"),
        (LOCKS, "index without concurrently", "create index concurrently a on writes (id);"),
        (LOCKS, "index not repeatable", "-- transaction: false\ncreate index concurrently a on writes (id);"),
        (LOCKS, "no transaction", "-- transaction: false\nalter table lanes add column a int;"),
        (LOCKS, "drop index", "drop index writes_by_tenant;"),
        (LOCKS, "unvalidated check", "alter table writes add constraint c check (priority > 0);"),
        (LOCKS, "unvalidated check", "alter table writes add column n int check (n > 0);"),
        (LOCKS, "unvalidated key", "alter table writes add foreign key (id) references tenants (id);"),
        (LOCKS, "unique without index", "alter table writes add constraint u unique (id);"),
        (LOCKS, "unique without index", "alter table writes add column n int unique;"),
        (
            LOCKS,
            "default per row",
            "alter table writes add column n uuid not null default gen_random_uuid();",
        ),
        (LOCKS, "default per row", "alter table writes add column n bigint generated always as identity;"),
        (LOCKS, "whole table", "update writes set priority = 1 where priority = 0;"),
        (LOCKS, "whole table", "delete from crmbridge.attempts;"),
        (LOCKS, "lock table", "lock table writes;"),
        (LOCKS, "rewrite table", "truncate writes;"),
        (LOCKS, "rewrite table", "alter table writes set unlogged;"),
    ],
)
def test_rules_when_a_statement_breaks_or_blocks_then_found(kind: str, rule: str, text: str) -> None:
    assert (kind, rule) in {(finding.kind, finding.rule) for finding in findings_in(text)}


@pytest.mark.parametrize(
    "text",
    [
        "alter table writes add column note text;",
        "alter table writes add column note text not null default '', add column n int default 0;",
        "alter table writes add column at timestamptz not null default now();",
        "alter table writes add constraint c check (priority > 0) not valid;",
        "alter table writes add constraint u unique using index writes_u;",
        "alter table writes alter priority drop not null, alter priority set default 3;",
        "alter table writes drop constraint c;",
        "create table a (id uuid primary key); create unique index b on a (id); select isolate_by_tenant('a');"
        "revoke all on a from public; update a set id = id; alter table a enable row level security;",
        "-- transaction: false\ndrop index concurrently if exists a;\ncreate index concurrently a on writes (id);",
        "-- drop table writes;\ninsert into words values ('drop table writes; delete from writes');",
        "create function f() returns void language plpgsql as $$ begin delete from writes; end $$;",
        "create policy p on writes for select to crmbridge_scheduler using (true); grant select on writes to x;",
    ],
)
def test_rules_when_a_statement_only_adds_then_nothing_found(text: str) -> None:
    assert findings_in(text) == []
