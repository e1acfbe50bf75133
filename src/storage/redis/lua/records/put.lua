-- Stores a record. Follows `clock` and `prune`.
--
-- KEYS
--   as in `prune`
-- ARGV
--   1 key, 2 value, 3 time to live in ms
-- Answers
--   1

local ttl = tonumber(ARGV[3])
redis.call('HSET', values, ARGV[1], whole(now + ttl) .. ' ' .. ARGV[2])
redis.call('ZADD', names, 0, ARGV[1])
redis.call('ZADD', due, whole(now + ttl), ARGV[1])
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, whole(ttl)) end
end
return 1
