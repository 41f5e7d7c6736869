-- A step that a person orders, on targets that fit and may take it: the oldest first, at most $12 (null: all).
with chosen as (
    select t.id from write_targets t join writes w on w.id = t.write_id
    where {fits}
    order by t.seq limit $12
    for update of t
)
update write_targets t set
    state = $11,
    due_at = clock_timestamp(),
    attempt_count = case when $11 = 'retrying' then 0 else t.attempt_count end,
    finished_at = case when $11 = 'retrying' then null else clock_timestamp() end
from chosen c
where t.id = c.id and t.state = any($2::text[])
returning t.id, t.connection_id
