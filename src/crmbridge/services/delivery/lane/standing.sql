-- How the targets of write $1 stand, in their order, and which cannot settle within $2 seconds: their lane is paused or
-- held back, or they are not due. It is a transaction of its own, as save.sql: $3 is the setting of its tenant.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $3, true), '') <> '' as is_set
)
select t.id, t.connection_id, c.name as connection, t.state, t.outcome, t.remote_id, t.remote_url, t.delete_level,
       t.error, t.attempt_count, t.due_at, t.sent_at, t.finished_at,
       t.state <> 'sending'
       and (l.is_paused or greatest(l.not_before, t.due_at) > clock_timestamp() + $2::float8 * interval '1 second')
       as is_held
from write_targets t
join connections c on c.id = t.connection_id
join lanes l on l.connection_id = t.connection_id
where (select is_set from tenants_set) and t.write_id = $1
order by t.seq
