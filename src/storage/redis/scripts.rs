//! The Lua scripts. Each declares every key it touches, so that it runs in a cluster and on the
//! relatives of Redis too.
//!
//! Lua's numbers are doubles: offsets, sequences and byte counts are exact up to 2^53, and are
//! written with `%.0f`, because Lua's own way of writing numbers is not.

use std::fmt;
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use fred::error::Error;
use fred::types::{FromValue, Value};

use super::commands::{Commands, Priority};
use super::errors::storage_error;
use crate::storage::Result;

/// A script and its hash.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    pub(super) fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = fred::util::sha1_hash(&text);
        Self { text, hash }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Runs it by its hash; sends the text only where the server does not know it (which then has
    /// run nothing yet).
    pub(super) async fn run<R: FromValue>(
        &self,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R> {
        self.run_with(Priority::Usual, commands, op, limit, keys, args).await
    }

    /// The same, with a priority.
    pub(super) async fn run_with<R: FromValue>(
        &self,
        priority: Priority,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R> {
        let mut words = Words::default();
        for key in &keys {
            words.push(key);
        }
        words.push_values(&args);
        self.send(priority, commands, op, limit, keys.len(), words).await
    }

    /// The same with words, of which the first ones are keys.
    pub(super) async fn send<R: FromValue>(
        &self,
        priority: Priority,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: usize,
        words: Words,
    ) -> Result<R> {
        let words = words.whole();
        let of = |script: &str| {
            let begin = [Value::from(script), Value::from(keys.to_string())];
            begin.into_iter().chain(words.values()).collect::<Vec<_>>()
        };
        let answer = commands.call_with(priority, words.first(), "EVALSHA", of(&self.hash)).await;
        let answer: std::result::Result<R, Error> = match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                commands.call_with(priority, words.first(), "EVAL", of(&self.text)).await
            }
            answer => answer,
        };
        answer.map_err(|error| storage_error(op, limit, &error))
    }
}

