-- Of these targets, those that cannot settle within $2 seconds: their lane is paused or held back, or they are not due.
select t.id from write_targets t join lanes l on l.connection_id = t.connection_id
where t.id = any($1::uuid[]) and t.state <> 'sending'
  and (l.is_paused or greatest(l.not_before, t.due_at) > clock_timestamp() + $2::float8 * interval '1 second')
