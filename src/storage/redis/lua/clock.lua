-- Part of most scripts: the server's time in ms, and numbers as text, because Lua's default conversion of large ones is
-- not exact.

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function whole(number) return string.format('%.0f', number) end
