-- Part of the scripts of logs.
--
-- Entries that expire together do so by the time of the newest one, `t` of meta; then no entry has an age of its own.

local function age_of_each(log, now, newest, together, age_ms)
  if not together then return age_ms end
  if newest and now - tonumber(newest) >= age_ms then redis.call('DEL', log) end
  return math.huge
end
