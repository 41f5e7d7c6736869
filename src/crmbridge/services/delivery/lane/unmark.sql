-- What was marked and not sent after all is due as before. It is a transaction of its own, as save.sql: $4 is the setting
-- of its tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $4, true), '') <> '' as is_set
)
update write_targets t set state = 'retrying', attempt_count = t.attempt_count - 1
where (select is_set from tenants_set) and t.connection_id = $1 and t.fence = $2 and t.id = any($3::uuid[])
  and t.state = 'sending'
