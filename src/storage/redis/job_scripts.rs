//! The Lua scripts of the jobs role. All get the same keys, in the order of [`KEYS`].
//!
//! Times, places and tokens are microseconds since 1970 by the server's clock. Places and tokens
//! never stand still or go back: each is at least one more than the one before it.
//!
//! A server that is out of memory refuses a script's first write if it adds something, and nothing
//! after it. So no script is half done; and those that end or extend a run remove before they add,
//! so that what would free memory is not refused.
//!
//! A build that knows neither attempts nor kinds keeps what stands behind the place as it found it,
//! since it takes it for an error, which it shows of dead letters alone.

use std::sync::LazyLock;

use super::scripts::Script;

/// What follows `<prefix>:{jobs}:` in the names of the keys.
pub(super) const KEYS: [&str; 15] = [
    "fixed", "parts", "keys", "key-ages", "ready", "delayed", "leases", "ended", "ages", "meta", "waiting",
    "delays", "claimed", "done", "dead",
];

/// Common to all scripts: names, and how a job goes from one state to another.
///
/// All keys expire at the same moment, a week after the last use of any of them, give or take an
/// hour; so they vanish together, and never while somebody asks for work.
const JOBS: &str = "
local fixed, parts, keys, key_ages, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[10]
local ready, delayed, leases, ended, ages = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local by_state = {w = KEYS[11], d = KEYS[12], c = KEYS[13], o = KEYS[14], x = KEYS[15]}
local sorted_in = {w = ready, d = delayed, c = leases, o = ended, x = ended}
local AT_ONCE, HOUR, WEEK = 500, 3600000000, 604800000000

local function whole(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local held = redis.call('HMGET', meta, 'expires', 'place', 'token', 'kept_for')
local expires, last_place, last_token = tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
local kept_for = tonumber(held[4])

local added = {}
local function add(key, score, member)
  redis.call('ZADD', key, whole(score), member)
  added[key] = true
end
local function set(key, field, value)
  redis.call('HSET', key, field, value)
  added[key] = true
end
-- The same for a key that is there, and so expires already.
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
-- Of a job that is there.
local function write(id, job) redis.call('HSET', parts, id, stored(job)) end
-- Of a new one.
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
local function view(id, page)
  local job = read(id)
  local queued, _, payload = read_fixed(id)
  if not job or not queued then return end
  local values = {id, job.state, job.run, job.token, job.cancelled, job.committed, queued, job.changed, job.error,
    job.attempt, job.said_by, job.kind, payload}
  for _, value in ipairs(values) do page[#page + 1] = value end
end
";

/// Does what is due by the time alone, some jobs at a time. A job of which a part is missing was
/// lost: the server was allowed to evict keys. What is left of it is removed where it is met.
const TIDY: &str = "
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
";

fn script(parts: &[&str]) -> Script {
    Script::new(&[&[JOBS], parts].concat())
}

/// ARGV id, payload, `k` and the idempotency key (or nothing), fingerprint, bound on unfinished
/// jobs, bound on all jobs, how long they are kept, kind (or nothing).
///
/// Answers `queued`, `repeated` and the job, `conflict`, or `full`.
pub(super) static ENQUEUE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
local id, payload, key, fingerprint = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local unfinished_max, kept_max = tonumber(ARGV[5]), tonumber(ARGV[6])
local is_news = kept_for ~= tonumber(ARGV[7])
kept_for = tonumber(ARGV[7])
forget_over()
if key ~= '' then
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
set_meta('place', whole(place))
if is_news then set_meta('kept_for', whole(kept_for)) end
if key then
  set(keys, key, id .. ' ' .. fingerprint)
  add(key_ages, now, key)
end
local excess = math.min(jobs + 1 - kept_max, AT_ONCE)
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', ended, 0, excess - 1)) do forget(oldest) end
end
return answer({'queued'})
",
    ])
});

/// Takes over a job that a node kept while the server was away. ARGV id, payload, `k` and the
/// idempotency key (or nothing), fingerprint, state, run, token, whether it was cancelled, whether it
/// was committed, error; how long ago it was queued, and its state changed; how far from now what it
/// is sorted by is, below 0 in the past; bound on all jobs, how long they are kept; the attempt, the
/// run that said it, kind (or nothing).
///
/// Answers `recorded`, also when it was before; or, where the key leads elsewhere, `taken`, the other
/// job, and whether this one is cancelled for that: it is where the requests were the same and nobody
/// had begun. Raises the tokens above those that were given out without the server.
pub(super) static RECORD: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
local id, payload, key, fingerprint, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job = {state = state, run = ARGV[6], token = ARGV[7], cancelled = ARGV[8], committed = ARGV[9], error = ARGV[10],
  attempt = ARGV[16], said_by = ARGV[17], kind = ARGV[18]}
local queued, kept_max = now - tonumber(ARGV[11]), tonumber(ARGV[14])
job.changed = whole(now - tonumber(ARGV[12]))
local score = now + tonumber(ARGV[13])
local is_news = kept_for ~= tonumber(ARGV[15])
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
set_meta('place', whole(place))
if tonumber(job.token) > last_token then set_meta('token', job.token) end
if is_news then set_meta('kept_for', whole(kept_for)) end
if key then
  set(keys, key, id .. ' ' .. fingerprint)
  add(key_ages, queued, key)
