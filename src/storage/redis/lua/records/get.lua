-- Reads a record. Follows `clock` and `prune`.
--
-- KEYS
--   as in `prune`
-- ARGV
--   1 key
-- Answers
--   the value, or nil

return live(redis.call('HGET', values, ARGV[1])) or false
