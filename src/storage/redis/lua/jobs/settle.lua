-- Takes a dead letter off the list. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id
-- Answers
--   whether it was a dead letter (1 or 0)

tidy()
local id = ARGV[1]
local job = read(id)
if not job or job.state ~= 'x' then return answer(0) end
job.error = ''
stand(id, job, 'o', tonumber(redis.call('ZSCORE', ended, id)))
return answer(1)