/// The words of a call, in one piece of memory: a call has dozens of them, most of them short.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Words {
    pub(super) fn with_capacity(words: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(words) }
    }

    pub(super) fn push(&mut self, word: impl fmt::Display) {
        write!(self.bytes, "{word}").expect("memory takes what is written");
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push_bytes(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push_values(&mut self, values: &[Value]) {
        for value in values {
            match value.as_bytes() {
                Some(bytes) => self.push_bytes(bytes),
                None => self.push(value.as_string().unwrap_or_default()),
            }
        }
    }

    fn whole(self) -> WholeWords {
        WholeWords { bytes: self.bytes.into(), ends: self.ends }
    }
}

/// Words that can be sent, more than once.
struct WholeWords {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl WholeWords {
    fn values(&self) -> impl Iterator<Item = Value> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| Value::Bytes(self.bytes.slice(begin..*end)))
    }

    /// The first key, which says where all of them are.
    fn first(&self) -> &str {
        let end = self.ends.first().copied().unwrap_or_default();
        std::str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

const NOW: &str = "
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function whole(number) return string.format('%.0f', number) end
";

/// `trim` removes the oldest entries as soon as a bound is passed and answers the oldest offset
/// that is kept. Since entries carry the bytes before them and the time they were appended at, and
/// offsets are contiguous, the place to cut is found by doubling steps from the oldest: a handful
/// of look-ups, however many entries go.
const TRIM: &str = "
local function trim(log, now, top, total, entries_max, bytes_max, age_ms)
  local function at(offset)
    local found = redis.call('XRANGE', log, whole(offset) .. '-0', '+', 'COUNT', 1)[1]
    if not found then return nil end
    return tonumber(string.match(found[1], '^%d+')), tonumber(found[2][4]), tonumber(found[2][6])
  end
  local function keeps(offset, appended, before)
    return top - offset < entries_max and now - appended < age_ms and total - before <= bytes_max
  end
  local function stays(offset)
    if top - offset >= entries_max then return false end
    local _, appended, before = at(offset)
    return appended ~= nil and keeps(offset, appended, before)
  end
  local oldest, appended, before = at(0)
  if not oldest then return top + 1 end
  if keeps(oldest, appended, before) then return oldest end
  local gone, step = oldest, 1
  while gone + step <= top and not stays(gone + step) do
    gone = gone + step
    step = step * 2
  end
  local first = math.min(gone + step, top + 1)
  while first - gone > 1 do
    local middle = math.floor((first + gone) / 2)
    if stays(middle) then first = middle else gone = middle end
  end
  redis.call('XTRIM', log, 'MINID', whole(first) .. '-0')
  return first
end
";

/// Where entries go together, they go by the time of the newest, which is `t` of meta; then no entry
/// has an age of its own.
const TOGETHER: &str = "
local function age_of_each(log, now, newest, together, age_ms)
  if not together then return age_ms end
  if newest and now - tonumber(newest) >= age_ms then redis.call('DEL', log) end
  return math.huge
end
";

/// The latest entry of a key is `<its own time>:<when it was appended> <offset> <stored form>`, and `ages`
/// has each key by when it was appended to. A gateway of before writes neither the second time nor
/// `ages`: when that was is not known then, and counts from when it is noticed. Removals that are remembered are
/// kept in the same way, in keys of their own, which a gateway of before does not know: that of a key until the
/// key has an entry again, that of all keys under the empty one. Where a gateway of before gave a key an entry,
/// both are there, and the entry counts.
///
/// `gives_way` tells whether what is held of a key is older than an entry that waited at its gateway, since
/// others may have been appended elsewhere after it was accepted. Of one gateway its sequences tell which is
/// newer; of others their time, and where that is the same their gateways' names.
const LATEST_OF_KEYS: &str = "
local function gives_way(held, time, producer, seq)
  local at, by, number = string.match(held or '', '^(%-?%d+):?%d* %d+ %S+ (%x+)%-(%d+) ')
  if not at then return true end
  if by == producer then return tonumber(number) <= seq end
  at, time = tonumber(at), tonumber(time)
  return at < time or (at == time and by < producer)
end
local function last_of(latest, removed, key)
  return redis.call('HGET', latest, key) or redis.call('HGET', removed, key) or redis.call('HGET', removed, '')
end
local function remove_key(latest, ages, key)
  redis.call('HDEL', latest, key)
  redis.call('ZREM', ages, key)
end
local function remember(removed, removed_ages, key, held, now, max)
  redis.call('HSET', removed, key, held)
  redis.call('ZADD', removed_ages, whole(now), key)
  local over = redis.call('ZCARD', removed_ages) - max
  if over < 1 then return end
  for _, first in ipairs(redis.call('ZRANGE', removed_ages, 0, whole(over - 1))) do
    remove_key(removed, removed_ages, first)
  end
end
local function expire_keys(latest, ages, now, age_ms, may_write)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', whole(now - age_ms), 'LIMIT', 0, 100)) do
    local held = redis.call('HGET', latest, key)
    local appended = held and string.match(held, '^%-?%d+:(%d+) ')
    if not held or (appended and tonumber(appended) <= now - age_ms) then
      remove_key(latest, ages, key)
    elseif may_write then
      local time, rest = string.match(held, '^(%-?%d+)( .*)$')
      if time then redis.call('HSET', latest, key, time .. ':' .. whole(now) .. rest) end
      redis.call('ZADD', ages, appended or whole(now), key)
    end
  end
end
";

/// KEYS log, meta, latest, ages, removed, their ages.
/// ARGV epoch, producer, entries, bytes, age in ms, how long the epoch is kept in ms, pub/sub
/// channel, whether entries go together, the age of keys in ms, the server's time when this was sent in ms
/// (or nothing, where that is not known), how long removals are remembered in ms, and how many; then for each entry seq, prev, time, what it does to the latest
/// entries, fence (or nothing), whether it is terminal, stored form. What it does is `k` and a key for the latest entry of that key, `r` and a key for one that removes it, `z` for one
/// that removes all, the same in capitals for an entry that is compared by time, as one that waited at its gateway
/// is, or nothing.
///
/// What comes a second after it was sent, or later, is marked as late: it may have been given up long since,
/// and its gateway has gone on without it.
///
/// Answers `done` and for each entry its offset, 0 for a duplicate, -(last + 1) for a gap, `closed`,
/// or `fence` and the newest fence; or `foreign` and the epoch. The first write is the XADD, which a
/// server that is out of memory refuses; what follows the first write is not refused, so that a
/// batch is never half applied.
pub(super) fn append(sharded: bool) -> &'static Script {
    static TO_ALL: LazyLock<Script> = LazyLock::new(|| append_with("PUBLISH"));
    static TO_THE_SHARD: LazyLock<Script> = LazyLock::new(|| append_with("SPUBLISH"));
    if sharded { &TO_THE_SHARD } else { &TO_ALL }
}

fn append_with(publish: &str) -> Script {
    Script::new(&[
        NOW,
        TRIM,
        TOGETHER,
        LATEST_OF_KEYS,
        "
local log, meta, latest, ages, removed, removed_ages = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local producer = 'p:' .. ARGV[2]
local held = redis.call('HMGET', meta, 'e', 's', 'b', producer, 'f', 'c', 't', 'a')
if held[1] ~= ARGV[1] then return {'foreign', held[1] or ''} end
local now = clock()
local top, total = tonumber(held[2]), tonumber(held[3])
local last = held[4] and tonumber(string.match(held[4], '^%d+')) or 0
local fence, closed, together = tonumber(held[5] or 0), held[6] == '1', ARGV[8] == '1'
local age_ms, kept_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
local each_age_ms = age_of_each(log, now, held[7], together, age_ms)
local first = top + 1
local results, frame = {'done'}, {}
local key_age_ms, now_text = tonumber(ARGV[9]), whole(now)
local is_late = ARGV[10] ~= '' and now - tonumber(ARGV[10]) >= 1000
local removed_ms, removed_max = tonumber(ARGV[11]), tonumber(ARGV[12])
-- Most zones remember none.
local has_removed = not together and redis.call('EXISTS', removed) == 1
local is_first = false
for i = 13, #ARGV, 7 do
  local seq, prev, time, key = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local given, entry = tonumber(ARGV[i + 4]), ARGV[i + 6]
  if seq <= last then
    results[#results + 1] = 0
  elseif prev > last then
    results[#results + 1] = -(last + 1)
  elseif closed then
    results[#results + 1] = 'closed'
  elseif given and given < fence then
    results[#results + 1] = 'fence ' .. whole(fence)
  else
    last, top = seq, top + 1
    fence, closed = given or fence, ARGV[i + 5] == '1'
    local offset = whole(top)
    if is_late and not string.find(string.match(entry, '^%S*'), 'l', 1, true) then
      entry = string.sub(entry, 1, 1) .. 'l' .. string.sub(entry, 2)
    end
    redis.call('XADD', log, offset .. '-0', 'e', entry, 't', now_text, 'b', whole(total))
    total = total + #entry
    local what, name = string.sub(key, 1, 1), string.sub(key, 2)
    local is_compared = not together and (is_late or string.find(what, '%u'))
    what = string.lower(what)
    local function is_newer(held) return not is_compared or gives_way(held, time, ARGV[2], seq) end
    if what == 'z' then
      if is_compared then
        for _, of in ipairs({{latest, ages}, {removed, removed_ages}}) do
          local all = redis.call('HGETALL', of[1])
          for k = 1, #all, 2 do
            if is_newer(all[k + 1]) then remove_key(of[1], of[2], all[k]) end
          end
        end
      else
        redis.call('DEL', latest, ages, removed, removed_ages)
      end
    end
    if what ~= '' and is_newer(is_compared and last_of(latest, removed, name)) then
      local held = time .. ':' .. now_text .. ' ' .. offset .. ' ' .. entry
      if what ~= 'k' then
        remove_key(latest, ages, name)
        remember(removed, removed_ages, name, held, now, removed_max)
        has_removed = true
      else
        is_first = redis.call('HSET', latest, name, held) == 1 or is_first
        if not together then redis.call('ZADD', ages, now_text, name) end
        if has_removed then remove_key(removed, removed_ages, name) end
      end
    end
    frame[#frame + 1] = #entry .. ':'
    frame[#frame + 1] = entry
    results[#results + 1] = top
  end
end
if top < first then return results end

local changed = {'s', whole(top), 'b', whole(total), producer, whole(last) .. ' ' .. now_text}
local function change(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end
if fence > tonumber(held[5] or 0) then change('f', whole(fence)) end
if closed then change('c', '1') end
if together then change('t', now_text) end
redis.call('HSET', meta, unpack(changed))
-- Outside updates of an order have a producer each: looking at all of them each time would add up.
local fields = held[4] and 0 or redis.call('HLEN', meta)
if fields > 16 and (fields < 64 or fields % 64 == 0) then
  local all = redis.call('HGETALL', meta)
  for i = 1, #all, 2 do
    local seen = string.match(all[i + 1], '^%d+ (%d+)$')
    if seen and string.sub(all[i], 1, 2) == 'p:' and now - tonumber(seen) > kept_ms then
      redis.call('HDEL', meta, all[i])
    end
  end
end
local entries_max, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
-- Where entries go together, one need not look at them to know that none is too many.
if not together or top > entries_max or total > bytes_max then
  trim(log, now, top, total, entries_max, bytes_max, each_age_ms)
end
if not together then
  -- Looking at all keys once a minute is often enough.
  if redis.call('HLEN', latest) ~= redis.call('ZCARD', ages) and now - tonumber(held[8] or 0) >= 60000 then
    redis.call('HSET', meta, 'a', whole(now))
    local all = redis.call('HGETALL', latest)
    for k = 1, #all, 2 do redis.call('ZADD', ages, 'NX', whole(now), all[k]) end
  end
  expire_keys(latest, ages, now, key_age_ms, true)
  redis.call('PEXPIRE', ages, ARGV[6])
  if has_removed then
    expire_keys(removed, removed_ages, now, removed_ms, true)
    redis.call('PEXPIRE', removed, ARGV[6])
    redis.call('PEXPIRE', removed_ages, ARGV[6])
  end
end
redis.call('PEXPIRE', log, ARGV[5])
-- An order is told of several times in a moment: what is kept for a day is told so once a minute, and for a
-- minute more.
local MINUTE = 60000
local is_told = together and held[7] and math.floor(now / MINUTE) == math.floor(tonumber(held[7]) / MINUTE)
local kept = together and whole(kept_ms + MINUTE) or ARGV[6]
if not is_told then redis.call('PEXPIRE', meta, kept) end
if not is_told or is_first then redis.call('PEXPIRE', latest, kept) end
local head = '1 ' .. held[1] .. ' ' .. whole(first) .. ' ' .. whole(top - first + 1) .. '\\n'
redis.call('",
        publish,
        "', ARGV[7], head .. table.concat(frame))
return results
",
    ])
}

/// KEYS meta. ARGV expected epoch, minted epoch. Answers the epoch in force (or nothing).
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["
local held = redis.call('HGET', KEYS[1], 'e')
if held ~= ARGV[1] then return held or '' end
redis.call('HSET', KEYS[1], 'e', ARGV[2])
return ARGV[2]
"])
});

/// KEYS log, meta, latest, ages, removed, their ages. ARGV the epoch for a log that has none (or nothing, to make none), how long
/// it is kept in ms, producer, an offset, ms. Answers the epoch in force, the newest offset, what is kept
/// of the producer (or nothing), the offset and the stored form of the entry at the offset that was
/// given or, if it is not kept, of the newest one (or nothing), then each producer that was not
/// silent for so long, and what is kept of it. Answers nothing at all where there is no epoch and none
/// is made.
pub(super) static OPEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        "
local held = redis.call('HMGET', KEYS[2], 'e', 's', 'p:' .. ARGV[3])
if held[1] then
  local at = whole(math.min(tonumber(held[2]), tonumber(ARGV[4]))) .. '-0'
  local found = redis.call('XRANGE', KEYS[1], at, at)[1]
  if not found then found = redis.call('XRANGE', KEYS[1], held[2] .. '-0', '+', 'COUNT', 1)[1] end
  local answer = {held[1], held[2], held[3] or '', '0', ''}
  if found then answer[4], answer[5] = string.match(found[1], '^%d+'), found[2][2] end
  local all = redis.call('HGETALL', KEYS[2])
  local silent_ms, now = tonumber(ARGV[5]), clock()
  for i = 1, #all, 2 do
    local seen = string.match(all[i + 1], '^%d+ (%d+)$')
    if string.sub(all[i], 1, 2) == 'p:' and (not seen or now - tonumber(seen) < silent_ms) then
      answer[#answer + 1] = string.sub(all[i], 3)
      answer[#answer + 1] = all[i + 1]
    end
  end
  return answer
end
if ARGV[1] == '' then return {} end
redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[2], 'e', ARGV[1], 's', '0', 'b', '0')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {ARGV[1], '0', '', '0', ''}
",
    ])
});

/// KEYS log, meta. ARGV offset, limit, entries, bytes, age in ms, whether entries go together, the
/// epoch that the offset is of (or nothing, for any), bytes. Answers epoch (or nothing), top, first,
/// whether the log is closed, and where the epoch is that one, offset and stored form of each entry.
/// They are looked at some at a time, so that large ones beyond the bytes are not.
///
/// Trims before it reads: of a log that nobody appends to, entries still go by their age.
pub(super) static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        TRIM,
        TOGETHER,
        "
local held = redis.call('HMGET', KEYS[2], 'e', 's', 'b', 'c', 't')
if not held[1] then return {'', 0, 1, 0} end
local top, total = tonumber(held[2]), tonumber(held[3])
local now = clock()
local age_ms = age_of_each(KEYS[1], now, held[5], ARGV[6] == '1', tonumber(ARGV[5]))
local first = trim(KEYS[1], now, top, total, tonumber(ARGV[3]), tonumber(ARGV[4]), age_ms)
local page = {held[1], top, first, held[4] == '1' and 1 or 0}
local from, limit = tonumber(ARGV[1]) + 1, tonumber(ARGV[2])
if ARGV[7] ~= '' and held[1] ~= ARGV[7] then return page end
local left = tonumber(ARGV[8])
while limit > 0 and from <= top do
  local found = redis.call('XRANGE', KEYS[1], whole(from) .. '-0', '+', 'COUNT', whole(math.min(limit, 64)))
  if #found == 0 then return page end
  for _, item in ipairs(found) do
    local entry = item[2][2]
    if #entry > left and #page > 4 then return page end
    left = left - #entry
    from = tonumber(string.match(item[1], '^%d+'))
    page[#page + 1] = from
    page[#page + 1] = entry
  end
  from, limit = from + 1, limit - #found
end
return page
",
    ])
});

/// KEYS latest, ages, meta, removed, their ages. ARGV the age of keys in ms, or nothing where they have none, and
/// how long removals are remembered in ms, or nothing where these are not wanted. Answers the epoch (or
/// nothing), the newest offset, and the keys that have a latest entry then, or a removal that is remembered, in no
/// order; some may be there twice.
pub(super) static KEYS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        LATEST_OF_KEYS,
        "
local latest, ages = KEYS[1], KEYS[2]
if ARGV[1] ~= '' then expire_keys(latest, ages, clock(), tonumber(ARGV[1]), false) end
local log = redis.call('HMGET', KEYS[3], 'e', 's')
local answer, keys = {log[1] or '', log[2] or '0'}, nil
-- A gateway of before may have written some that have no age yet.
if redis.call('HLEN', latest) == redis.call('ZCARD', ages) then
  keys = redis.call('ZRANGE', ages, 0, -1)
else
  keys = redis.call('HKEYS', latest)
end
for _, key in ipairs(keys) do answer[#answer + 1] = key end
if ARGV[2] ~= '' then
  expire_keys(KEYS[4], KEYS[5], clock(), tonumber(ARGV[2]), false)
  for _, key in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do answer[#answer + 1] = key end
end
return answer
",
    ])
});

/// KEYS latest, meta, removed. ARGV how many bytes are wanted at the most, whether the first one is wanted in any
/// case, whether removals are wanted too, then keys. Answers how many of the keys it has looked at, the epoch (or
/// nothing), the newest offset, and the latest entries that these have, or their removals.
pub(super) static LATEST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["
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
"])
});

/// Removes records whose time has run out, some at a time.
const PRUNE: &str = "
local values, names, due = KEYS[1], KEYS[2], KEYS[3]
local now = clock()
for _, key in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, 100)) do
  redis.call('HDEL', values, key)
  redis.call('ZREM', names, key)
  redis.call('ZREM', due, key)
