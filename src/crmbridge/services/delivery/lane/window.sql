-- The next due targets of a lane, at most $2, without those in hand. It is a transaction of its own, as save.sql:
-- $4 is the setting of its tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $4, true), '') <> '' as is_set
)
{rows}
  and (select is_set from tenants_set) and t.id <> all($3::uuid[])
order by t.priority, t.seq
limit $2
