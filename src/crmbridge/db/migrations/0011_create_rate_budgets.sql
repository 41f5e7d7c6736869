-- What was spent of a provider's rate budgets, one row per connection and kind, shared by all processes. Rows come with
-- the first call. grains and spent belong together: so many calls are charged to that hundredth of the period, counted
-- from 1970; they are free again one period later. foreign_calls: what the provider counts beside ours, until when.
-- held_until: the provider asked for a pause. For kind 'concurrent': the processes that have more than one call in
-- flight, and until when each counts as there.
-- Written without a flush at commit: a crash of the server may forget the last half second, and no more.
create table rate_budgets (
    connection_id uuid not null references connections (id),
    tenant_id uuid not null references tenants (id),
    kind text not null check (kind in ('burst', 'search', 'daily', 'concurrent')),
    told_limit integer not null default 0,
    per_seconds double precision not null default 0,
    grains bigint[] not null default '{}',
    spent integer[] not null default '{}',
    paced_until double precision not null default 0,
    held_until timestamptz,
    foreign_calls integer not null default 0,
    foreign_until double precision not null default 0,
    holders uuid[] not null default '{}',
    holders_until double precision[] not null default '{}',
    primary key (connection_id, kind)
) with (fillfactor = 50);
select isolate_by_tenant('rate_budgets');
select declare_retention('rate_budgets', 'a');
