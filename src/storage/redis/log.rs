//! The log role.

use std::sync::Arc;

use async_trait::async_trait;
use fred::types::Value;
use tokio::sync::mpsc;

use super::codec::{decode, decode_id, decode_latest, encode};
use super::commands::Priority;
use super::errors::corrupt;
use super::scripts::{Words, milliseconds, text};
use super::{EXACT_MAX, RedisBackend, scripts};
use crate::model::{
    ChannelName, ChannelPolicy, DraftEntry, Entry, EntryId, EntryKind, Epoch, NodeId, Position,
};
use crate::storage::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, Bounds, LatestOf, LatestPage, LatestQuery, Log,
    LogEvent, LogState, OpenLog, Page, PageLimit, REMOVED_KEPT_FOR, REMOVED_MAX, Refusal, Result,
    StorageError, UNUSED_EPOCH_KEPT_FOR,
};

/// The keys that have a latest entry, in order, and the state of the log when they were read.
struct Names {
    epoch: Option<Epoch>,
    top: u64,
    names: Vec<Arc<str>>,
}

impl RedisBackend {
    /// Replaces the epoch of a channel's log if it is `expected`. Returns the epoch in force afterwards, if there
    /// is one.
    pub async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>> {
        let meta = self.keys.channel(channel).meta;
        let args = vec![Value::from(expected.as_str()), Value::from(minted.as_str())];
        let held: String =
            scripts::RENEW.run(&self.commands, "renew_epoch", vec![meta.clone()], args).await?;
        epoch_if_any(&meta, &held)
    }

    /// All latest entries under a key, unprocessed; at most `limit`.
    async fn all_latest(&self, key: &str, limit: usize) -> Result<LatestPage> {
        let values: Vec<Value> = self.commands.ask("latest", key, "HVALS", vec![Value::from(key)]).await?;
        let entries = values.iter().map(|value| {
            let value = value.as_bytes().ok_or_else(|| corrupt(key, "latest entry is no text"))?;
            Ok(decode_latest(value))
        });
        let mut entries: Vec<Entry> = entries.collect::<Result<_>>()?;
        entries.sort_by(|a, b| a.draft.key.cmp(&b.draft.key));
        let next = entries.get(limit.saturating_sub(1)).filter(|_| entries.len() > limit);
        let next = next.and_then(|last| last.draft.key.as_deref().map(str::to_owned));
        entries.truncate(limit);
        let places = entries.iter().map(|entry| entry.offset).collect();
        Ok(LatestPage { entries, places, next, ..LatestPage::default() })
    }

