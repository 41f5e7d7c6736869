-- A condition on write_targets t: due now, no earlier write to the same record is pending, and all that it depends
-- on has been applied on this connection (or can never be: then it is handed out to be given up).
t.state in ('accepted', 'retrying', 'unknown')
and t.due_at <= clock_timestamp()
and (t.order_key is null or not exists (
    select from write_targets e
    where e.connection_id = t.connection_id and e.order_key = t.order_key and e.seq < t.seq
      and e.state in ('accepted', 'sending', 'retrying', 'unknown', 'parked') and e.order_key is not null))
and (t.depends_on = '{}' or (
    select count(*) filter (where d.state = 'applied') = cardinality(t.depends_on)
        or bool_or(d.state in ('discarded', 'cancelled'))
        or count(*) < cardinality(t.depends_on)
    from write_targets d where d.connection_id = t.connection_id and d.write_id = any(t.depends_on)))
