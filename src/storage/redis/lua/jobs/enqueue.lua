-- Queues a job. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id, 2 payload, 3 `k` and the idempotency key (or nothing), 4 fingerprint, 5 bound on unfinished jobs
--   6 bound on all jobs, 7 how long jobs are kept, 8 kind (or nothing)
-- Answers
--   `queued`, `repeated` and the job, `conflict`, or `full`

local id, payload, key, fingerprint = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local unfinished_max, kept_max = tonumber(ARGV[5]), tonumber(ARGV[6])
kept_for = tonumber(ARGV[7])
if key ~= '' then
  -- Old keys must not lead to jobs any more.
  forget_over()
  key = string.sub(key, 2)
  local used = redis.call('HGET', keys, key)
  if used then
    if string.sub(used, #id + 2) == fingerprint then return answer({'repeated', string.sub(used, 1, #id)}) end
    return answer({'conflict'})
  end
else
  key = nil
end
if redis.call('HEXISTS', parts, id) == 1 then return answer({'repeated', id}) end
local waiting = redis.call('ZCARD', by_state.w)
local unfinished = waiting + redis.call('ZCARD', by_state.d) + redis.call('ZCARD', by_state.c)
if unfinished >= unfinished_max then return answer({'full'}) end
local jobs = redis.call('HLEN', parts)

local place = math.max(last_place + 1, now)
redis.call('HSET', fixed, id, whole(now) .. ' ' .. (key and #key or '-') .. ' ' .. (key or '') .. payload)
write_first(id, {state = 'w', run = '0', token = '0', cancelled = '0', committed = '0', changed = whole(now),
  place = whole(place), attempt = '0', said_by = '0', kind = ARGV[8]}, jobs)
for _, key in ipairs({ready, by_state.w, ages}) do redis.call('ZADD', key, whole(place), id) end
if waiting == 0 then added[ready], added[by_state.w] = true, true end
complete(id, place, key, fingerprint, now, jobs, kept_max)
return answer({'queued'})
