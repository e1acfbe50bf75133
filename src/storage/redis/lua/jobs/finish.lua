-- Ends a run. Follows `jobs`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id, 2 token, 3 the new state, 4 the wait for `d`, or the error for `x`
--   5 the attempt of the next run (or nothing)
-- Answers
--   `yes`, `cancelled` or `lost`

local id, state = ARGV[1], ARGV[3]
local job = read(id)
if not holds(job, ARGV[2]) then return 'lost' end
if state == 'd' then
  if job.cancelled == '1' then return 'cancelled' end
  if ARGV[5] ~= '' then job.attempt, job.said_by = ARGV[5], job.run end
  stand(id, job, state, now + tonumber(ARGV[4]))
else
  if state == 'x' then job.error = ARGV[4] end
  stand(id, job, state, now)
end
return answer('yes')
