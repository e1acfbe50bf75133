-- Reads a record. Behind `clock` and `prune`.
--
-- KEYS
--   those of `prune`
-- ARGV
--   1 key
-- Answers
--   the value, or nil

return live(redis.call('HGET', values, ARGV[1])) or false
