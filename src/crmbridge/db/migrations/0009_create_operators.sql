-- Operators of the console, and their sessions. No tenant, so no tenant policy: the scheduler role's only.

-- email is what one signs in with, in lower case. failed_count and locked_until are counted before a password is looked at,
-- so that attempts at the same moment cannot pass the pause by. oidc_subject: "issuer subject", for sign-in elsewhere.
create table operators (
    id uuid primary key,
    email text not null unique check (email = lower(email) and length(email) between 3 and 200),
    name text not null check (length(name) between 1 and 200),
    role text not null check (role in ('admin', 'operator', 'auditor')),
    password_hash text not null,
    password_changed_at timestamptz not null default now(),
    oidc_subject text unique,
    created_by text not null,
    created_at timestamptz not null default now(),
    disabled_at timestamptz,
    failed_count integer not null default 0,
    locked_until timestamptz,
    signed_in_at timestamptz
);
grant select, insert, update on operators to crmbridge_scheduler;
select declare_retention('operators', 'config');

-- token_hash: SHA-256 of 256 random bits, which only the browser's cookie holds. The row goes when the session ends.
create table operator_sessions (
    id uuid primary key,
    operator_id uuid not null references operators (id),
    token_hash bytea not null unique,
    user_agent text not null default '' check (length(user_agent) <= 100),
    created_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index operator_sessions_by_operator on operator_sessions (operator_id);
create index operator_sessions_by_end on operator_sessions (expires_at);
grant select, insert, update, delete on operator_sessions to crmbridge_scheduler;
select declare_retention('operator_sessions', 'a');
