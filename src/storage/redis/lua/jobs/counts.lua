-- Counts the jobs in each state. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   none
-- Answers
--   how many jobs are waiting, delayed, claimed, done and dead

tidy()
local counts = {}
for at = 11, 15 do counts[#counts + 1] = redis.call('ZCARD', KEYS[at]) end
return answer(counts)
