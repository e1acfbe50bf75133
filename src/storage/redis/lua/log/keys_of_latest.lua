-- Part of the scripts of logs, behind `clock`.
--
-- The latest entry of a key is stored as `<its own time>:<time of the append> <offset> <stored form>`, and `ages` has
-- each key by the time of its last append. An older gateway writes neither the second time nor `ages`; then the age
-- counts from when this is noticed. Remembered removals are stored in the same way, in separate keys that an older
-- gateway does not know: the removal of a key until the key has an entry again, the removal of all keys under the empty
-- key. If an older gateway gave a removed key an entry, both are there, and the entry counts.
--
-- `gives_way` tells whether what is stored for a key is older than an entry that waited at its gateway, because others
-- may have been appended elsewhere after that entry was accepted. Within one gateway the sequences decide; between
-- gateways the times, and at equal times the gateways' ids.

local function gives_way(held, time, producer, seq)
  local at, by, number = string.match(held or '', '^(%-?%d+):?%d* %d+ %S+ (%x+)%-(%d+) ')
  if not at then return true end
  if by == producer then return tonumber(number) <= seq end
  at, time = tonumber(at), tonumber(time)
  return at < time or (at == time and by < producer)
end
local function last_of(latest, removed, key)
  return redis.call('HGET', latest, key) or redis.call('HGET', removed, key) or redis.call('HGET', removed, '')
end
local function remove_key(latest, ages, key)
  redis.call('HDEL', latest, key)
  redis.call('ZREM', ages, key)
end
local function remember(removed, removed_ages, key, held, now, max)
  redis.call('HSET', removed, key, held)
  redis.call('ZADD', removed_ages, whole(now), key)
  local over = redis.call('ZCARD', removed_ages) - max
  if over < 1 then return end
  for _, first in ipairs(redis.call('ZRANGE', removed_ages, 0, whole(over - 1))) do
    remove_key(removed, removed_ages, first)
  end
end
local function expire_keys(latest, ages, now, age_ms, may_write)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', whole(now - age_ms), 'LIMIT', 0, 100)) do
    local held = redis.call('HGET', latest, key)
    local appended = held and string.match(held, '^%-?%d+:(%d+) ')
    if not held or (appended and tonumber(appended) <= now - age_ms) then
      remove_key(latest, ages, key)
    elseif may_write then
      local time, rest = string.match(held, '^(%-?%d+)( .*)$')
      if time then redis.call('HSET', latest, key, time .. ':' .. whole(now) .. rest) end
      redis.call('ZADD', ages, appended or whole(now), key)
    end
  end
end
