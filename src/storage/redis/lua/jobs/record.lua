-- Records a job that a node kept while the server was away. Follows `jobs` and `tidy`. Raises the newest token above
-- tokens that were given out without the server.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id, 2 payload, 3 `k` and the idempotency key (or nothing), 4 fingerprint, 5 state, 6 run, 7 token
--   8 whether it was cancelled, 9 whether it was committed, 10 error, 11 how long ago it was queued
--   12 how long ago its state changed, 13 the time by which its state is sorted, relative to now (negative in the past)
--   14 bound on all jobs, 15 how long jobs are kept, 16 the attempt, 17 the run that stated it, 18 kind (or nothing)
-- Answers
--   `recorded`, now or before; or, if the key leads to another job, `taken`, that job, and whether this one is
--   cancelled because of it, which is so if the requests are the same and this job had not been started

local id, payload, key, fingerprint, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job = {state = state, run = ARGV[6], token = ARGV[7], cancelled = ARGV[8], committed = ARGV[9], error = ARGV[10],
  attempt = ARGV[16], said_by = ARGV[17], kind = ARGV[18]}
local queued, kept_max = now - tonumber(ARGV[11]), tonumber(ARGV[14])
job.changed = whole(now - tonumber(ARGV[12]))
local score = now + tonumber(ARGV[13])
kept_for = tonumber(ARGV[15])
tidy()
local taken_by, is_same
if key ~= '' then
  key = string.sub(key, 2)
  local used = redis.call('HGET', keys, key)
  if used and string.sub(used, 1, #id) ~= id then
    taken_by, is_same = string.sub(used, 1, #id), string.sub(used, #id + 2) == fingerprint
    key = nil
  end
else
  key = nil
end
local known = read(id)
if known then
  if taken_by then return answer({'taken', taken_by, known.cancelled}) end
  return answer({'recorded'})
end
if is_same and job.run == '0' and (state == 'w' or state == 'd') then
  job.cancelled, job.state = '1', 'w'
end
if job.state == 'w' and job.cancelled == '1' then score = now - 9007199254740992 end
local jobs = redis.call('HLEN', parts)

local place = math.max(last_place + 1, now)
job.place = whole(place)
redis.call('HSET', fixed, id, whole(queued) .. ' ' .. (key and #key or '-') .. ' ' .. (key or '') .. payload)
write_first(id, job, jobs)
add(sorted_in[job.state], score, id)
add(by_state[job.state], place, id)
add(ages, place, id)
if tonumber(job.token) > last_token then set_meta('token', job.token) end
complete(id, place, key, fingerprint, queued, jobs, kept_max)
if taken_by then return answer({'taken', taken_by, job.cancelled}) end
return answer({'recorded'})
