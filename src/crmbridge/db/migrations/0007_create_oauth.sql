-- OAuth: flows under way, the installation's apps at the providers, tokens of credentials; and the PHI gate.

-- One link to consent. handle, state and cookie are 256 random bits each, kept as SHA-256 only; the state and the cookie
-- exist from the first visit of the link on. sealed: the form's secrets and the PKCE verifier, under the tenant key.
-- used_at makes the state single-use; the row goes with the credential that comes of it, or keeps the failure until it
-- expires, for whoever waits. What has expired is removed by the tenant's next link. The id becomes the credential's.
create table oauth_states (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    driver text not null,
    connection text not null,
    settings jsonb not null default '{}',
    sealed bytea not null,
    handle_hash bytea not null unique,
    state_hash bytea unique,
    cookie_hash bytea,
    actor text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    failure jsonb
);
select isolate_by_tenant('oauth_states');
select declare_retention('oauth_states', 'a');

-- client_id and client_secret of our app at a provider, for all tenants. sealed under the installation key.
create table oauth_apps (
    driver text primary key,
    client_id text not null,
    sealed bytea not null,
    updated_by text not null,
    updated_at timestamptz not null default now()
);
grant select, insert, update, delete on oauth_apps to crmbridge_scheduler;
select declare_retention('oauth_apps', 'config');

-- The token endpoint asked for fewer calls: no process asks again before this time.
alter table tenant_credentials add column token_not_before timestamptz;
select declare_retention('tenant_credentials', 'config');

-- The papers without which no call with health data leaves. An empty text or null is a paper that is not there.
create table gates (
    tenant_id uuid primary key references tenants (id),
    baa_reference text not null default '',
    baa_signatory text not null default '',
    baa_signed_on date,
    reviewer text not null default '',
    reviewed_on date,
    is_closed boolean not null default false,
    recorded_by text not null,
    recorded_at timestamptz not null default now()
);
select isolate_by_tenant('gates');
select declare_retention('gates', 'config');
