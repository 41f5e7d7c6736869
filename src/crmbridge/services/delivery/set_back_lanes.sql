-- All lanes after the database's clock was set back, what is due in them due at once: a lease lasts no longer than $1
-- seconds from now (its holder believes it for no longer), a back-off no longer than $2. least() passes over nulls.
update lanes l set
    leased_until = case when l.leased_until > t.now + $1::float8 * interval '1 second'
                        then t.now + $1::float8 * interval '1 second' else l.leased_until end,
    not_before = case when l.not_before > t.now + $2::float8 * interval '1 second'
                      then t.now + $2::float8 * interval '1 second' else l.not_before end,
    next_due = case when l.next_due > t.now then t.now else l.next_due end
from (select clock_timestamp() as now) t,
     (select connection_id from lanes order by connection_id for update) locked
where locked.connection_id = l.connection_id
returning l.tenant_id
