-- A worker died, or lost its lane, with these under way. Until the send limit is over it may only be slow. What an earlier
-- attempt ended with says nothing of this one, and is no leave to repeat it. $6: for how long the database's clock is known
-- to run evenly. Before that a mark may be younger than it says.
with lost as (
    update write_targets set state = 'unknown', outcome = 'unknown', error = null,
        due_at = greatest(
            clock_timestamp() + greatest(0, $3::float8 - $6::float8) * interval '1 second',
            least(sent_at, clock_timestamp()) + $3::float8 * interval '1 second'
        ) + $4::float8 * interval '1 second'
    where connection_id = $1 and state = 'sending' and fence < $2
    returning id, tenant_id, attempt_count, fence, sent_at
)
insert into attempts (tenant_id, target_id, connection_id, number, kind, batch_id, batch_size, fence, started_at,
                      finished_at, outcome, code, subcode)
select tenant_id, id, $1, attempt_count, 'send', $5, 1, fence, sent_at, clock_timestamp(), 'unknown',
       'unavailable', 'interrupted'
from lost returning target_id
