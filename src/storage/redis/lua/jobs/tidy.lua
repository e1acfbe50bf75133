-- Part of the scripts of jobs, after `jobs`: performs changes that are due, some jobs at a time. A job of which a part
-- is missing is lost, because the server was allowed to evict keys; the rest of it is removed when a script finds it.

local function forget_key(key)
  redis.call('HDEL', keys, key)
  redis.call('ZREM', key_ages, key)
end
local function forget(id)
  local queued, key = read_fixed(id)
  local job = read(id)
  if job and queued then
    redis.call('ZREM', sorted_in[job.state], id)
    redis.call('ZREM', by_state[job.state], id)
  else
    for _, index in pairs(sorted_in) do redis.call('ZREM', index, id) end
    for _, index in pairs(by_state) do redis.call('ZREM', index, id) end
  end
  redis.call('ZREM', ages, id)
  redis.call('HDEL', fixed, id)
  redis.call('HDEL', parts, id)
  if key then
    local used = redis.call('HGET', keys, key)
    if used and string.sub(used, 1, #id) == id then forget_key(key) end
  end
end
local function release_due()
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, AT_ONCE)
  for i = 1, #due, 2 do
    local job = read(due[i])
    if job then stand(due[i], job, 'w', tonumber(due[i + 1])) else forget(due[i]) end
  end
end
local function forget_over()
  if not kept_for then return end
  local over = whole(now - kept_for)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ended, '-inf', over, 'LIMIT', 0, AT_ONCE)) do forget(id) end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', key_ages, '-inf', over, 'LIMIT', 0, AT_ONCE)) do forget_key(key) end
end
local function tidy()
  release_due()
  forget_over()
end
-- Completes the addition of a job, before which there were `jobs`: notes its place and its idempotency key, if it has
-- one, and forgets the oldest jobs that ended beyond the bound on all jobs.
local function complete(id, place, key, fingerprint, queued, jobs, kept_max)
  set_meta('place', whole(place))
  if tonumber(held[4]) ~= kept_for then set_meta('kept_for', whole(kept_for)) end
  if key then
    set(keys, key, id .. ' ' .. fingerprint)
    add(key_ages, queued, key)
  end
  local excess = math.min(jobs + 1 - kept_max, AT_ONCE)
  if excess > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', ended, 0, excess - 1)) do forget(oldest) end
  end
end
