-- Every try of one write, in order.
select a.target_id, a.number, a.kind, a.batch_size, a.started_at, a.finished_at, a.outcome, a.code, a.subcode,
    a.http_status, a.provider_request_id
from attempts a join write_targets t on t.id = a.target_id
where t.tenant_id = $1 and t.write_id = $2
order by a.started_at, a.id
limit 500
