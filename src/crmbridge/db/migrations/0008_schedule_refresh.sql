-- Tokens are renewed ahead of their expiry, over all tenants: the scheduler sees which are due, and nothing else of a
-- credential. refresh_due_at is set for grants that can be renewed without a person.
create index tenant_credentials_by_refresh on tenant_credentials (refresh_due_at)
    where status = 'active' and refresh_due_at is not null;
create policy scheduler_due on tenant_credentials for select to crmbridge_scheduler using (true);
grant select (id, tenant_id, status, refresh_due_at) on tenant_credentials to crmbridge_scheduler;
