-- Sign-ins elsewhere (OpenID Connect) that have come back: each state counts once. Written when the browser returns with
-- its own sealed cookie, never before, so that strangers make no rows. The row goes when the cookie would have expired.
create table operator_flows (
    state_hash bytea primary key,
    expires_at timestamptz not null
);
create index operator_flows_by_end on operator_flows (expires_at);
grant select, insert, delete on operator_flows to crmbridge_scheduler;
select declare_retention('operator_flows', 'a');
