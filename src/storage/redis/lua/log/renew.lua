-- Replaces the epoch of a log.
--
-- KEYS
--   1 meta
-- ARGV
--   1 expected epoch, 2 new epoch
-- Answers
--   the epoch in force (or nothing)

local held = redis.call('HGET', KEYS[1], 'e')
if held ~= ARGV[1] then return held or '' end
redis.call('HSET', KEYS[1], 'e', ARGV[2])
return ARGV[2]
