-- Reads the state of a log, and gives it an epoch if it has none. Follows `clock`.
--
-- KEYS
--   1 log, 2 meta, 3 latest, 4 ages, 5 removed, 6 ages of removed
-- ARGV
--   1 the epoch for a log that has none (or nothing, to create none), 2 how long it is kept in ms, 3 producer
--   4 an offset, 5 how long producers may have been silent in ms
-- Answers
--   the epoch in force, the newest offset, the stored state of the producer (or nothing), offset and stored form of the
--   entry at the given offset or, if that is not kept, of the newest one (or nothing), then each producer that was not
--   silent for longer, and its stored state; nothing at all if there is no epoch and none is created

local held = redis.call('HMGET', KEYS[2], 'e', 's', 'p:' .. ARGV[3])
if held[1] then
  local at = whole(math.min(tonumber(held[2]), tonumber(ARGV[4]))) .. '-0'
  local found = redis.call('XRANGE', KEYS[1], at, at)[1]
  if not found then found = redis.call('XRANGE', KEYS[1], held[2] .. '-0', '+', 'COUNT', 1)[1] end
  local answer = {held[1], held[2], held[3] or '', '0', ''}
  if found then answer[4], answer[5] = string.match(found[1], '^%d+'), found[2][2] end
  local all = redis.call('HGETALL', KEYS[2])
  local silent_ms, now = tonumber(ARGV[5]), clock()
  for i = 1, #all, 2 do
    local seen = string.match(all[i + 1], '^%d+ (%d+)$')
    if string.sub(all[i], 1, 2) == 'p:' and (not seen or now - tonumber(seen) < silent_ms) then
      answer[#answer + 1] = string.sub(all[i], 3)
      answer[#answer + 1] = all[i + 1]
    end
  end
  return answer
end
if ARGV[1] == '' then return {} end
redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[2], 'e', ARGV[1], 's', '0', 'b', '0')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {ARGV[1], '0', '', '0', ''}
