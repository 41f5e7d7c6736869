-- Look unknown targets up so many seconds ($4) later. It is a transaction of its own, as save.sql: $5 is the setting of its
-- tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $5, true), '') <> '' as is_set
)
update write_targets t set due_at = clock_timestamp() + $4::float8 * interval '1 second'
where (select is_set from tenants_set) and t.connection_id = $1 and t.id = any($3::uuid[]) and t.state = 'unknown'
  and exists (select from lanes l where (select is_set from tenants_set) and l.connection_id = $1 and l.fence = $2)
