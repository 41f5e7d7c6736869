-- A connection as a person names it, and since when it is paused.
select t.slug as tenant, c.name, c.paused_at
from connections c join tenants t on t.id = c.tenant_id
where c.id = $1
