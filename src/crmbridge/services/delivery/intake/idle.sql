-- A condition on a lane l: nothing waits in it, nobody holds it, it was given free in order.
l.next_due is null and not l.is_paused and l.owner = ''
and coalesce(l.not_before <= clock_timestamp(), true) and coalesce(l.leased_until <= clock_timestamp(), true)