end
local excess = math.min(jobs + 1 - kept_max, AT_ONCE)
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', ended, 0, excess - 1)) do forget(oldest) end
end
if taken_by then return answer({'taken', taken_by, job.cancelled}) end
return answer({'recorded'})
",
    ])
});

/// ARGV limit, lease, kind, who claims, which of their claims this is, up to which they know what became
/// of them. Answers for each job id, token, run, whether it was cancelled, whether it
/// was committed, when it was queued, the attempt, the run that said it, kind, payload.
///
/// Jobs of other kinds that are in front are passed over, some hundred at a time; so a call looks at
/// more jobs than it answers with only where workers of several kinds share the queue.
///
/// Whoever claims makes one claim after the other. `by:<who>` of meta is their last claim that got jobs, and
/// the tokens of these. Where they do not know of it, its answer was lost: its jobs wait again, as if it had
/// not been. Once an answer was lost, it is also the next claim, whatever that got: so one that comes later
/// than its successor gets nothing.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
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
gather(ready, '-inf', '(0')
gather(leases, '-inf', whole(now))
gather(ready, '0', '+inf')
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
    for _, value in ipairs({id, job.token, job.run, job.cancelled, job.committed, queued,
        job.attempt, job.said_by, job.kind, payload}) do
      page[#page + 1] = value
    end
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
  added[leases], added[by_state.c] = true, true
  if not before then
    -- Processes come and go: of those that claimed nothing for a day, nothing is kept.
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
  if not held[1] then added[meta] = true end
end
return answer(page)
",
    ])
});

/// ARGV id, token, lease, whether it commits. Answers `yes`, `cancelled` or `lost`.
pub(super) static HOLD: LazyLock<Script> = LazyLock::new(|| {
    script(&["
local id = ARGV[1]
local job = read(id)
if not holds(job, ARGV[2]) then return 'lost' end
local lease_ends = math.max(now + tonumber(ARGV[3]), tonumber(redis.call('ZSCORE', leases, id) or 0))
-- The first write adds nothing, and so is not refused. What it says is said again where it is news.
local expires_at = whole(math.floor(math.max(expires, now + WEEK - HOUR) / 1000))
if redis.call('PEXPIREAT', leases, expires_at) == 0 then added[leases] = true end
redis.call('ZADD', leases, whole(lease_ends), id)
if job.cancelled == '1' then return answer('cancelled') end
if ARGV[4] == '1' and job.committed == '0' then
  job.committed = '1'
  write(id, job)
end
return answer('yes')
"])
});

/// ARGV id, token, the state to go to; then the wait for `d`, or the error for `x`; the attempt that
/// the next run is at (or nothing).
/// Answers as [`HOLD`].
pub(super) static FINISH: LazyLock<Script> = LazyLock::new(|| {
    script(&["
local id, state = ARGV[1], ARGV[3]
local job = read(id)
if not holds(job, ARGV[2]) then return 'lost' end
if state == 'd' then
  if job.cancelled == '1' then return 'cancelled' end
  if ARGV[5] ~= '' then job.attempt, job.said_by = ARGV[5], job.run end
  stand(id, job, state, now + tonumber(ARGV[4]))
else
  if state == 'x' then job.error = ARGV[4] end
  stand(id, job, state, now)
end
return answer('yes')
"])
});

/// ARGV id. Answers `asked`, `late`, `ended` or `unknown`.
///
/// A job that waits goes before all that were not cancelled: below 0, still in order, still exact.
pub(super) static CANCEL: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
local id = ARGV[1]
local job = read(id)
if not job then return answer('unknown') end
if job.state == 'o' or job.state == 'x' then return answer('ended') end
if job.committed == '1' then return answer('late') end
if job.cancelled == '0' then
  job.cancelled = '1'
  if job.state == 'c' then write(id, job) else stand(id, job, 'w', now - 9007199254740992) end
end
return answer('asked')
",
    ])
});

/// ARGV id. Answers id, state, run, token, whether it was cancelled, whether it was committed, when
/// it was queued, when its state changed, error, the attempt, the run that said it, kind, payload; or
/// nothing.
pub(super) static JOB: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
local page = {}
view(ARGV[1], page)
return answer(page)
",
    ])
});

/// ARGV state (or nothing), the job before which to begin (or nothing), limit. Answers for each job
/// as [`JOB`].
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
local index = by_state[ARGV[1]] or ages
local before = read(ARGV[2])
local below = before and '(' .. before.place or '+inf'
local page = {}
for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', index, below, '-inf', 'LIMIT', 0, ARGV[3])) do
  view(id, page)
end
return answer(page)
",
    ])
});

/// ARGV id. Answers whether it was a dead letter.
pub(super) static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
local id = ARGV[1]
local job = read(id)
if not job or job.state ~= 'x' then return answer(0) end
job.error = ''
stand(id, job, 'o', tonumber(redis.call('ZSCORE', ended, id)))
return answer(1)
",
    ])
});

/// Answers how many jobs are in each state, in the order of
/// [`JobState::ALL`](crate::storage::JobState::ALL).
pub(super) static COUNTS: LazyLock<Script> = LazyLock::new(|| {
    script(&[
        TIDY,
        "
tidy()
local counts = {}
for at = 11, 15 do counts[#counts + 1] = redis.call('ZCARD', KEYS[at]) end
return answer(counts)
",
    ])
});
