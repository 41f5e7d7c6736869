-- How many more fit, and the moment up to which was looked.
select count(*) as left, coalesce($10::timestamptz, clock_timestamp()) as until
from write_targets t join writes w on w.id = t.write_id where {fits}
