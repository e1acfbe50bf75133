-- Begins each script of jobs: names, and how a job changes its state.
--
-- KEYS
--   1 fixed, 2 parts, 3 keys, 4 ages of keys, 5 ready, 6 delayed, 7 leases, 8 ended, 9 ages, 10 meta, 11 waiting
--   12 delays, 13 claimed, 14 done, 15 dead
--
-- All keys expire at the same moment, within an hour of a week after the last use of any of them; so they vanish
-- together, and never while somebody asks for work.

local fixed, parts, keys, key_ages, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[10]
local ready, delayed, leases, ended, ages = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local by_state = {w = KEYS[11], d = KEYS[12], c = KEYS[13], o = KEYS[14], x = KEYS[15]}
local sorted_in = {w = ready, d = delayed, c = leases, o = ended, x = ended}
local AT_ONCE, HOUR, WEEK = 500, 3600000000, 604800000000

local function whole(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local held = redis.call('HMGET', meta, 'expires', 'place', 'token', 'kept_for', 'tidied')
local expires, last_place, last_token = tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
local kept_for = tonumber(held[4])

local added = {}
-- A key that already had content has an expiry.
local function add(key, score, member)
  redis.call('ZADD', key, whole(score), member)
  if redis.call('ZCARD', key) == 1 then added[key] = true end
end
local function set(key, field, value)
  redis.call('HSET', key, field, value)
  if redis.call('HLEN', key) == 1 then added[key] = true end
end
-- The same for meta, which has an expiry if it exists.
local function set_meta(field, value)
  if not held[1] then added[meta] = true end
  redis.call('HSET', meta, field, value)
end
local function answer(value)
  if expires < now + WEEK - HOUR and redis.call('EXISTS', parts) == 1 then
    expires = now + WEEK
    set_meta('expires', whole(expires))
    for _, key in ipairs(KEYS) do added[key] = true end
  end
  for key in pairs(added) do redis.call('PEXPIREAT', key, whole(math.floor(expires / 1000))) end
  return value
end

local function parse(text)
  if not text then return nil end
  local job, more = {error = '', attempt = '0', said_by = '0', kind = ''}, nil
  job.state, job.run, job.token, job.cancelled, job.committed, job.changed, job.place, more =
    string.match(text, '^(%l) (%d+) (%d+) (%d) (%d) (%d+) (%d+) (.*)$')
  if job.state == 'x' then
    job.error = more
  else
    local attempt, said_by, kind = string.match(more, '^@(%d+) (%d+) (.*)$')
    if attempt then job.attempt, job.said_by, job.kind = attempt, said_by, kind end
  end
  return job
end
local function read(id) return parse(redis.call('HGET', parts, id)) end
local function stored(job)
  local more = job.error
  if job.state ~= 'x' then more = '@' .. job.attempt .. ' ' .. job.said_by .. ' ' .. job.kind end
  local text = {job.state, job.run, job.token, job.cancelled, job.committed, job.changed, job.place, more}
  return table.concat(text, ' ')
end
-- For an existing job.
local function write(id, job) redis.call('HSET', parts, id, stored(job)) end
-- For a new job.
local function write_first(id, job, jobs)
  write(id, job)
  if jobs == 0 then added[fixed], added[parts], added[ages] = true, true, true end
end
local function stand(id, job, state, score)
  redis.call('ZREM', sorted_in[job.state], id)
  redis.call('ZREM', by_state[job.state], id)
  job.state, job.changed = state, whole(now)
  write(id, job)
  add(sorted_in[state], score, id)
  add(by_state[state], tonumber(job.place), id)
end
local function holds(job, token) return job and job.state == 'c' and job.token == token end

local function parse_fixed(text)
  if not text then return nil end
  local queued, key_len, at = string.match(text, '^(%d+) (%S+) ()')
  if key_len == '-' then return queued, nil, string.sub(text, at) end
  local payload_at = at + tonumber(key_len)
  return queued, string.sub(text, at, payload_at - 1), string.sub(text, payload_at)
end
local function read_fixed(id) return parse_fixed(redis.call('HGET', fixed, id)) end
local function show(page, id, job, queued, payload)
  local values = {id, job.state, job.run, job.token, job.cancelled, job.committed, queued, job.changed, job.error,
    job.attempt, job.said_by, job.kind, payload}
  for _, value in ipairs(values) do page[#page + 1] = value end
end
local function view(id, page)
  local job = read(id)
  local queued, _, payload = read_fixed(id)
  if job and queued then show(page, id, job, queued, payload) end
end
