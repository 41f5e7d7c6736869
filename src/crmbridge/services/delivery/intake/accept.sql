-- One statement for a flush of accepts, of several tenants. Ends up with one row per write that is new ('write')
-- and one per lane that was pulled forward ('lane'); a key known already makes its write vanish here.
-- A target with an error is one that its connection can never take: a dead letter from the start.
-- Targets and subjects name their write by its place among the accepts, counted from 1; accepts name what many of them
-- share ($7 to $13) by its number.
-- Every insert is sorted, so that two flushes take their locks in one order.
-- It is a transaction of its own: before the first accept is read, the setting of its tenants ($23) is made, until its
-- end. Should that ever come too late, the policies refuse the rows. So is how long it waits for a row that another
-- transaction holds ($24).
with tenants_set as materialized (
    select set_config('crmbridge.tenants', $23, true) as tenants, set_config('lock_timeout', $24, true)
), accepts as materialized (
    select a.*, h.* from tenants_set s
    cross join lateral unnest($1::uuid[], $2::int[], $3::bytea[], $4::bytea[], $5::bytea[], $6::text[]) with ordinality
        as a (write_id, head, key_hash, fingerprint, sealed, request_id, place)
    join unnest($7::uuid[], $8::text[], $9::text[], $10::smallint[], $11::text[], $12::uuid[], $13::text[])
        with ordinality as h (tenant_id, object, operation, priority, source, import_id, actor, number)
        on h.number = a.head
    where s.tenants is not null
), keyed as (
    insert into idempotency_keys (tenant_id, key_hash, fingerprint, write_id)
    select tenant_id, key_hash, fingerprint, write_id from accepts where key_hash is not null
    order by tenant_id, key_hash
    on conflict do nothing
    returning write_id
), fresh as (
    insert into writes (id, tenant_id, object, operation, sealed, priority, source, import_id, actor, request_id)
    select write_id, tenant_id, object, operation, sealed, priority, source, import_id, actor, request_id
    from accepts
    where key_hash is null or write_id in (select write_id from keyed)
    order by write_id
    on conflict (id) do nothing
    returning id
), targets as (
    insert into write_targets
        (id, tenant_id, write_id, connection_id, object, operation, priority, order_key, depends_on, state, outcome,
         error, finished_at)
    select t.id, a.tenant_id, a.write_id, t.connection_id, a.object, a.operation, a.priority, t.order_key,
           coalesce(t.depends_on::uuid[], '{}'),
           case when t.error is null then 'accepted' else 'dead_letter' end,
           case when t.error is not null then 'not_applied' end,
           t.error,
           case when t.error is not null then clock_timestamp() end
    from unnest($14::int[], $15::uuid[], $16::uuid[], $17::bytea[], $18::text[], $19::jsonb[]) with ordinality
         as t (place, id, connection_id, order_key, depends_on, error, position)
    join accepts a using (place)
    where a.write_id in (select id from fresh)
    order by t.position
    returning connection_id, tenant_id, state
), subjects as (
    insert into write_subjects (tenant_id, subject_hash, kind, write_id)
    select a.tenant_id, s.subject_hash, s.kind, a.write_id
    from unnest($20::int[], $21::bytea[], $22::text[]) as s (place, subject_hash, kind)
    join accepts a using (place)
    where a.write_id in (select id from fresh)
    order by a.tenant_id, s.subject_hash, a.write_id
    on conflict do nothing
), pulled as (
    insert into lanes (connection_id, tenant_id, next_due)
    select distinct connection_id, tenant_id, now() from targets where state = 'accepted' order by connection_id
    on conflict (connection_id) do update set next_due = excluded.next_due
        where lanes.next_due is null or lanes.next_due > excluded.next_due
    returning connection_id, tenant_id, fence,
        not is_paused and coalesce(not_before <= clock_timestamp(), true)
        and coalesce(leased_until <= clock_timestamp(), true) as is_idle
)
select 'write' as kind, id, null::uuid as tenant_id, 0::bigint as fence, false as is_idle from fresh
union all
select 'lane', connection_id, tenant_id, fence, is_idle from pulled
