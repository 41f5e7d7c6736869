-- Take a free lane. An owner that is still named did not give the lane free in order.
update lanes l set fence = l.fence + 1, owner = $2, leased_until = clock_timestamp() + $3 * interval '1 second'
from (select connection_id, owner from lanes where connection_id = $1 for update) before
where l.connection_id = before.connection_id and not l.is_paused
  and coalesce(l.not_before <= clock_timestamp(), true)
  and coalesce(l.leased_until <= clock_timestamp(), true)
  and l.next_due <= clock_timestamp()
returning l.tenant_id, l.fence, l.failures, before.owner <> '' as must_recover
