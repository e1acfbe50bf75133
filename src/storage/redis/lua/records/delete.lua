-- Deletes a record. Follows `clock` and `prune`.
--
-- KEYS
--   as in `prune`
-- ARGV
--   1 key
-- Answers
--   whether there was a value (1 or 0)

local held = live(redis.call('HGET', values, ARGV[1]))
redis.call('HDEL', values, ARGV[1])
redis.call('ZREM', names, ARGV[1])
redis.call('ZREM', due, ARGV[1])
return held and 1 or 0
