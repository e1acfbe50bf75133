-- The health probe: proves that the server accepts what we write, and that it still has its data. Follows a line that
-- names the command for publishing (`publish`).
--
-- KEYS
--   1 the hash with the data's id, 2 a value, 3 a stream
-- ARGV
--   1 pub/sub channel, 2 known id (or nothing), 3 acknowledged number, 4 number of this probe
--   5 id to create if there is none, 6 node, 7 how many seconds the id is kept, 8 whether to prune (1 or 0)
-- Answers
--   `first`, `same`, `older` or `other`, the id, the number now stored, and the server's time in ms

redis.call('SET', KEYS[2], '1', 'PX', 1000)
redis.call('XADD', KEYS[3], 'MAXLEN', 1, '*', 'e', '1')
redis.call('PEXPIRE', KEYS[3], 1000)
redis.call(publish, ARGV[1], '1')
local known, acknowledged, number = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local field, kept_for = 'n:' .. ARGV[6], tonumber(ARGV[7])
local time = redis.call('TIME')
local now = tonumber(time[1])
redis.call('HSETNX', KEYS[1], 'id', ARGV[5])
local life = redis.call('HGET', KEYS[1], 'id')
local held = tonumber(string.match(redis.call('HGET', KEYS[1], field) or '', '^%d+')) or 0
local word = 'same'
if known == '' then word = 'first'
elseif known ~= life then word = 'other'
elseif held < acknowledged then word = 'older' end
if word ~= 'older' then
  held = math.max(held, number)
  redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f', held, now))
end
redis.call('EXPIRE', KEYS[1], kept_for)
if ARGV[8] == '1' then
  local fields = redis.call('HGETALL', KEYS[1])
  for at = 1, #fields, 2 do
    local seen = string.match(fields[at + 1], '^%d+ (%d+)$')
    if string.sub(fields[at], 1, 2) == 'n:' and (not seen or now - tonumber(seen) > kept_for) then
      redis.call('HDEL', KEYS[1], fields[at])
    end
  end
end
return {word, life, string.format('%.0f', held), string.format('%.0f', now * 1000 + math.floor(tonumber(time[2]) / 1000))}
