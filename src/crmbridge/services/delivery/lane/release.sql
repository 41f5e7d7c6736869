-- Give a lane free, unless something is due after all (the caller has locked the lane's row, so that no accept can
-- slip in between). $3 = free it in any case: the worker's turn is over or the lane is held back.
-- What is due but blocked has nothing to wait for but its blocker; the five minutes are a net.
update lanes l set
    owner = $6,
    leased_until = null,
    failures = $4,
    not_before = case when $5::float8 > 0 then clock_timestamp() + $5::float8 * interval '1 second' end,
    next_due = case when $3 then clock_timestamp() else left_over.next_due end,
    waiting_since = left_over.waiting_since
from (
    select
        case when not $3 then (
            select least(
                min(w.due_at) filter (where w.due_at > clock_timestamp()),
                case when bool_or(w.due_at <= clock_timestamp()) then clock_timestamp() + interval '5 minutes' end)
            from write_targets w
            where w.connection_id = $1 and w.state in ('accepted', 'sending', 'retrying', 'unknown')) end as next_due,
        (select w.accepted_at from write_targets w
         where w.connection_id = $1 and w.state in ('accepted', 'sending', 'retrying', 'unknown')
         order by w.priority, w.seq limit 1) as waiting_since
) left_over
where l.connection_id = $1 and l.fence = $2
  and ($3 or l.is_paused or not exists (select from write_targets t where t.connection_id = $1 and {due}))
returning l.next_due is not null as has_more
