-- The open targets of a tenant after the database's clock was set back: what waits for a moment waits for $1 seconds at
-- most, and what was just accepted for none.
update write_targets set
    due_at = clock_timestamp() + case when state = 'accepted' then 0 else $1::float8 end * interval '1 second'
where state in ('accepted', 'retrying', 'unknown')
  and due_at > clock_timestamp() + case when state = 'accepted' then 0 else $1::float8 end * interval '1 second'
returning id
