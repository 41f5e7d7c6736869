-- The parked targets of lane $1 of tenant $2: how many, and the first and the last that was accepted.
with parked as (
    select t.write_id, t.object, t.operation, t.accepted_at,
        coalesce(t.finished_at, t.accepted_at) as finished_at, t.seq from write_targets t
    where t.tenant_id = $2 and t.state = 'parked' and t.connection_id = $1
), ends as (
    (select true as is_first, p.* from parked p order by p.seq limit 1)
    union all
    (select false as is_first, p.* from parked p order by p.seq desc limit 1)
)
select n.slug as tenant, c.name as connection, (select count(*) from parked) as count,
    e.is_first, e.write_id, e.object, e.operation, e.accepted_at, e.finished_at
from connections c join tenants n on n.id = c.tenant_id left join ends e on true
where c.id = $1 and c.tenant_id = $2
order by e.is_first desc
