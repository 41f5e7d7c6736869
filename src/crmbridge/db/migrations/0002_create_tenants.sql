-- Tenants, their API keys, and their wrapped keys.

create table tenants (
    id uuid primary key,
    tenant_id uuid not null generated always as (id) stored,
    slug text not null unique check (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    name text not null check (length(name) between 1 and 200),
    vertical text not null,
    region text not null default '' check (region ~ '^([A-Z]{2})?$'),
    time_zone text not null default 'UTC',
    unknown_slots text not null default 'refuse' check (unknown_slots in ('refuse', 'note')),
    created_at timestamptz not null default now(),
    closed_at timestamptz
);
select isolate_by_tenant('tenants');
select open_to_scheduler('tenants', 'select');
select declare_retention('tenants', 'config');

-- tenant_id is null for an operator's key. Only a hash of the key is kept.
create table api_keys (
    id uuid primary key,
    tenant_id uuid references tenants (id),
    name text not null,
    prefix text not null,
    key_hash bytea not null unique,
    scopes text[] not null,
    created_by text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
select isolate_by_tenant('api_keys');
select open_to_scheduler('api_keys', 'select, insert, update');
select declare_retention('api_keys', 'config');

-- Wrapped by the master key. 'data' seals, 'index' makes keyed hashes and never changes.
create table tenant_keys (
    tenant_id uuid not null references tenants (id),
    purpose text not null check (purpose in ('data', 'index')),
    version integer not null,
    wrapped bytea not null,
    master_key_id text not null,
    state text not null default 'active' check (state in ('active', 'retired', 'destroyed')),
    created_at timestamptz not null default now(),
    rewrapped_at timestamptz,
    primary key (tenant_id, purpose, version)
);
create unique index tenant_keys_one_active on tenant_keys (tenant_id, purpose) where state = 'active';
select isolate_by_tenant('tenant_keys');
select declare_retention('tenant_keys', 'config');

-- The installation's own key: OAuth app secrets, signing keys, operator sessions. No tenant, so no tenant policy.
create table installation_keys (
    purpose text not null,
    version integer not null,
    wrapped bytea not null,
    master_key_id text not null,
    state text not null default 'active' check (state in ('active', 'retired', 'destroyed')),
    created_at timestamptz not null default now(),
    rewrapped_at timestamptz,
    primary key (purpose, version)
);
grant select, insert, update on installation_keys to crmbridge_scheduler;
select declare_retention('installation_keys', 'config');
