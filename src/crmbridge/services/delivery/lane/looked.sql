-- For how many seconds the look-ups of a target have failed, since it was sent last or a person redrove it. Three at least, so that a look-up
-- from before a long pause does not count alone.
select extract(epoch from clock_timestamp() - min(a.started_at))::float8
from attempts a join write_targets t on t.id = a.target_id
where a.target_id = $1 and a.kind = 'look_up' and a.outcome = 'unknown' and a.started_at >= greatest(t.sent_at, t.looked_from)
having count(*) >= 3
