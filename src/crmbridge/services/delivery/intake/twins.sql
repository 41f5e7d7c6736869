-- Records of connection $1 by object and remote id, as the writes that made them made them on connection $4 too. Of
-- several writes the one that is applied there, else the newest that still may be.
select distinct on (h.object, h.remote_id) h.object, h.remote_id, h.write_id, o.state, o.remote_id as twin_id
from unnest($2::text[], $3::text[]) as a (object, remote_id)
join write_targets h on h.connection_id = $1 and h.object = a.object and h.remote_id = a.remote_id
    and h.remote_id <> ''
    and h.operation in ('create', 'upsert') and h.state = 'applied'
join write_targets o on o.write_id = h.write_id and o.connection_id = $4 and o.state not in ('discarded', 'cancelled')
order by h.object, h.remote_id, o.state = 'applied' desc, h.seq desc
