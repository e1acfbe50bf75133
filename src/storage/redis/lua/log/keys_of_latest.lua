-- Part of the scripts of logs, behind `clock`.
--
-- The latest entry of a key is `<its own time>:<when it was appended> <offset> <stored form>`, and `ages` has each
-- key by when it was appended to. A gateway of before writes neither the second time nor `ages`: when that was is not
-- known then, and counts from when it is noticed. Removals that are remembered are kept in the same way, in keys of
-- their own, which a gateway of before does not know: that of a key until the key has an entry again, that of all
-- keys under the empty one. Where a gateway of before gave a key an entry, both are there, and the entry counts.
--
-- `gives_way` tells whether what is held of a key is older than an entry that waited at its gateway, since others may
-- have been appended elsewhere after it was accepted. Of one gateway its sequences tell which is newer; of others
-- their time, and where that is the same their gateways' names.

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
