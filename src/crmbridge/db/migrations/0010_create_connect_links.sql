-- A link that an operator hands to the tenant's own admin: it opens the connect page of one driver and one connection,
-- in the browser that opens it first, until it has brought a credential or has expired. Token and cookie are 256 random
-- bits each, kept as SHA-256 only. settings: plain ones that the operator has fixed. brought: the credential (for consent: the flow, which becomes one) that came of it.
create table connect_links (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    driver text not null,
    connection text not null,
    settings jsonb not null default '{}',
    token_hash bytea not null unique,
    cookie_hash bytea,
    tries integer not null default 0,
    brought uuid,
    used_at timestamptz,
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
select isolate_by_tenant('connect_links');
select declare_retention('connect_links', 'a');
