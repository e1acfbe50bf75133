-- Reads entries, some at a time, so that large ones beyond the bound on bytes are not read. Follows `clock`, `trim` and
-- `together`, because entries of a log without appends still expire.
--
-- KEYS
--   1 log, 2 meta
-- ARGV
--   1 offset, 2 limit, 3 bound on entries, 4 bound on bytes, 5 age in ms, 6 whether entries expire together
--   7 the epoch of the offset (or nothing, for any), 8 the most bytes to read
-- Answers
--   epoch (or nothing), newest offset, oldest offset that is kept, whether the log is closed and, if the epoch is the
--   given one, offset and stored form of each entry

local held = redis.call('HMGET', KEYS[2], 'e', 's', 'b', 'c', 't')
if not held[1] then return {'', 0, 1, 0} end
local top, total = tonumber(held[2]), tonumber(held[3])
local now = clock()
local age_ms = age_of_each(KEYS[1], now, held[5], ARGV[6] == '1', tonumber(ARGV[5]))
local first = trim(KEYS[1], now, top, total, tonumber(ARGV[3]), tonumber(ARGV[4]), age_ms)
local page = {held[1], top, first, held[4] == '1' and 1 or 0}
local from, limit = tonumber(ARGV[1]) + 1, tonumber(ARGV[2])
if ARGV[7] ~= '' and held[1] ~= ARGV[7] then return page end
local left = tonumber(ARGV[8])
while limit > 0 and from <= top do
  local found = redis.call('XRANGE', KEYS[1], whole(from) .. '-0', '+', 'COUNT', whole(math.min(limit, 64)))
  if #found == 0 then return page end
  for _, item in ipairs(found) do
    local entry = item[2][2]
    if #entry > left and #page > 4 then return page end
    left = left - #entry
    from = tonumber(string.match(item[1], '^%d+'))
    page[#page + 1] = from
    page[#page + 1] = entry
  end
  from, limit = from + 1, limit - #found
end
return page
