-- Ground: retention classes, tenant isolation, append-only. Later migrations call these three functions.
-- Runs as crmbridge_owner in schema crmbridge; the roles crmbridge_app and crmbridge_scheduler exist already.

-- Every column carries its retention class as a comment. A column added later without one fails a test.
-- Classes: a in-flight, b telemetry without content, c customer content, d evidence, config until offboarding.
create function declare_retention(for_table regclass, class text, exceptions jsonb default '{}') returns void
language plpgsql as $$
declare
    col record;
    declared text;
begin
    for col in select attname from pg_attribute
               where attrelid = for_table and attnum > 0 and not attisdropped
    loop
        declared := coalesce(exceptions ->> col.attname, class);
        if declared not in ('a', 'b', 'c', 'd', 'config') then
            raise exception 'unknown retention class % for %.%', declared, for_table, col.attname;
        end if;
        execute format('comment on column %s.%I is %L', for_table, col.attname, 'retention: ' || declared);
    end loop;
end $$;

-- Forced row-level security. The scalar subselect is evaluated once a statement, not once a row; nullif
-- covers the empty text that a finished transaction leaves behind; nothing set means no rows.
create function isolate_by_tenant(for_table regclass) returns void
language plpgsql as $$
begin
    execute format('alter table %s enable row level security', for_table);
    execute format('alter table %s force row level security', for_table);
    execute format(
        'create policy tenant_only on %s for all to crmbridge_app'
        ' using (tenant_id = any((select nullif(current_setting(''crmbridge.tenants'', true), '''')::uuid[])::uuid[]))'
        ' with check (tenant_id = any((select nullif(current_setting(''crmbridge.tenants'', true), '''')::uuid[])::uuid[]))',
        for_table);
    execute format('grant select, insert, update, delete on %s to crmbridge_app', for_table);
end $$;

-- Opens a content-free table to the scheduler, across tenants.
create function open_to_scheduler(for_table regclass, privileges text) returns void
language plpgsql as $$
begin
    execute format('create policy scheduler_all on %s for all to crmbridge_scheduler using (true) with check (true)',
                   for_table);
    execute format('grant %s on %s to crmbridge_scheduler', privileges, for_table);
end $$;

create function refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception '% is append-only: % refused', tg_table_name, tg_op using errcode = 'restrict_violation';
end $$;
