-- How many jobs there are in each state. Behind `jobs` and `tidy`.
--
-- KEYS
--   those of `jobs`
-- ARGV
--   none
-- Answers
--   how many are waiting, delayed, claimed, done and dead

tidy()
local counts = {}
for at = 11, 15 do counts[#counts + 1] = redis.call('ZCARD', KEYS[at]) end
return answer(counts)
