-- Since when the oldest undelivered write of a lane waits: lets the scheduler see a lane that is a day behind
-- without reading any tenant's writes. Set when a drain frees the lane, null when nothing is left.
alter table lanes add column waiting_since timestamptz;
select declare_retention('lanes', 'a');
