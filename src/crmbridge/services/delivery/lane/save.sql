-- The outcomes of one batch, with the audit row of its call. A target is touched only while it still stands where the
-- worker left it, under the worker's own fence: a late worker saves nothing. One row per target in attempts.
-- With $29 the lane is given free too, when all were saved and nothing else waits in it. Who accepted something before
-- the lane was taken is seen here, who did so since has pulled it forward. Answers the targets saved, as they stand now.
-- coalesce and "is true" keep the planner from indexes on due times and states, which grow, to the primary keys.
-- It may be a transaction of its own: then $20 is the setting of its tenant, else empty. Each part that reads a table
-- has that as a condition which does not depend on a row, and so is evaluated before the first one is read.
with tenants_set as materialized (
    select case when $20 = '' then true else set_config('crmbridge.tenants', $20, true) <> '' end as is_set
), results as (
    select * from unnest(
        $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::float8[],
        $11::text[], $12::text[], $13::integer[], $14::text[])
    as r (id, state, outcome, remote_id, remote_url, delete_level, error, delay, code, subcode, http_status,
          provider_request_id)
), saved as (
    update write_targets t set
        state = r.state,
        outcome = r.outcome,
        remote_id = case when r.remote_id <> '' then r.remote_id else t.remote_id end,
        remote_url = case when r.remote_url <> '' then r.remote_url else t.remote_url end,
        delete_level = r.delete_level,
        error = r.error,
        due_at = clock_timestamp() + r.delay * interval '1 second',
        fence = $2,
        finished_at = case when r.state in ('applied', 'dead_letter', 'parked') then clock_timestamp() end
    from results r
    where (select is_set from tenants_set)
      and t.id = r.id and t.id = any($3::uuid[]) and t.connection_id = $1 and (t.state = $15) is true
      and (t.fence = $2 or $15 = 'unknown')
      and exists (select from lanes l where (select is_set from tenants_set) and l.connection_id = $1 and l.fence = $2)
    returning t.id, t.tenant_id, t.attempt_count, t.due_at, t.sent_at, t.finished_at, t.remote_id, t.remote_url
), noted as (
    insert into attempts (tenant_id, target_id, connection_id, number, kind, batch_id, batch_size, fence, started_at,
                          finished_at, outcome, code, subcode, http_status, provider_request_id)
    select s.tenant_id, s.id, $1, s.attempt_count, $16, $17, $18, $2,
           clock_timestamp() - $19::float8 * interval '1 second', clock_timestamp(), r.outcome, r.code, r.subcode,
           r.http_status, r.provider_request_id
    from results r join saved s using (id)
), audited as (
    {audit}
), freed as (
    update lanes l set owner = '', leased_until = null, failures = 0, not_before = null, next_due = null,
        waiting_since = null
    from (select count(*) as targets from saved) s
    where $29 and (select is_set from tenants_set) and s.targets = $18 and l.connection_id = $1 and l.fence = $2
      and coalesce(l.next_due > clock_timestamp(), false)
      and not exists (
          select from write_targets w
          where (select is_set from tenants_set) and w.connection_id = $1 and w.id <> all($3::uuid[]) and w.state in ('accepted', 'sending', 'retrying', 'unknown'))
    returning true as is_freed
)
select id, attempt_count, due_at, sent_at, finished_at, remote_id, remote_url,
    exists (select from freed) as is_freed
from saved