end
local function live(value)
  if not value then return nil end
  local expires, content = string.match(value, '^(%d+) (.*)$')
  if tonumber(expires) > now then return content end
end
";

/// KEYS values, keys by bytes, keys by expiry. ARGV key, value, time to live in ms.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        PRUNE,
        "
local ttl = tonumber(ARGV[3])
redis.call('HSET', values, ARGV[1], whole(now + ttl) .. ' ' .. ARGV[2])
redis.call('ZADD', names, 0, ARGV[1])
redis.call('ZADD', due, whole(now + ttl), ARGV[1])
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, whole(ttl)) end
end
return 1
",
    ])
});

/// KEYS as for [`PUT`], and the last fence. ARGV key, holder, time to live in ms. Answers the fence, or 0
/// where somebody else holds it. Fences are no less than the time, so that they grow also where the last one
/// was lost.
pub(super) static HOLD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        PRUNE,
        "
local ttl, fence, holder = tonumber(ARGV[3]), nil, nil
local held = live(redis.call('HGET', values, ARGV[1]))
if held then
  fence, holder = string.match(held, '^(%d+) (.*)$')
  if holder ~= ARGV[2] then return '0' end
else
  fence = whole(math.max(now, tonumber(redis.call('HGET', KEYS[4], 'fence') or 0) + 1))
  redis.call('HSET', KEYS[4], 'fence', fence)
  redis.call('PEXPIRE', KEYS[4], '2592000000')
