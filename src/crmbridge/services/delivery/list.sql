-- A page of writes, newest first, each with its targets.
select w.id, w.object, w.operation, w.source, w.actor, w.priority, w.import_id, w.request_id, w.accepted_at,
    (select jsonb_agg(jsonb_build_object(
        'id', t.id, 'connection_id', t.connection_id, 'connection', c.name, 'state', t.state, 'outcome', t.outcome,
        'remote_id', t.remote_id, 'remote_url', t.remote_url, 'delete_level', t.delete_level, 'error', t.error,
        'attempt_count', t.attempt_count, 'due_at', t.due_at, 'sent_at', t.sent_at, 'finished_at', t.finished_at)
        order by t.seq)
     from write_targets t join connections c on c.id = t.connection_id where t.write_id = w.id) as targets
from writes w
where w.tenant_id = $1
  and ($2::uuid is null or w.id = $2)
  and ($3::text = '' or w.object = $3)
  and ($4::uuid is null or w.import_id = $4)
  and ($5::timestamptz is null or w.accepted_at >= $5)
  and ($6::text is null or w.id in (select t.write_id from write_targets t where t.tenant_id = $1 and t.state = $6
      and ($7::uuid is null or t.connection_id = $7)))
  and ($7::uuid is null or w.id in (select t.write_id from write_targets t where t.connection_id = $7))
  and ($8::timestamptz is null or (w.accepted_at, w.id) < ($8, $9::uuid))
order by w.accepted_at desc, w.id desc
limit $10
