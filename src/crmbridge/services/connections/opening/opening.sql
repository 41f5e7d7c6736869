-- All that a call for a tenant needs, in one round trip: the tenant and its gate, one connection with the credential in
-- use and its overrides, the routes of all its connections, and ($4) its wrapped keys. Of a tenant that is there it brings
-- one row, with or without that connection.
-- It is a transaction of its own and sets its tenant ($1) itself, before its first row. Each part says so, for the parts
-- of a statement are evaluated when they are needed; should one ever be too early, the policies show it no rows.
with tenants_set as materialized (
    select coalesce(set_config('crmbridge.tenants', $1, true), '') <> '' as is_set
)
select t.id as t_id, t.slug as t_slug, t.name as t_name, t.vertical as t_vertical, t.region as t_region,
    t.time_zone as t_time_zone, t.unknown_slots as t_unknown_slots, t.created_at as t_created_at,
    t.closed_at as t_closed_at,
    g.baa_reference as g_baa_reference, g.baa_signatory as g_baa_signatory, g.baa_signed_on as g_baa_signed_on,
    g.reviewer as g_reviewer, g.reviewed_on as g_reviewed_on, g.is_closed as g_is_closed,
    g.recorded_by as g_recorded_by, g.recorded_at as g_recorded_at,
    c.id as c_id, c.name as c_name, c.driver as c_driver, c.routes, c.paused_at, k.sealed, {credential},
    (select jsonb_agg(jsonb_build_object('id', o.id, 'name', o.name, 'routes', o.routes) order by o.created_at, o.id)
     from connections o
     where (select is_set from tenants_set) and o.tenant_id = t.id and o.closed_at is null) as siblings,
    (select jsonb_agg(jsonb_build_object('object', m.object, 'slot', m.slot, 'rule', m.rule) order by m.object, m.slot)
     from tenant_crm_field_mappings m
     where (select is_set from tenants_set) and k.id is not null and m.connection_id = c.id) as rules,
    (select {keys} and (select is_set from tenants_set) and $4 and tenant_id = t.id) as keys
from tenants t
left join gates g on g.tenant_id = t.id
left join connections c on c.tenant_id = t.id and c.closed_at is null and {which} = $3
left join tenant_credentials k on k.connection_id = c.id and k.status in ('active', 'needs_reauthorization')
where (select is_set from tenants_set) and t.id = $2
