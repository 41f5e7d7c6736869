-- The sealed content of one write, its targets, and the remote ids of the writes that it is linked to.
select w.sealed, t.id as target_id, t.connection_id,
    (select jsonb_object_agg(d.write_id, d.remote_id) from write_targets d
     where d.tenant_id = $1 and d.connection_id = t.connection_id and d.write_id = any(t.depends_on)) as remote_ids
from writes w join write_targets t on t.write_id = w.id
where w.tenant_id = $1 and w.id = $2
order by t.seq
