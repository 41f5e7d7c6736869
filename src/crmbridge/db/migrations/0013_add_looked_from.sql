-- Since when the look-ups of a target count that a person redrove while it was parked: those from before say nothing of
-- whether the CRM can be asked now. Null until then.
alter table write_targets add column looked_from timestamptz;
select declare_retention('write_targets', 'b', '{"remote_id": "c", "remote_url": "c", "error": "c"}');
