-- Reads one job. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id
-- Answers
--   id, state, run, token, whether it was cancelled, whether it was committed, when it was queued, when its state
--   changed, error, the attempt, the run that stated it, kind, payload; or nothing

tidy()
local page = {}
view(ARGV[1], page)
return answer(page)
