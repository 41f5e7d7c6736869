-- One CRM of one tenant: connection, credentials, field mapping, lane.

create table connections (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    name text not null default 'primary' check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    driver text not null,
    routes jsonb not null default '{}',
    created_by text not null,
    created_at timestamptz not null default now(),
    paused_at timestamptz,
    closed_at timestamptz,
    unique (tenant_id, name)
);
select isolate_by_tenant('connections');
select declare_retention('connections', 'config');

-- sealed: the secret settings as JSON, under a fresh data key wrapped by the tenant key; associated data binds
-- tenant, driver, credential id and row_version. settings and facts never hold a secret.
create table tenant_credentials (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    connection_id uuid not null references connections (id),
    driver text not null,
    status text not null default 'pending'
        check (status in ('pending', 'active', 'superseded', 'revoked', 'needs_reauthorization')),
    row_version integer not null default 1,
    sealed bytea not null,
    settings jsonb not null default '{}',
    facts jsonb not null default '{}',
    scopes text[] not null default '{}',
    missing_rights text[] not null default '{}',
    account text not null default '',
    previous_id uuid references tenant_credentials (id),
    created_by text not null,
    created_at timestamptz not null default now(),
    tested_at timestamptz,
    test_error jsonb,
    activated_at timestamptz,
    superseded_at timestamptz,
    revoked_at timestamptz,
    rotated_at timestamptz,
    expires_at timestamptz,
    refresh_due_at timestamptz
);
create unique index tenant_credentials_one_in_use on tenant_credentials (connection_id)
    where status in ('active', 'needs_reauthorization');
create index tenant_credentials_by_connection on tenant_credentials (connection_id, created_at desc);
select isolate_by_tenant('tenant_credentials');
select declare_retention('tenant_credentials', 'config');

-- One row per overridden slot; the driver's fields.toml gives the others.
-- rule: {"path", "native", "format", "values", "constant", "default", "direction"}; path null = not mapped.
create table tenant_crm_field_mappings (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    connection_id uuid not null references connections (id),
    object text not null,
    slot text not null,
    rule jsonb not null,
    updated_by text not null,
    updated_at timestamptz not null default now(),
    unique (connection_id, object, slot)
);
select isolate_by_tenant('tenant_crm_field_mappings');
select declare_retention('tenant_crm_field_mappings', 'config');

-- The queue of one connection. next_due is pulled forward by accepts; not_before holds a back-off that
-- accepts cannot shorten; fence grows with each lease and refuses a late worker's save.
create table lanes (
    connection_id uuid primary key references connections (id),
    tenant_id uuid not null references tenants (id),
    next_due timestamptz,
    not_before timestamptz,
    fence bigint not null default 0,
    owner text not null default '',
    leased_until timestamptz,
    failures integer not null default 0,
    is_paused boolean not null default false
);
create index lanes_by_due on lanes (next_due) where next_due is not null;
select isolate_by_tenant('lanes');
select open_to_scheduler('lanes', 'select, update');
select declare_retention('lanes', 'a');
