-- A step that a person orders, on targets that fit and may take it: the oldest first, at most $12 (null: all). From each
-- state of $2 to the one of $11 at its place.
with moves as (
    select * from unnest($2::text[], $11::text[]) as m (was, state)
), chosen as (
    select t.id, t.state as was from write_targets t join writes w on w.id = t.write_id
    where {fits}
    order by t.seq limit $12
    for update of t
)
update write_targets t set
    state = m.state,
    due_at = clock_timestamp(),
    looked_from = case when m.state = 'unknown' then clock_timestamp() else t.looked_from end,
    attempt_count = case when m.state in ('retrying', 'unknown') then 0 else t.attempt_count end,
    finished_at = case when m.state in ('retrying', 'unknown') then null else clock_timestamp() end
from chosen c join moves m using (was)
where t.id = c.id and t.state = c.was
returning t.id, t.connection_id, c.was
