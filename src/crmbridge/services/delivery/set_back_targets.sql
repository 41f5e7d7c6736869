-- The open targets of a tenant after the database's clock was set back by $2 seconds: what was just accepted is due now, and
-- what waits for longer than $1 seconds as soon as it was.
update write_targets set
    due_at = case when state = 'accepted' then clock_timestamp()
                  else greatest(clock_timestamp(), due_at - $2::float8 * interval '1 second') end
where state in ('accepted', 'retrying', 'unknown')
  and due_at > clock_timestamp() + case when state = 'accepted' then 0 else $1::float8 end * interval '1 second'
returning id
