-- Appends updates to the list of an order, and publishes them. An update that the list already has is not added again,
-- so the call can be repeated.
--
-- KEYS
--   1 the list
-- ARGV
--   1 pub/sub channel, 2 how many updates are kept, 3 for how many seconds
--   from 4, updates
-- Answers
--   1

local list, held = KEYS[1], {}
for _, update in ipairs(redis.call('LRANGE', list, '-' .. ARGV[2], -1)) do held[update] = true end
for i = 4, #ARGV do
  if not held[ARGV[i]] then
    held[ARGV[i]] = true
    redis.call('RPUSH', list, ARGV[i])
    redis.call('LTRIM', list, '-' .. ARGV[2], -1)
    redis.call('EXPIRE', list, ARGV[3])
    redis.call('PUBLISH', ARGV[1], ARGV[i])
  end
end
return 1
