-- Targets of one tenant that are not at their end, by state.
select state, count(*) as targets from write_targets
where tenant_id = $1 and state in ('accepted', 'sending', 'retrying', 'unknown', 'parked', 'dead_letter')
group by state
