-- Evidence: the audit log, append-only and partitioned by month, and incidents.

-- tenant_id is null for system rows (sign-in, keys). details never hold personal data or secrets.
-- The hash chain lives in a table of its own, so that a row is never touched after its insert.
create table audit_log (
    id uuid not null,
    tenant_id uuid,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    action text not null,
    connection_id uuid,
    subject_id text not null default '',
    request_id text not null default '',
    details jsonb not null default '{}',
    primary key (id, at)
) partition by range (at);
create index audit_log_by_tenant on audit_log (tenant_id, at desc);

create function ensure_audit_partitions(months_ahead integer default 2) returns void
language plpgsql security definer set search_path = crmbridge, pg_temp as $$
declare
    month date;
    name text;
begin
    for step in 0..months_ahead loop
        month := (date_trunc('month', now() at time zone 'UTC') + make_interval(months => step))::date;
        name := 'audit_log_' || to_char(month, 'YYYY_MM');
        if to_regclass('crmbridge.' || name) is null then
            execute format('create table %I partition of audit_log for values from (%L) to (%L)', name,
                           month::text || ' 00:00:00+00',
                           (month + interval '1 month')::date::text || ' 00:00:00+00');
            execute format('alter table %I enable row level security', name);
            execute format('alter table %I force row level security', name);
            -- Statement triggers are not inherited by partitions.
            execute format('create trigger audit_log_no_truncate before truncate on %I'
                           ' for each statement execute function refuse_change()', name);
            perform declare_retention(format('crmbridge.%I', name)::regclass, 'd');
        end if;
    end loop;
end $$;
revoke all on function ensure_audit_partitions(integer) from public;
grant execute on function ensure_audit_partitions(integer) to crmbridge_scheduler;

create table audit_log_default partition of audit_log default;
alter table audit_log_default enable row level security;
alter table audit_log_default force row level security;
create trigger audit_log_no_truncate before truncate on audit_log_default
    for each statement execute function refuse_change();

select isolate_by_tenant('audit_log');
create policy system_rows on audit_log for all to crmbridge_scheduler
    using (tenant_id is null) with check (tenant_id is null);
revoke update, delete on audit_log from crmbridge_app;
grant select, insert on audit_log to crmbridge_scheduler;
create trigger audit_log_append_only before update or delete on audit_log
    for each row execute function refuse_change();
create trigger audit_log_no_truncate before truncate on audit_log
    for each statement execute function refuse_change();
select declare_retention('audit_log', 'd');
select declare_retention('audit_log_default', 'd');
select ensure_audit_partitions();

create table incidents (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    kind text not null check (kind in
        ('crm_sync_failure', 'reauthorization_needed', 'mapping_drift', 'manual_erasure', 'write_parked')),
    state text not null default 'open' check (state in ('open', 'acknowledged', 'resolved')),
    connection_id uuid,
    dedupe_key text not null,
    title text not null,
    details jsonb not null default '{}',
    times_seen integer not null default 1,
    opened_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    acknowledged_by text,
    resolved_at timestamptz,
    resolved_by text
);
create unique index incidents_one_open on incidents (tenant_id, kind, dedupe_key) where state <> 'resolved';
select isolate_by_tenant('incidents');
select open_to_scheduler('incidents', 'select');
select declare_retention('incidents', 'b');
