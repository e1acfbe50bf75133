-- Reads the latest entries of some keys.
--
-- KEYS
--   1 latest, 2 meta, 3 removed
-- ARGV
--   1 bound on bytes, 2 whether the first one is wanted in any case, 3 whether removals are wanted too
--   from 4, keys
-- Answers
--   how many of the keys were checked, the epoch (or nothing), the newest offset, and the latest entries of these keys,
--   or their removals

local log = redis.call('HMGET', KEYS[2], 'e', 's')
local answer, bytes, max = {0, log[1] or '', tonumber(log[2] or 0)}, 0, tonumber(ARGV[1])
for i = 4, #ARGV do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if not held and ARGV[3] == '1' then held = redis.call('HGET', KEYS[3], ARGV[i]) end
  if held then
    if bytes + #held > max and (#answer > 3 or ARGV[2] ~= '1') then break end
    bytes = bytes + #held
    answer[#answer + 1] = held
  end
  answer[1] = i - 3
end
return answer
