-- `sending`, one attempt more, before the socket is used. Only under a fence that still holds, only what is still there
-- to be sent. Says too whether live writes wait that are not among them. It is a transaction of its own, as save.sql: $4
-- is the setting of its tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $4, true), '') <> '' as is_set
)
update write_targets t set state = 'sending', attempt_count = t.attempt_count + 1, fence = $2,
    sent_at = clock_timestamp()
where (select is_set from tenants_set)
  and t.connection_id = $1 and t.id = any($3::uuid[]) and t.state in ('accepted', 'retrying')
  and exists (select from lanes l where (select is_set from tenants_set) and l.connection_id = $1 and l.fence = $2
              and not l.is_paused and l.leased_until > clock_timestamp())
returning t.id, exists (
    select from write_targets w
    where (select is_set from tenants_set) and w.connection_id = $1 and w.priority = 0 and w.id <> all($3::uuid[])
      and w.state in ('accepted', 'retrying') and w.due_at <= clock_timestamp()) as is_live_waiting