    /// The keys that have a latest entry (or, if wanted, a removal), in order, and the state of the log at
    /// that time.
    async fn names(&self, channel: &ChannelName, of: LatestOf) -> Result<Names> {
        let keys = self.keys.channel(channel);
        let bounds = Bounds::of(&self.retention, channel);
        let age = if bounds.together { text("") } else { text(milliseconds(bounds.key_age)) };
        let removed_age = if of == LatestOf::Keys { text("") } else { text(milliseconds(REMOVED_KEPT_FOR)) };
        let (meta, keys) =
            (keys.meta.clone(), vec![keys.latest, keys.ages, keys.meta, keys.removed, keys.removed_ages]);
        let answer: Vec<String> =
            scripts::KEYS.run(&self.commands, "keys", keys, vec![age, removed_age]).await?;
        let mut answer = answer.into_iter();
        let (epoch, top) = (answer.next().unwrap_or_default(), answer.next().unwrap_or_default());
        let epoch = epoch_if_any(&meta, &epoch)?;
        let top = top.parse().map_err(|_| corrupt(&meta, "newest offset"))?;
        let mut names: Vec<Arc<str>> = answer.map(Arc::from).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Names { epoch, top, names })
    }

    /// The latest entries of the first names after one; `None` if the log has changed too much since the
    /// names were read.
    async fn latest_of(
        &self,
        key: &str,
        keys: &[String],
        Names { epoch, top, names }: Names,
        LatestQuery { after, limit, of }: LatestQuery<'_>,
    ) -> Result<Option<LatestPage>> {
        /// More than a page of usual prices.
        const KEYS_PER_CALL: usize = 1_000;
        let from = after.map_or(0, |after| names.partition_point(|name| **name <= *after));
        let mut page = LatestPage { epoch, top, ..LatestPage::default() };
        let (mut bytes, mut at) = (0, from);
        while at < names.len() && page.entries.len() < limit.entries {
            let wanted = KEYS_PER_CALL.min(limit.entries - page.entries.len());
            let wanted = &names[at..names.len().min(at + wanted)];
            let mut args = vec![text((limit.bytes - bytes) as u64), flag(page.entries.is_empty())];
            args.push(flag(of == LatestOf::RemovedToo));
            args.extend(wanted.iter().map(|name| Value::from(&**name)));
            let answer: Vec<Value> =
                scripts::LATEST.run(&self.commands, "latest", keys.to_vec(), args).await?;
            let [seen, epoch, top, values @ ..] = answer.as_slice() else {
                return Err(corrupt(key, "the answer to latest is too short"));
            };
            let epoch = epoch.as_string().unwrap_or_default();
            let is_same = page.epoch.as_ref().map_or("", Epoch::as_str) == epoch;
            if !is_same || top.as_u64().is_none_or(|top| top < page.top) {
                if at == from {
                    return Ok(None);
                }
                // The page is valid without what could not be read.
                break;
            }
            for value in values {
                let value = value.as_bytes().ok_or_else(|| corrupt(key, "latest entry is no text"))?;
                bytes = (bytes + value.len()).min(limit.bytes);
                let entry = decode_latest(value);
                page.places.push(entry.offset);
                page.entries.push(entry);
            }
            let seen = seen.as_u64().and_then(|seen| usize::try_from(seen).ok()).unwrap_or(0);
            at += seen;
            if seen < wanted.len() {
                break;
            }
        }
        page.next = (from < at && at < names.len()).then(|| names[at - 1].to_string());
        Ok(Some(page))
    }

    /// The state of a log, with the entry at an offset. A log without an epoch begins with `minted`, if that
    /// is given.
    pub(super) async fn open_or_find(
        &self,
        op: &'static str,
        channel: &ChannelName,
        producer: NodeId,
        minted: Option<&Epoch>,
        at: u64,
    ) -> Result<Option<OpenLog>> {
        let keys = self.keys.channel(channel);
        let meta = keys.meta.clone();
        let (minted, producer) =
            (Value::from(minted.map_or("", Epoch::as_str)), Value::from(producer.to_string()));
        let silent = Bounds::of(&self.retention, channel).producers_silent();
        let (unused_ms, silent_ms) = (milliseconds(UNUSED_EPOCH_KEPT_FOR), milliseconds(silent));
        let args = vec![minted, text(unused_ms), producer, text(exact(at)), text(silent_ms)];
        let keys = keys.of_latest();
        let answer: Vec<Value> = scripts::OPEN.run(&self.commands, op, keys, args).await?;
        if answer.is_empty() { Ok(None) } else { read_open(&meta, &answer).map(Some) }
    }

    /// Appends entries. With `begins`, a log without an epoch begins with the batch's.
    async fn append_or_begin(
        &self,
        op: &'static str,
        batch: &AppendBatch,
        begins: bool,
    ) -> Result<AppendAnswer> {
        let keys = self.keys.channel(&batch.channel);
        let log = &keys.log;
        let bounds = Bounds::of(&self.retention, &batch.channel);
        let sent_at = self.server_time(&batch.channel).map_or_else(String::new, |ms| ms.to_string());
        /// An upper bound for what an entry adds to its data, and for the rest of a call.
        const USUAL_LEN: usize = 512;
        let data: usize = batch.entries.iter().map(|append| append.draft.data.len() + USUAL_LEN).sum();
        let mut words = Words::with_capacity(19 + 7 * batch.entries.len(), USUAL_LEN + data);
        let of_keys = [&keys.ages, &keys.removed, &keys.removed_ages];
        let of_keys = of_keys.into_iter().filter(|_| !bounds.together);
        for key in [log, &keys.meta, &keys.latest].into_iter().chain(of_keys) {
            words.push(key);
        }
        words.push(batch.epoch.as_str());
        words.push(batch.producer);
        let (age_ms, kept_ms) = (milliseconds(bounds.age), milliseconds(bounds.kept()));
        for bound in [exact(bounds.entries as u64), exact(bounds.bytes as u64), age_ms, kept_ms] {
            words.push(bound);
        }
        words.push(&keys.publish);
        words.push(sent_at);
        words.push(u8::from(begins));
        if !bounds.together {
            words.push(milliseconds(bounds.key_age));
            words.push(milliseconds(REMOVED_KEPT_FOR));
            words.push(REMOVED_MAX);
        }
        let policy = ChannelPolicy::of(&batch.channel);
        for append in &batch.entries {
            if append.seq > EXACT_MAX {
                return Err(corrupt(log, "a producer's sequence beyond 2^53 cannot be kept"));
            }
            if append.fence.is_some_and(|fence| fence > EXACT_MAX) {
                return Err(corrupt(log, "a fencing token beyond 2^53 cannot be kept"));
            }
            let id = EntryId { producer: batch.producer, seq: append.seq };
            words.push(append.seq);
            words.push(exact(append.prev));
            words.push(append.draft.time.timestamp_millis());
            words.push(on_latest(policy, &append.draft));
            match append.fence {
                Some(fence) => words.push(fence),
                None => words.push(""),
            }
            words.push(u8::from(append.draft.kind.is_terminal()));
            words.push_bytes(&encode(id, &append.draft));
        }
        let (scripts, keys) =
            if bounds.together { (&scripts::APPEND_TOGETHER, 3) } else { (&scripts::APPEND, 6) };
        let script = scripts.script(self.keys.sharded);
        let answer: Vec<Value> = script.send(Priority::Usual, &self.commands, op, keys, words).await?;
        read_answer(log, batch, &answer)
    }
}

