-- For a caller who waits: claim the lane, read what is due, and, where that is one write that goes out as it is, mark it
-- `sending`, in one round trip. The statements of claim and window stand in its braces, over the parameters
-- $1 connection, $2 owner, $3 lease seconds, $4 the most rows.
with claimed as (
    {claim}
), due as (
    select * from ({window}) d where exists (select from claimed)
), marked as (
    update write_targets t set state = 'sending', attempt_count = t.attempt_count + 1, fence = c.fence,
        sent_at = clock_timestamp()
    from claimed c
    where t.id = (select min(id::text)::uuid from due having count(*) = 1)
      and t.state in ('accepted', 'retrying') and not c.must_recover
    returning t.id
)
select c.tenant_id, c.fence, c.failures, c.must_recover, d.*, m.id is not null as is_marked
from claimed c left join due d on true left join marked m on m.id = d.id
