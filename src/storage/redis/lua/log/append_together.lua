-- What `append` does, for a log whose entries expire together, as those of an order do: each entry is the latest of its
-- key, removes none, and has no age of its own, so there is less to check. Follows `clock`, `trim` and `rule`, and a
-- line that names the command for publishing (`publish`).
--
-- KEYS
--   1 log, 2 meta, 3 latest
-- ARGV
--   1 epoch, 2 producer, 3 bound on entries, 4 bound on bytes, 5 age in ms, 6 how long the epoch is kept in ms
--   7 pub/sub channel, 8 the server's time in ms when this was sent (or nothing, if unknown)
--   9 whether a log without an epoch begins with this one (1 or 0)
--   from 10, for each entry: seq, prev, time, `k` and its key (or nothing), fencing token (or nothing), whether it is
--   terminal (1 or 0), stored form
-- Answers
--   as `append`
--
-- An order gets several updates within moments, so the expiry of its keys is renewed once a minute, with a minute on
-- top.

local log, meta, latest, epoch = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local producer = 'p:' .. ARGV[2]
local held = redis.call('HMGET', meta, 'e', 's', 'b', producer, 'f', 'c', 't')
local begins = not held[1] and ARGV[9] == '1'
if begins then
  -- Removes what is left of an earlier epoch. If nothing is, the XADD remains the first write.
  if redis.call('EXISTS', log, meta, latest) > 0 then redis.call('DEL', log, meta, latest) end
  held = {epoch, '0', '0'}
end
if held[1] ~= epoch then return {'foreign', held[1] or ''} end
local now = clock()
local now_text, newest = whole(now), held[7] and tonumber(held[7])
local age_ms, kept_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local MINUTE = 60000
local is_told = newest and age_ms >= MINUTE and math.floor(now / MINUTE) == math.floor(newest / MINUTE)
if newest and now - newest >= age_ms then redis.call('DEL', log) end

local top, total = tonumber(held[2]), tonumber(held[3])
local last = held[4] and tonumber(string.match(held[4], '^%d+')) or 0
local fence, closed = tonumber(held[5] or 0), held[6] == '1'
local is_late = ARGV[8] ~= '' and now - tonumber(ARGV[8]) >= 1000
local first, results, frame = top + 1, {'done'}, {}
local newest_of, place_of = {}, {}
for i = 10, #ARGV, 7 do
  local seq, prev, given, entry = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 4]), ARGV[i + 6]
  local refused = verdict(seq, prev, last, given, fence, closed)
  if refused then
    results[#results + 1] = refused
  else
    last, top = seq, top + 1
    fence, closed = given or fence, ARGV[i + 5] == '1'
    local offset = whole(top)
    if is_late then entry = as_late(entry) end
    redis.call('XADD', log, offset .. '-0', 'e', entry, 't', now_text, 'b', whole(total))
    total = total + #entry
    local key = ARGV[i + 3]
    if key ~= '' then
      local at = place_of[key] or #newest_of + 1
      place_of[key], newest_of[at] = at, string.sub(key, 2)
      newest_of[at + 1] = ARGV[i + 2] .. ':' .. now_text .. ' ' .. offset .. ' ' .. entry
    end
    frame[#frame + 1] = #entry .. ':'
    frame[#frame + 1] = entry
    results[#results + 1] = top
  end
end
if top < first then return results end

local is_first = #newest_of > 0 and redis.call('HSET', latest, unpack(newest_of)) > 0
local changed = {'s', whole(top), 'b', whole(total), producer, whole(last) .. ' ' .. now_text, 't', now_text}
local function change(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
if begins then change('e', epoch) end
if fence > tonumber(held[5] or 0) then change('f', whole(fence)) end
if closed then change('c', '1') end
redis.call('HSET', meta, unpack(changed))
if not held[4] and not begins then forget_silent(meta, now, kept_ms) end
-- These counts rule out that there are too many entries, without reading any.
local entries_max, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
if top > entries_max or total > bytes_max then trim(log, now, top, total, entries_max, bytes_max, math.huge) end
local kept = whole(kept_ms + MINUTE)
if not is_told then
  redis.call('PEXPIRE', log, whole(age_ms + MINUTE))
  redis.call('PEXPIRE', meta, kept)
end
if not is_told or is_first then redis.call('PEXPIRE', latest, kept) end
local head = '1 ' .. epoch .. ' ' .. whole(first) .. ' ' .. whole(top - first + 1) .. '\n'
redis.call(publish, ARGV[7], head .. table.concat(frame))
return results