#[async_trait]
impl Log for RedisBackend {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let keys = self.keys.channel(channel);
        let fields = [keys.meta.clone(), "e".to_owned(), "s".to_owned(), format!("p:{producer}")];
        let (epoch, top, last): (Option<String>, Option<u64>, Option<String>) =
            self.commands.ask("state", &keys.meta, "HMGET", fields.map(Value::from).into()).await?;
        let Some(epoch) = epoch else {
            return Ok(LogState::default());
        };
        let last_seq = parse_seq(&keys.meta, last.as_deref().unwrap_or_default())?;
        Ok(LogState { epoch: Some(parse_epoch(&keys.meta, &epoch)?), top: top.unwrap_or(0), last_seq })
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.open_or_find("find", channel, producer, None, EXACT_MAX).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        let opened = self.open_or_find("open", channel, producer, Some(minted), EXACT_MAX).await?;
        opened.ok_or_else(|| corrupt(channel.as_str(), "a log was opened and has no epoch"))
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.append_or_begin("append", batch, false).await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.append_or_begin("begin", batch, true).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        let keys = self.keys.channel(channel);
        let log = keys.log.clone();
        let bounds = Bounds::of(&self.retention, channel);
        let args = vec![
            text(exact(after.map_or(0, |after| after.offset))),
            text((limit.entries as u64).min(u64::from(u32::MAX))),
            text(exact(bounds.entries as u64)),
            text(exact(bounds.bytes as u64)),
            text(milliseconds(bounds.age)),
            flag(bounds.together),
            Value::from(after.map_or("", |after| after.epoch.as_str())),
            text(exact(limit.bytes as u64)),
        ];
        let answer: Vec<Value> =
            scripts::READ.run(&self.commands, "read_after", vec![keys.log, keys.meta], args).await?;
        read_page(&log, &answer)
    }

    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage> {
        /// How often reading starts over because the log has changed.
        const LOOKS_MAX: usize = 4;
        let keys = self.keys.channel(channel);
        let (key, keys) = (keys.latest.clone(), vec![keys.latest, keys.meta, keys.removed]);
        if ChannelPolicy::of(channel).has_few_keys && query.limit.entries > 0 && query.after.is_none() {
            // This is called with each update, so it has to be a single call.
            return self.all_latest(&key, query.limit.entries).await;
        }
        for _ in 0..LOOKS_MAX {
            let found = self.names(channel, query.of).await?;
            if let Some(page) = self.latest_of(&key, &keys, found, query).await? {
                return Ok(page);
            }
        }
        let cause = "the log changed during each attempt to read it".into();
        Err(StorageError::Unreachable { op: "latest", cause })
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        Ok(self.names(channel, LatestOf::Keys).await?.names)
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        self.subscriber.follow(self.keys.channel(channel).publish).await
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        self.subscriber.unfollow(self.keys.channel(channel).publish).await
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming.lock().take()
    }
}

/// What an entry does to the latest entries of keys, as the append script expects it.
fn on_latest(policy: &ChannelPolicy, draft: &DraftEntry) -> String {
    let (act, key) = match (&draft.kind, &draft.key, draft.latest_key(policy)) {
        (EntryKind::ZoneRemoved, ..) => ("z", Arc::from("")),
        (EntryKind::KeyRemoved, Some(key), _) => ("r", Arc::clone(key)),
        (_, _, Some(key)) => ("k", key),
        (_, _, None) => return String::new(),
    };
    let act =
        if draft.marks.late || policy.latest_by_time { act.to_ascii_uppercase() } else { act.to_owned() };
    act + &key
}

pub(super) fn read_open(key: &str, answer: &[Value]) -> Result<OpenLog> {
    let [epoch, top, last, at, newest, producers @ ..] = answer else {
        return Err(corrupt(key, "the answer to open is too short"));
    };
    if producers.len() % 2 != 0 {
        return Err(corrupt(key, "the answer to open has half a producer"));
    }
    let string = |value: &Value| value.as_string().unwrap_or_default();
    let producers = producers.chunks_exact(2).map(|pair| {
        let node = string(&pair[0]).parse().map_err(|_| corrupt(key, "not a producer"))?;
        Ok((node, parse_seq(key, &string(&pair[1]))?))
    });
    Ok(OpenLog {
        epoch: parse_epoch(key, &string(epoch))?,
        top: top.as_u64().ok_or_else(|| corrupt(key, "newest offset"))?,
        last_seq: parse_seq(key, &string(last))?,
        producers: producers.collect::<Result<_>>()?,
        anchor: read_anchor(key, at, newest)?,
    })
}

