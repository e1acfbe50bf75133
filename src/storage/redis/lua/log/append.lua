-- Appends entries of one producer, and publishes them; for entries that expire together, `append_together` does.
-- Follows `clock`, `trim`, `rule` and `keys_of_latest`, and a line that names the command for publishing (`publish`).
--
-- KEYS
--   1 log, 2 meta, 3 latest, 4 ages, 5 removed, 6 ages of removed
-- ARGV
--   1 epoch, 2 producer, 3 bound on entries, 4 bound on bytes, 5 age in ms, 6 how long the epoch is kept in ms
--   7 pub/sub channel, 8 the server's time in ms when this was sent (or nothing, if unknown)
--   9 whether a log without an epoch begins with this one (1 or 0), 10 the age of keys in ms
--   11 how long removals are remembered in ms, 12 how many
--   from 13, for each entry: seq, prev, time, effect on the latest entries, fencing token (or nothing), whether it is
--   terminal (1 or 0), stored form
-- Answers
--   `foreign` and the epoch in force (or nothing); or `done` and for each entry its offset, 0 for a duplicate,
--   -(last + 1) for a gap, `closed`, or `fence` and the newest fencing token
--
-- The effect on the latest entries is `k` and a key if the entry is the latest of that key, `r` and a key if it removes
-- that key, `z` if it removes all keys; the same in capitals if the entry is compared by time, as one that waited at
-- its gateway is; or nothing.
--
-- An entry that arrives a second or more after it was sent is marked late: its gateway may have given it up long
-- before, and continued without it.
--
-- The first write is the XADD, which a server that is out of memory refuses; writes after the first one are not
-- refused, so no batch is half applied.

local log, meta, latest, ages, removed, removed_ages = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local producer = 'p:' .. ARGV[2]
local held = redis.call('HMGET', meta, 'e', 's', 'b', producer, 'f', 'c', 'a')
local begins = not held[1] and ARGV[9] == '1'
if begins then
  -- Removes what is left of an earlier epoch. If nothing is, the XADD remains the first write.
  if redis.call('EXISTS', unpack(KEYS)) > 0 then redis.call('DEL', unpack(KEYS)) end
  held = {ARGV[1], '0', '0'}
end
if held[1] ~= ARGV[1] then return {'foreign', held[1] or ''} end
local now = clock()
local top, total = tonumber(held[2]), tonumber(held[3])
local last = held[4] and tonumber(string.match(held[4], '^%d+')) or 0
local fence, closed = tonumber(held[5] or 0), held[6] == '1'
local age_ms, kept_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local first = top + 1
local results, frame = {'done'}, {}
local key_age_ms, now_text = tonumber(ARGV[10]), whole(now)
local is_late = ARGV[8] ~= '' and now - tonumber(ARGV[8]) >= 1000
local removed_ms, removed_max = tonumber(ARGV[11]), tonumber(ARGV[12])
-- Most zones remember no removals.
local has_removed = redis.call('EXISTS', removed) == 1
local has_new, removes = false, false
for i = 13, #ARGV, 7 do
  local seq, prev, time, key = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local given, entry = tonumber(ARGV[i + 4]), ARGV[i + 6]
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
    local what, name = string.sub(key, 1, 1), string.sub(key, 2)
    local is_compared = is_late or string.find(what, '%u')
    what = string.lower(what)
    local function is_newer(held) return not is_compared or gives_way(held, time, ARGV[2], seq) end
    if what == 'z' then
      if is_compared then
        for _, of in ipairs({{latest, ages}, {removed, removed_ages}}) do
          local all = redis.call('HGETALL', of[1])
          for k = 1, #all, 2 do
            if is_newer(all[k + 1]) then remove_key(of[1], of[2], all[k]) end
          end
        end
      else
        redis.call('DEL', latest, ages, removed, removed_ages)
      end
    end
    if what ~= '' and is_newer(is_compared and last_of(latest, removed, name)) then
      local held = time .. ':' .. now_text .. ' ' .. offset .. ' ' .. entry
      if what ~= 'k' then
        remove_key(latest, ages, name)
        remember(removed, removed_ages, name, held, now, removed_max)
        has_removed, removes = true, true
      else
        has_new = redis.call('HSET', latest, name, held) == 1 or has_new
        redis.call('ZADD', ages, now_text, name)
        if has_removed then remove_key(removed, removed_ages, name) end
      end
    end
    frame[#frame + 1] = #entry .. ':'
    frame[#frame + 1] = entry
    results[#results + 1] = top
  end
end
if top < first then return results end

local changed = {'s', whole(top), 'b', whole(total), producer, whole(last) .. ' ' .. now_text}
local function change(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
if begins then change('e', ARGV[1]) end
if fence > tonumber(held[5] or 0) then change('f', whole(fence)) end
if closed then change('c', '1') end
redis.call('HSET', meta, unpack(changed))
if not held[4] and not begins then forget_silent(meta, now, kept_ms) end
local entries_max, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
trim(log, now, top, total, entries_max, bytes_max, age_ms)
-- Once a minute is often enough to check all keys, and to remove those that expire: readers of the keys skip expired
-- ones.
if now - tonumber(held[7] or 0) >= math.min(60000, key_age_ms) then
  redis.call('HSET', meta, 'a', now_text)
  if redis.call('HLEN', latest) ~= redis.call('ZCARD', ages) then
    local all = redis.call('HGETALL', latest)
    for k = 1, #all, 2 do redis.call('ZADD', ages, 'NX', now_text, all[k]) end
    has_new = true
  end
  expire_keys(latest, ages, now, key_age_ms, true)
  if has_removed then expire_keys(removed, removed_ages, now, removed_ms, true) end
end
-- The expiry of the keys is renewed, with half the age of entries on top, when less than that age is left, or when one
-- of the keys is new.
local is_due = redis.call('PTTL', log) < age_ms
local kept = whole(kept_ms + age_ms / 2)
if is_due then
  redis.call('PEXPIRE', log, whole(age_ms + age_ms / 2))
  redis.call('PEXPIRE', meta, kept)
end
if is_due or has_new then
  redis.call('PEXPIRE', latest, kept)
  redis.call('PEXPIRE', ages, kept)
end
if has_removed and (is_due or removes) then
  redis.call('PEXPIRE', removed, kept)
  redis.call('PEXPIRE', removed_ages, kept)
end
local head = '1 ' .. held[1] .. ' ' .. whole(first) .. ' ' .. whole(top - first + 1) .. '\n'
redis.call(publish, ARGV[7], head .. table.concat(frame))
return results
