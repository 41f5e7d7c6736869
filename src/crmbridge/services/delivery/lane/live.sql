-- The live targets of a lane that are due, at most $2, without those in hand. Where they are no more than the calls that
-- may begin now ($6), those that go out as they are, are marked `sending` with it. It is a transaction of its own, as
-- save.sql: $4 is the setting of its tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $4, true), '') <> '' as is_set
), due as (
    {rows}
      and (select is_set from tenants_set) and t.priority = 0 and t.id <> all($3::uuid[])
    order by t.seq
    limit $2
), marked as (
    update write_targets t set state = 'sending', attempt_count = t.attempt_count + 1, fence = $5,
        sent_at = clock_timestamp()
    where (select is_set from tenants_set) and (select count(*) from due) <= $6::integer
      and t.id in (select id from due) and t.state in ('accepted', 'retrying')
      and exists (select from lanes l where (select is_set from tenants_set) and l.connection_id = $1 and l.fence = $5
                  and not l.is_paused and l.leased_until > clock_timestamp())
    returning t.id
)
select d.*, m.id is not null as is_marked from due d left join marked m on m.id = d.id
