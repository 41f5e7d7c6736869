-- Due targets of lane $1, live before import, with their sealed content. A paused lane has none. Who reads it says which
-- and how many.
select t.id, t.write_id, t.object, t.operation, t.priority, t.state, t.attempt_count, t.error, t.depends_on,
       w.sealed, w.actor, w.request_id,
       case when t.depends_on <> '{}' then (
           select jsonb_object_agg(d.write_id, d.remote_id) filter (where d.state = 'applied')
           from write_targets d
           where d.connection_id = t.connection_id and d.write_id = any(t.depends_on)) end as remote_ids
from write_targets t
join writes w on w.id = t.write_id
where t.connection_id = $1 and {due}
  and not exists (
      select from lanes p where (select is_set from tenants_set) and p.connection_id = $1 and p.is_paused)
