-- All lanes after the database's clock was set back by $3 seconds. What is due in them is due at once; a lease that lasts
-- longer than $1 seconds from now, and a back-off longer than $2, are as far away as they were. Whose lease was mended
-- already is not mended again.
update lanes l set
    leased_until = case when l.leased_until > t.now + $1::float8 * interval '1 second'
                        then greatest(t.now, l.leased_until - $3::float8 * interval '1 second')
                        else l.leased_until end,
    not_before = case when l.not_before > t.now + $2::float8 * interval '1 second'
                      then greatest(t.now, l.not_before - $3::float8 * interval '1 second')
                      else l.not_before end,
    next_due = case when l.next_due > t.now then t.now else l.next_due end
from (select clock_timestamp() as now) t,
     (select connection_id from lanes order by connection_id for update) locked
where locked.connection_id = l.connection_id
returning l.tenant_id