/// The id of the entry at an offset; `None` if the entry is not kept.
fn read_anchor(key: &str, at: &Value, stored: &Value) -> Result<Option<Anchor>> {
    let stored = match stored {
        Value::Bytes(stored) => stored,
        Value::String(stored) => stored.inner(),
        _ => return Err(corrupt(key, "the answer to open has no entry where one must be")),
    };
    if stored.is_empty() {
        return Ok(None);
    }
    let offset = at.as_u64().ok_or_else(|| corrupt(key, "offset"))?;
    // An entry whose id is unreadable is no anchor.
    Ok(decode_id(stored).map(|id| Anchor { offset, id }))
}

pub(super) fn read_answer(key: &str, batch: &AppendBatch, answer: &[Value]) -> Result<AppendAnswer> {
    let (word, results) = answer.split_first().ok_or_else(|| corrupt(key, "empty answer"))?;
    if word.as_str().as_deref() == Some("foreign") {
        let epoch = results.first().and_then(Value::as_string).unwrap_or_default();
        return Ok(AppendAnswer::ForeignEpoch(epoch_if_any(key, &epoch)?));
    }
    // Otherwise the outcome of some entries would be unknown.
    if results.len() != batch.entries.len() {
        return Err(corrupt(key, "the answer to append has a wrong number of results"));
    }
    let results = results.iter().zip(&batch.entries).map(|(result, append)| {
        let read = match result {
            Value::Integer(0) => Some(Appended::Duplicate),
            Value::Integer(offset) if *offset > 0 => {
                Some(Appended::Applied { offset: offset.unsigned_abs() })
            }
            Value::Integer(gap) => Some(Appended::Gap { last: gap.unsigned_abs() - 1 }),
            word => word.as_str().and_then(|word| read_refusal(&word, append)).map(Appended::Refused),
        };
        read.ok_or_else(|| corrupt(key, "the answer to append has an unknown result"))
    });
    Ok(AppendAnswer::Done(results.collect::<Result<_>>()?))
}

fn read_refusal(word: &str, append: &Append) -> Option<Refusal> {
    if word == "closed" {
        return Some(Refusal::Closed);
    }
    let newest = word.strip_prefix("fence ")?.parse().ok()?;
    Some(Refusal::StaleFence { fence: append.fence?, newest })
}

pub(super) fn read_page(key: &str, answer: &[Value]) -> Result<Page> {
    let [epoch, top, first, closed, entries @ ..] = answer else {
        return Err(corrupt(key, "page is cut short"));
    };
    let epoch = epoch_if_any(key, &epoch.as_string().unwrap_or_default())?;
    let (Some(top), Some(first)) = (top.as_u64(), first.as_u64()) else {
        return Err(corrupt(key, "page without offsets"));
    };
    let entries = entries.chunks(2).map(|pair| match pair {
        [offset, Value::Bytes(stored)] => Ok(decode(offset.as_u64().unwrap_or(0), stored)),
        [offset, Value::String(stored)] => Ok(decode(offset.as_u64().unwrap_or(0), stored.as_bytes())),
        _ => Err(corrupt(key, "page is cut short")),
    });
    let (closed, entries) = (closed.as_u64() == Some(1), entries.collect::<Result<_>>()?);
    Ok(Page { epoch, top, first, closed, entries, ..Page::of_no_log() })
}

fn parse_epoch(key: &str, text: &str) -> Result<Epoch> {
    Epoch::of_log(text).map_err(|_| corrupt(key, "not an epoch of a log"))
}

/// The epoch of a log; `None` for an empty text.
fn epoch_if_any(key: &str, text: &str) -> Result<Option<Epoch>> {
    if text.is_empty() { Ok(None) } else { parse_epoch(key, text).map(Some) }
}

/// The stored state of a producer: its newest sequence, and when it came. Empty for a new producer.
fn parse_seq(key: &str, text: &str) -> Result<u64> {
    let seq = text.split(' ').next().unwrap_or_default();
    if seq.is_empty() { Ok(0) } else { seq.parse().map_err(|_| corrupt(key, "producer's sequence")) }
}

fn flag(value: bool) -> Value {
    text(u8::from(value))
}

fn exact(number: u64) -> u64 {
    number.min(EXACT_MAX)
}
