-- Claims jobs for a process that executes them. Follows `jobs` and `tidy`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 limit, 2 lease, 3 kind, 4 the claiming process, 5 the number of this claim
--   6 the number up to which the process knows the outcome of its claims
-- Answers
--   for each job the answer of `job`
--
-- Jobs of other kinds that come first are passed over, some hundred at a time; so only if workers of several kinds
-- share the queue, a call visits more jobs than it returns.
--
-- A process makes one claim after the other. `by:<process>` of meta is its last claim that got jobs, with the tokens of
-- these jobs. If the process does not know that claim's outcome, the answer was lost: its jobs wait again as if it had
-- not happened. After a lost answer, `by:<process>` is also set by the next claim, whatever it gets, so a claim that
-- arrives after its successor gets nothing.

release_due()
-- Removing what is too old once a second is often enough.
local forgets = now - tonumber(held[5] or 0) >= 1000000
if forgets then forget_over() end
local limit, lease_ends, kind = tonumber(ARGV[1]), now + tonumber(ARGV[2]), ARGV[3]
local by, number, known = 'by:' .. ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local before = redis.call('HGET', meta, by)
if before then
  local last, from, to = string.match(before, '^(%d+) (%d+) (%d+)$')
  last, from, to = tonumber(last), tonumber(from), tonumber(to)
  if number <= last then return answer({}) end
  if last > known then
    local all = redis.call('ZRANGE', by_state.c, 0, -1)
    for at = 1, #all, AT_ONCE do
      local page = {unpack(all, at, math.min(at + AT_ONCE - 1, #all))}
      for i, text in ipairs(redis.call('HMGET', parts, unpack(page))) do
        local job = parse(text)
        local token = job and job.state == 'c' and tonumber(job.token) or 0
        if token >= from and token <= to then
          job.run = whole(tonumber(job.run) - 1)
          stand(page[i], job, 'w', job.cancelled == '1' and now - 9007199254740992 or tonumber(job.place))
        end
      end
    end
  end
end
local ids, jobs = {}, {}
local function gather(key, from, to)
  local at, count = 0, limit - #ids
  while #ids < limit do
    local page = redis.call('ZRANGEBYSCORE', key, from, to, 'LIMIT', at, count)
    if #page == 0 then return end
    for i, text in ipairs(redis.call('HMGET', parts, unpack(page))) do
      local job = parse(text)
      if not job or job.kind == '' or job.kind == kind then
        ids[#ids + 1], jobs[page[i]] = page[i], job
        if #ids == limit then return end
      end
    end
    if #page < count then return end
    at, count = at + #page, AT_ONCE
  end
end
-- Cancelled jobs, whose scores are negative, go first; then jobs whose leases ran out, which are rare.
if #redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', 0, 1) == 0 then
  gather(ready, '-inf', '+inf')
else
  gather(ready, '-inf', '(0')
  gather(leases, '-inf', whole(now))
  gather(ready, '0', '+inf')
end
local function append(list, one, other)
  list[#list + 1] = one
  list[#list + 1] = other
end
local first_token = math.max(last_token + 1, now)
local page, left, texts, leased, claimed = {}, {}, {}, {}, {}
local fixed_of = #ids > 0 and redis.call('HMGET', fixed, unpack(ids)) or {}
for i, id in ipairs(ids) do
  local job = jobs[id]
  local queued, _, payload = parse_fixed(fixed_of[i])
  if job and queued then
    last_token = math.max(last_token + 1, now)
    job.run, job.token, job.changed = whole(tonumber(job.run) + 1), whole(last_token), whole(now)
    left[job.state] = left[job.state] or {}
    table.insert(left[job.state], id)
    job.state = 'c'
    append(texts, id, stored(job))
    append(leased, whole(lease_ends), id)
    append(claimed, job.place, id)
    show(page, id, job, queued, payload)
  else
    forget(id)
  end
end
if #page > 0 then
  for state, gone in pairs(left) do
    redis.call('ZREM', sorted_in[state], unpack(gone))
    redis.call('ZREM', by_state[state], unpack(gone))
  end
  redis.call('HSET', parts, unpack(texts))
  redis.call('ZADD', leases, unpack(leased))
  redis.call('ZADD', by_state.c, unpack(claimed))
  local claimed_now = redis.call('ZCARD', by_state.c)
  if claimed_now == #claimed / 2 then added[leases], added[by_state.c] = true, true end
  if not before then
    -- Processes come and go: forget those that have claimed nothing for a day.
    local all = redis.call('HGETALL', meta)
    for i = 1, #all, 2 do
      local to = string.sub(all[i], 1, 3) == 'by:' and string.match(all[i + 1], '(%d+)$')
      if to and tonumber(to) < now - 24 * HOUR then redis.call('HDEL', meta, all[i]) end
    end
  end
end
if #page > 0 or known + 1 < number then
  local claims = whole(number) .. ' ' .. whole(first_token) .. ' ' .. whole(last_token)
  redis.call('HSET', meta, 'token', whole(last_token), by, claims)
  if forgets then redis.call('HSET', meta, 'tidied', whole(now)) end
  if not held[1] then added[meta] = true end
end
return answer(page)
