-- Lists jobs, the newest first. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 state (or nothing), 2 the job before which to begin (or nothing), 3 limit
-- Answers
--   for each job the answer of `job`

tidy()
local index = by_state[ARGV[1]] or ages
local before = read(ARGV[2])
local below = before and '(' .. before.place or '+inf'
local page = {}
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', index, below, '-inf', 'LIMIT', 0, ARGV[3])) do
  view(id, page)
end
return answer(page)
