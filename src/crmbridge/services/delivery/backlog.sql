-- Targets of one tenant that are not at their end, by connection and state.
select connection_id, state, count(*) as targets from write_targets
where tenant_id = $1 and state in ('accepted', 'sending', 'retrying', 'unknown', 'parked', 'dead_letter')
group by connection_id, state