end
redis.call('HSET', values, ARGV[1], whole(now + ttl) .. ' ' .. fence .. ' ' .. ARGV[2])
redis.call('ZADD', names, 0, ARGV[1])
redis.call('ZADD', due, whole(now + ttl), ARGV[1])
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], whole(ttl)) end
end
return fence
",
    ])
});

/// KEYS as for [`HOLD`]. ARGV key, holder.
pub(super) static LET_GO: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        PRUNE,
        "
local held = live(redis.call('HGET', values, ARGV[1]))
if held and string.match(held, '^%d+ (.*)$') == ARGV[2] then
  redis.call('HDEL', values, ARGV[1])
  redis.call('ZREM', names, ARGV[1])
  redis.call('ZREM', due, ARGV[1])
end
return 1
",
    ])
});

/// KEYS as for [`PUT`]. ARGV key. Answers the value, or nil.
pub(super) static GET: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[NOW, PRUNE, "return live(redis.call('HGET', values, ARGV[1])) or false"]));

/// KEYS as for [`PUT`]. ARGV key. Answers whether there was a value.
pub(super) static DELETE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        PRUNE,
        "
local held = live(redis.call('HGET', values, ARGV[1]))
redis.call('HDEL', values, ARGV[1])
redis.call('ZREM', names, ARGV[1])
redis.call('ZREM', due, ARGV[1])
return held and 1 or 0
",
    ])
});

/// KEYS as for [`PUT`]. ARGV where to begin (`-` or `(<key>`), limit. Answers keys and values.
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&[
        NOW,
        PRUNE,
        "
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
",
    ])
});

/// KEYS the list of an order. ARGV pub/sub channel, how many updates are kept, for how many seconds,
/// then updates. One that the list holds already is not added again, so this can be repeated.
pub(super) static WRITE_OUTSIDE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&["
local list, held = KEYS[1], {}
for _, update in ipairs(redis.call('LRANGE', list, '-' .. ARGV[2], -1)) do held[update] = true end
for i = 4, #ARGV do
  if not held[ARGV[i]] then
    held[ARGV[i]] = true
    redis.call('RPUSH', list, ARGV[i])
    redis.call('LTRIM', list, '-' .. ARGV[2], -1)
    redis.call('EXPIRE', list, ARGV[3])
    redis.call('PUBLISH', ARGV[1], ARGV[i])
  end
end
return 1
"])
});
