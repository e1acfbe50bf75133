-- Part of the scripts of logs, after `clock`.
--
-- `trim` removes the oldest entries as soon as a bound is exceeded, and returns the oldest offset that is kept. Each
-- entry has the number of bytes before it and the time of its append, and offsets are contiguous, so the place to cut
-- is found by doubling steps from the oldest: with a handful of look-ups, however many entries are removed.

local function trim(log, now, top, total, entries_max, bytes_max, age_ms)
  local function at(offset)
    local found = redis.call('XRANGE', log, whole(offset) .. '-0', '+', 'COUNT', 1)[1]
    if not found then return nil end
    return tonumber(string.match(found[1], '^%d+')), tonumber(found[2][4]), tonumber(found[2][6])
  end
  local function keeps(offset, appended, before)
    return top - offset < entries_max and now - appended < age_ms and total - before <= bytes_max
  end
  local function stays(offset)
    if top - offset >= entries_max then return false end
    local _, appended, before = at(offset)
    return appended ~= nil and keeps(offset, appended, before)
  end
  local oldest, appended, before = at(0)
  if not oldest then return top + 1 end
  if keeps(oldest, appended, before) then return oldest end
  local gone, step = oldest, 1
  while gone + step <= top and not stays(gone + step) do
    gone = gone + step
    step = step * 2
  end
  local first = math.min(gone + step, top + 1)
  while first - gone > 1 do
    local middle = math.floor((first + gone) / 2)
    if stays(middle) then first = middle else gone = middle end
  end
  redis.call('XTRIM', log, 'MINID', whole(first) .. '-0')
  return first
end
