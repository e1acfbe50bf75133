-- Lists records by key. Follows `clock` and `prune`.
--
-- KEYS
--   as in `prune`
-- ARGV
--   1 where to begin (`-` or `(<key>`), 2 limit
-- Answers
--   keys and values in turn

local page, from, limit = {}, ARGV[1], tonumber(ARGV[2])
while #page < 2 * limit do
  local found = redis.call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, whole(limit))
  for _, key in ipairs(found) do
    local value = live(redis.call('HGET', values, key))
    if value and #page < 2 * limit then
      page[#page + 1] = key
      page[#page + 1] = value
    end
    from = '(' .. key
  end
  if #found < limit then break end
end
return page
