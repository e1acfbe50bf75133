-- Acquires a lease, or renews it. Follows `clock` and `prune`. Fencing tokens are never below the time, so they grow
-- even if the last one was lost.
--
-- KEYS
--   as in `prune`, 4 the last fencing token
-- ARGV
--   1 key, 2 holder, 3 time to live in ms
-- Answers
--   the fencing token, or 0 if another holder has the lease

local ttl, fence, holder = tonumber(ARGV[3]), nil, nil
local held = live(redis.call('HGET', values, ARGV[1]))
if held then
  fence, holder = string.match(held, '^(%d+) (.*)$')
  if holder ~= ARGV[2] then return '0' end
else
  fence = whole(math.max(now, tonumber(redis.call('HGET', KEYS[4], 'fence') or 0) + 1))
  redis.call('HSET', KEYS[4], 'fence', fence)
  redis.call('PEXPIRE', KEYS[4], '2592000000')
end
redis.call('HSET', values, ARGV[1], whole(now + ttl) .. ' ' .. fence .. ' ' .. ARGV[2])
redis.call('ZADD', names, 0, ARGV[1])
redis.call('ZADD', due, whole(now + ttl), ARGV[1])
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], whole(ttl)) end
end
return fence
