-- A step that a person orders, on every target that fits and may take it.
update write_targets t set
    state = $1,
    due_at = clock_timestamp(),
    attempt_count = case when $1 = 'retrying' then 0 else t.attempt_count end,
    finished_at = case when $1 = 'retrying' then null else clock_timestamp() end
from writes w
where w.id = t.write_id and t.tenant_id = $3 and t.state = any($2::text[])
  and ($4::uuid is null or t.write_id = $4)
  and ($5::text = '' or t.object = $5)
  and ($6::uuid is null or w.import_id = $6)
  and ($7::timestamptz is null or w.accepted_at >= $7)
  and ($8::text is null or t.state = $8)
  and ($9::uuid is null or t.connection_id = $9)
returning t.id, t.connection_id
