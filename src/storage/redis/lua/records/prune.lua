-- Part of the scripts of records and leases, after `clock`: removes expired ones, some at a time.
--
-- KEYS
--   1 values, 2 keys by bytes, 3 keys by expiry

local values, names, due = KEYS[1], KEYS[2], KEYS[3]
local now = clock()
for _, key in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, 100)) do
  redis.call('HDEL', values, key)
  redis.call('ZREM', names, key)
  redis.call('ZREM', due, key)
end
local function live(value)
  if not value then return nil end
  local expires, content = string.match(value, '^(%d+) (.*)$')
  if tonumber(expires) > now then return content end
end
