-- Part of the scripts that append to a log.
--
-- `verdict` is the answer for an entry that the log does not accept; nothing for one that it accepts. `last` is the
-- newest sequence of the entry's producer, and `prev` the sequence that has to precede it.
--
-- `as_late` is the stored form of an entry, marked as late.
--
-- `forget_silent` removes producers from meta that have been silent for `for_ms`. If every entry has its own producer,
-- as outside updates do, there are many: checking all of them is worth its cost only now and then.

local function verdict(seq, prev, last, given, fence, closed)
  if seq <= last then return 0 end
  if prev > last then return -(last + 1) end
  if closed then return 'closed' end
  if given and given < fence then return 'fence ' .. whole(fence) end
end

local function as_late(entry)
  if string.find(string.match(entry, '^%S*'), 'l', 1, true) then return entry end
  return string.sub(entry, 1, 1) .. 'l' .. string.sub(entry, 2)
end

local function forget_silent(meta, now, for_ms)
  local fields = redis.call('HLEN', meta)
  if fields <= 16 or (fields >= 64 and fields % 64 ~= 0) then return end
  local all = redis.call('HGETALL', meta)
  for i = 1, #all, 2 do
    local seen = string.match(all[i + 1], '^%d+ (%d+)$')
    if seen and string.sub(all[i], 1, 2) == 'p:' and now - tonumber(seen) > for_ms then
      redis.call('HDEL', meta, all[i])
    end
  end
end

