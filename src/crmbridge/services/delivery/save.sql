-- The outcomes of one batch. A target is touched only while it still stands where the worker left it, under the
-- worker's own fence: a late worker saves nothing. One row per target in attempts. Answers the targets saved,
-- as they stand now.
with results as (
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
    where t.id = r.id and t.connection_id = $1 and t.state = $15 and (t.fence = $2 or $15 = 'unknown')
      and exists (select from lanes l where l.connection_id = $1 and l.fence = $2)
    returning t.id, t.tenant_id, t.attempt_count, t.due_at, t.sent_at, t.finished_at, t.remote_id, t.remote_url
), noted as (
    insert into attempts (tenant_id, target_id, connection_id, number, kind, batch_id, batch_size, fence, started_at,
                          finished_at, outcome, code, subcode, http_status, provider_request_id)
    select s.tenant_id, s.id, $1, s.attempt_count, $16, $17, $18, $2,
           clock_timestamp() - $19::float8 * interval '1 second', clock_timestamp(), r.outcome, r.code, r.subcode,
           r.http_status, r.provider_request_id
    from results r join saved s using (id)
)
select id, attempt_count, due_at, sent_at, finished_at, remote_id, remote_url from saved
