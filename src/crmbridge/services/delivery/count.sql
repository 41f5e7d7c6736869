-- Targets by state, of all the tenant's writes or of one import.
select t.state, count(*) as targets from write_targets t
where t.tenant_id = $1
  and ($2::uuid is null or t.write_id in (select w.id from writes w where w.import_id = $2))
group by t.state
