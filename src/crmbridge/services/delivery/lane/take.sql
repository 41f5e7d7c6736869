-- Take a free lane, read what is due in it, and, where that is no more than the calls that may begin now ($6), mark what
-- goes out as it is `sending`, in one round trip. Where live writes are due, rows of an import are left for later: hundreds
-- of them take longer to read than a call. $1 connection, $2 owner, $3 lease seconds, $4 the most rows. It is a transaction
-- of its own, as save.sql: $5 is the setting of its tenant.
-- coalesce keeps the planner from lanes_by_due, where it would read all lanes that are due to find this one.
-- An owner that is still named did not give the lane free in order. The lane is due again when the lease ends: whoever
-- accepts something meanwhile pulls it forward, and so tells that something came.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $5, true), '') <> '' as is_set
), claimed as (
    update lanes l set fence = l.fence + 1, owner = $2,
        leased_until = clock_timestamp() + $3::float8 * interval '1 second',
        next_due = clock_timestamp() + $3::float8 * interval '1 second'
    from (select connection_id, owner from lanes where connection_id = $1 for update) before
    where (select is_set from tenants_set) and l.connection_id = before.connection_id and not l.is_paused
      and coalesce(l.not_before <= clock_timestamp(), true)
      and coalesce(l.leased_until <= clock_timestamp(), true)
      and coalesce(l.next_due <= clock_timestamp(), false)
    returning l.tenant_id, l.fence, l.failures, before.owner <> '' as must_recover
), first as materialized (
    select t.priority from write_targets t
    where t.connection_id = $1 and {due}
      and exists (select from claimed)
    order by t.priority, t.seq
    limit 1
), due as (
    {rows}
      and exists (select from claimed) and t.priority = (select priority from first)
    order by t.seq
    limit $4
), marked as (
    update write_targets t set state = 'sending', attempt_count = t.attempt_count + 1, fence = c.fence,
        sent_at = clock_timestamp()
    from claimed c
    where (select count(*) from due) <= $6::integer and t.id in (select id from due)
      and t.state in ('accepted', 'retrying') and not c.must_recover
    returning t.id
)
select c.tenant_id, c.fence, c.failures, c.must_recover,
    exists (
        select from write_targets w
        where (select is_set from tenants_set) and w.connection_id = $1 and w.priority > (select priority from first)
          and w.state in ('accepted', 'sending', 'retrying', 'unknown')) as has_more,
    d.*, m.id is not null as is_marked
from claimed c left join due d on true left join marked m on m.id = d.id
