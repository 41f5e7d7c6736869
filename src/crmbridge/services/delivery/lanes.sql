-- How all lanes stand. A lane without anything due, waiting or paused is left out.
select count(*) filter (where is_due and not is_held and not is_leased and not is_paused) as due,
       count(*) filter (where is_due and is_held and not is_paused) as held_back,
       count(*) filter (where is_paused) as paused,
       count(*) filter (where is_leased) as leased,
       coalesce(extract(epoch from max(clock_timestamp() - since)), 0)::float8 as oldest_seconds
from (
    select is_paused,
           coalesce(next_due <= clock_timestamp(), false) as is_due,
           coalesce(not_before > clock_timestamp(), false) as is_held,
           coalesce(leased_until > clock_timestamp(), false) as is_leased,
           case when least(waiting_since, next_due) <= clock_timestamp() then least(waiting_since, next_due) end
               as since
    from lanes
    where next_due is not null or waiting_since is not null or leased_until > clock_timestamp() or is_paused
) as l
