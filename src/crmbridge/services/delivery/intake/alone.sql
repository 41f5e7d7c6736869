-- One create of a caller who waits, alone in its flush and bound for one connection: accepted and, where nothing of its
-- lane waits, is held back or under way, its lane claimed and its target marked `sending`, in one commit. Elsewhere it is
-- an accept like any other. A claim so made is due when its lease ends: should its owner die, the sweep finds it.
-- It is a transaction of its own and sets its tenant ($1) itself, before its first row, and how long it waits for one that
-- another transaction holds ($19).
with tenants_set as materialized (
    select set_config('crmbridge.tenants', $1, true) as tenants, set_config('lock_timeout', $19, true)
), keyed as (
    insert into idempotency_keys (tenant_id, key_hash, fingerprint, write_id)
    select $2::uuid, $3::bytea, $4::bytea, $5::uuid from tenants_set where tenants is not null
    on conflict do nothing
    returning write_id
), fresh as (
    insert into writes (id, tenant_id, object, operation, sealed, priority, source, actor, request_id)
    select write_id, $2, $6, $7, $8, $9, $10, $11, $12 from keyed
    on conflict (id) do nothing
    returning id
), lease as materialized (
    select clock_timestamp() + $18::float8 * interval '1 second' as ends from fresh
), lane as (
    insert into lanes as l (connection_id, tenant_id, next_due, fence, owner, leased_until)
    select $14::uuid, $2, ends, 1, $17, ends from lease
    on conflict (connection_id) do update set
        next_due = case when {idle} then excluded.next_due else least(l.next_due, now()) end,
        fence = case when {idle} then l.fence + 1 else l.fence end,
        owner = case when {idle} then excluded.owner else l.owner end,
        leased_until = case when {idle} then excluded.leased_until else l.leased_until end
    returning l.fence, l.failures, l.owner = $17 and l.leased_until = (select ends from lease) as is_taken,
        not l.is_paused and coalesce(l.not_before <= clock_timestamp(), true)
        and coalesce(l.leased_until <= clock_timestamp(), true) as is_idle
), target as (
    insert into write_targets
        (id, tenant_id, write_id, connection_id, object, operation, priority, state, fence, attempt_count, sent_at)
    select $13::uuid, $2, f.id, $14, $6, $7, $9,
           case when l.is_taken then 'sending' else 'accepted' end,
           case when l.is_taken then l.fence else 0 end,
           case when l.is_taken then 1 else 0 end,
           case when l.is_taken then clock_timestamp() end
    from fresh f cross join lane l
), subjects as (
    insert into write_subjects (tenant_id, subject_hash, kind, write_id)
    select $2, s.subject_hash, s.kind, f.id
    from fresh f cross join unnest($15::bytea[], $16::text[]) as s (subject_hash, kind)
    order by s.subject_hash
    on conflict do nothing
)
select l.fence, l.failures, l.is_taken, l.is_idle from fresh cross join lane l
