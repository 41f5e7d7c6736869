-- Accepted writes, their targets, attempts, and the hashes by which a sealed write is found again.
-- What hangs on a write is inserted by the one statement that inserts the write, so it names its tenant and its write
-- without foreign keys of its own: they took a third of the time of an accept.

create table imports (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    object text not null,
    connection_id uuid references connections (id),
    created_by text not null,
    created_at timestamptz not null default now()
);
select isolate_by_tenant('imports');
select declare_retention('imports', 'b');

-- sealed: {fields, links, match, provider_extra, remote_id} under the tenant key; null once forgotten.
create table writes (
    id uuid primary key,
    tenant_id uuid not null references tenants (id),
    object text not null,
    operation text not null check (operation in ('create', 'update', 'upsert', 'delete', 'erase')),
    sealed bytea,
    priority smallint not null default 0,
    source text not null default 'api',
    import_id uuid references imports (id),
    actor text not null,
    request_id text not null default '',
    accepted_at timestamptz not null default now(),
    forgotten_at timestamptz
);
create index writes_by_tenant on writes (tenant_id, accepted_at desc);
create index writes_by_import on writes (import_id) where import_id is not null;
select isolate_by_tenant('writes');
select declare_retention('writes', 'b', '{"sealed": "c"}');

-- Kept 30 days without content, also when the write has gone earlier. key_hash and fingerprint are keyed by the tenant's index key.
create table idempotency_keys (
    tenant_id uuid not null,
    key_hash bytea not null,
    fingerprint bytea not null,
    write_id uuid not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, key_hash)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
select isolate_by_tenant('idempotency_keys');
select declare_retention('idempotency_keys', 'b');

-- Where a write's state lives: one row per connection it goes to. id is the mark that the provider gets.
-- order_key: keyed hash of the record, so that writes to one record keep their order.
create table write_targets (
    id uuid primary key,
    tenant_id uuid not null,
    write_id uuid not null references writes (id) on delete cascade,
    connection_id uuid not null references connections (id),
    seq bigint generated always as identity,
    object text not null,
    operation text not null,
    priority smallint not null default 0,
    order_key bytea,
    depends_on uuid[] not null default '{}',
    state text not null default 'accepted' check (state in
        ('accepted', 'sending', 'applied', 'retrying', 'unknown', 'parked', 'dead_letter', 'discarded', 'cancelled')),
    outcome text check (outcome in ('applied', 'not_applied', 'unknown')),
    due_at timestamptz not null default now(),
    attempt_count integer not null default 0,
    fence bigint not null default 0,
    remote_id text not null default '',
    remote_url text not null default '',
    delete_level text not null default '',
    error jsonb,
    accepted_at timestamptz not null default now(),
    sent_at timestamptz,
    finished_at timestamptz,
    unique (write_id, connection_id)
);
create index write_targets_waiting on write_targets (connection_id, priority, seq)
    where state in ('accepted', 'sending', 'retrying', 'unknown');
create index write_targets_by_state on write_targets (tenant_id, state, accepted_at desc);
create index write_targets_by_remote_id on write_targets (connection_id, remote_id) where remote_id <> '';
create index write_targets_in_order on write_targets (connection_id, order_key, seq)
    where state in ('accepted', 'sending', 'retrying', 'unknown', 'parked') and order_key is not null;
select isolate_by_tenant('write_targets');
select declare_retention('write_targets', 'b', '{"remote_id": "c", "remote_url": "c", "error": "c"}');

-- Keyed hashes of normalised e-mail, phone and remote id: finds a sealed write for erasure.
create table write_subjects (
    tenant_id uuid not null,
    subject_hash bytea not null,
    kind text not null check (kind in ('email', 'phone', 'remote_id')),
    write_id uuid not null,
    primary key (tenant_id, subject_hash, write_id)
);
create index write_subjects_by_write on write_subjects (write_id);
select isolate_by_tenant('write_subjects');
select declare_retention('write_subjects', 'c');

create table attempts (
    id bigint generated always as identity primary key,
    tenant_id uuid not null,
    target_id uuid not null references write_targets (id) on delete cascade,
    connection_id uuid not null,
    number integer not null,
    kind text not null default 'send' check (kind in ('send', 'look_up')),
    batch_id uuid not null,
    batch_size integer not null,
    fence bigint not null,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    outcome text not null check (outcome in ('applied', 'not_applied', 'unknown')),
    code text not null default '',
    subcode text not null default '',
    http_status integer,
    provider_request_id text not null default ''
);
create index attempts_by_target on attempts (target_id, number);
select isolate_by_tenant('attempts');
select declare_retention('attempts', 'b');
