-- Lists the keys that have a latest entry. Follows `clock` and `keys_of_latest`.
--
-- KEYS
--   1 latest, 2 ages, 3 meta, 4 removed, 5 ages of removed
-- ARGV
--   1 the age of keys in ms (or nothing, if they have none)
--   2 how long removals are remembered in ms (or nothing, if they are not wanted)
-- Answers
--   the epoch (or nothing), the newest offset, and in no order the keys that have a latest entry or a remembered
--   removal; some may be listed twice

local latest, ages = KEYS[1], KEYS[2]
if ARGV[1] ~= '' then expire_keys(latest, ages, clock(), tonumber(ARGV[1]), false) end
local log = redis.call('HMGET', KEYS[3], 'e', 's')
local answer, keys = {log[1] or '', log[2] or '0'}, nil
-- An older gateway may have written keys without ages.
if redis.call('HLEN', latest) == redis.call('ZCARD', ages) then
  keys = redis.call('ZRANGE', ages, 0, -1)
else
  keys = redis.call('HKEYS', latest)
end
for _, key in ipairs(keys) do answer[#answer + 1] = key end
if ARGV[2] ~= '' then
  expire_keys(KEYS[4], KEYS[5], clock(), tonumber(ARGV[2]), false)
  for _, key in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do answer[#answer + 1] = key end
end
return answer
