//! The rows of the folder: their keys, their content, and the times in them.
//!
//! A row is a key and bytes, of which the first four are a checksum of both. Times are microseconds of the
//! wall clock, because no other clock outlasts a process.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::Channel;
use crate::model::{ChannelName, Entry, Epoch, JobId, NodeId};
use crate::storage::{AGE_MAX, RecordKind, codec};

/// The version of the form of all rows. A folder with a later version is not read.
pub(in crate::storage::memory) const FORM: u32 = 1;

/// What a row describes. A channel is identified by a number, `incarnation`, which is new each time its log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::memory) enum Place {
    /// A channel.
    Channel(u64),
    /// An entry of a channel, at its offset.
    Entry(u64, u64),
    /// The newest sequence of a producer in a channel.
    Producer(u64, NodeId),
    Record(RecordKind, String),
    Job(JobId),
    /// The data that concern all jobs.
    Jobs,
    /// The fencing token up to which tokens of leases may have been given out.
    Fences,
    /// The process that used the folder last, and the version of the rows' form.
    Use,
    /// The number of the newest group of changes that the rows have.
    Applied,
}

/// Kinds of records that survive the process. Records of other kinds describe a process that is gone.
const KINDS: [RecordKind; 2] = [RecordKind::Zone, RecordKind::Revocation];

/// Whether records of this kind are kept on disk.
pub(in crate::storage::memory) fn is_kept(kind: RecordKind) -> bool {
    KINDS.contains(&kind)
}

/// The kind of that name, if its records are kept on disk.
pub(super) fn kept_kind(name: &str) -> Option<RecordKind> {
    KINDS.into_iter().find(|kind| kind.as_str() == name)
}

impl Place {
    /// The key of the row. Channels sort before entries, so that they are known when entries are read.
    pub(in crate::storage::memory) fn key(&self) -> Vec<u8> {
        match self {
            Self::Channel(incarnation) => [b"c", &incarnation.to_be_bytes()[..]].concat(),
            Self::Entry(incarnation, offset) => {
                [b"e", &incarnation.to_be_bytes()[..], &offset.to_be_bytes()[..]].concat()
            }
            Self::Producer(incarnation, node) => {
                [b"p", &incarnation.to_be_bytes()[..], &node.0.as_u128().to_be_bytes()[..]].concat()
            }
            Self::Record(kind, key) => [b"r", kind.as_str().as_bytes(), b"\0", key.as_bytes()].concat(),
            Self::Job(id) => [b"j", &id.0.as_u128().to_be_bytes()[..]].concat(),
            Self::Jobs => b"mj".to_vec(),
            Self::Fences => b"mf".to_vec(),
            Self::Use => b"mu".to_vec(),
            Self::Applied => b"ma".to_vec(),
        }
    }

    /// The place that a key belongs to; `None` if it is not known.
    pub(in crate::storage::memory) fn of(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
        let id = |bytes: &[u8]| Some(Uuid::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)));
        match (kind, rest) {
            (b'c', incarnation) => Some(Self::Channel(number(incarnation)?)),
            (b'e', rest) => {
                let (incarnation, offset) = rest.split_at_checked(8)?;
                Some(Self::Entry(number(incarnation)?, number(offset)?))
            }
            (b'p', rest) => {
                let (incarnation, node) = rest.split_at_checked(8)?;
                Some(Self::Producer(number(incarnation)?, NodeId(id(node)?)))
            }
            (b'r', rest) => {
                let (kind, key) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
                Some(Self::Record(kept_kind(kind)?, key.to_owned()))
            }
            (b'j', job) => Some(Self::Job(JobId(id(job)?))),
            (b'm', b"j") => Some(Self::Jobs),
            (b'm', b"f") => Some(Self::Fences),
            (b'm', b"u") => Some(Self::Use),
            (b'm', b"a") => Some(Self::Applied),
            _ => None,
        }
    }
}

/// The stored form of a row.
pub(super) fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut sealed = checksum(key, content).to_be_bytes().to_vec();
    sealed.extend_from_slice(content);
    sealed
}

