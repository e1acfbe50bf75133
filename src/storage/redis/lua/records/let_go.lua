-- Releases a lease. Follows `clock` and `prune`.
--
-- KEYS
--   as in `hold`
-- ARGV
--   1 key, 2 holder
-- Answers
--   1

local held = live(redis.call('HGET', values, ARGV[1]))
if held and string.match(held, '^%d+ (.*)$') == ARGV[2] then
  redis.call('HDEL', values, ARGV[1])
  redis.call('ZREM', names, ARGV[1])
  redis.call('ZREM', due, ARGV[1])
end
return 1