/// The content of a stored row; `None` if it is damaged.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, content) = sealed.split_first_chunk()?;
    (u32::from_be_bytes(*sum) == checksum(key, content)).then_some(content)
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

// Times

/// One moment on both clocks: the monotonic one decides, and the wall clock outlasts the process.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage::memory) struct Clock {
    pub(in crate::storage::memory) at: Instant,
    pub(in crate::storage::memory) wall_us: i64,
}

impl Clock {
    pub(in crate::storage::memory) fn read() -> Self {
        Self { at: Instant::now(), wall_us: Utc::now().timestamp_micros() }
    }

    /// The stored form of a moment.
    pub(in crate::storage::memory) fn us(&self, moment: Instant) -> i64 {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match moment.checked_duration_since(self.at) {
            Some(ahead) => self.wall_us.saturating_add(micros(ahead)),
            None => self.wall_us.saturating_sub(micros(self.at.duration_since(moment))),
        }
    }

    /// The moment that was stored as `us` when the wall clock said `written_us`. If that clock was set back
    /// since, the moment is as far away as it was then.
    pub(in crate::storage::memory) fn moment(&self, us: i64, written_us: i64) -> Instant {
        let ahead = i128::from(us) - i128::from(self.wall_us.max(written_us));
        let span =
            Duration::from_micros(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX)).min(AGE_MAX);
        if ahead >= 0 { self.at + span } else { self.at.checked_sub(span).unwrap_or(self.at) }
    }

    /// The same for a moment that is past.
    pub(super) fn past(&self, us: i64) -> Instant {
        self.moment(us, us).min(self.at)
    }
}

// Contents of rows

/// A channel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChannelRow {
    pub(super) name: String,
    pub(super) epoch: Epoch,
    pub(super) top: u64,
    /// The offset at which the log begins. Entries before it are kept only as the latest of their keys.
    pub(super) first: u64,
    pub(super) fence: u64,
    pub(super) closed: bool,
    pub(super) touched_us: i64,
}

impl ChannelRow {
    pub(super) fn of(name: &ChannelName, channel: &Channel, clock: &Clock) -> Self {
        Self {
            name: name.as_str().to_owned(),
            epoch: channel.epoch.clone(),
            top: channel.top,
            first: channel.first(),
            fence: channel.fence,
            closed: channel.closed,
            touched_us: clock.us(channel.touched),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        json(self)
    }
}

/// Text and numbers are written as JSON.
pub(in crate::storage::memory) fn json<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_default()
}

pub(super) fn encode_entry(entry: &Entry, appended_us: i64) -> Vec<u8> {
    let stored = codec::encode(entry.id, &entry.draft);
    [format!("{appended_us} ").as_bytes(), &stored].concat()
}

/// An entry, and the time at which it was appended.
pub(super) fn decode_entry(offset: u64, content: &[u8]) -> Option<(i64, Entry)> {
    let (appended, stored) = split_at(content, b' ')?;
    let entry = codec::decode(offset, stored);
    entry.id.is_known().then_some((codec::number(appended).ok()?, entry))
}

pub(super) fn encode_producer(seq: u64, came_us: i64) -> Vec<u8> {
    format!("{seq} {came_us}").into_bytes()
}

/// A producer's newest sequence, and the time at which it came.
pub(super) fn decode_producer(content: &[u8]) -> Option<(u64, i64)> {
    let (seq, came) = split_at(content, b' ')?;
    Some((codec::number(seq).ok()?, codec::number(came).ok()?))
}

pub(super) fn encode_record(value: &[u8], expires_us: i64, written_us: i64) -> Vec<u8> {
    [format!("{expires_us} {written_us} ").as_bytes(), value].concat()
}

/// A record's value, its expiry, and the time at which the row was written.
pub(super) fn decode_record(content: &[u8]) -> Option<(Bytes, i64, i64)> {
    let (expires, rest) = split_at(content, b' ')?;
    let (written, value) = split_at(rest, b' ')?;
    Some((Bytes::copy_from_slice(value), codec::number(expires).ok()?, codec::number(written).ok()?))
}

fn split_at(bytes: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == mark)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}
