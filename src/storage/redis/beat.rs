//! One beat: proof that Redis takes writes, and has lost nothing that it acknowledged.
//!
//! The data in Redis have a *life*: a random id, minted by whoever beats first, that goes when they
//! go. Each node has a counter there. With each beat it sends what it knows: the life, the number
//! that was acknowledged last, and the number of this beat, which is greater than all before. From
//! that the script sees what has happened:
//!
//! - another life: the data were flushed, or this is another server;
//! - a counter below what was acknowledged: they are older than they were.
//!
//! What is compared is what the node *knows*, and it learns only from an answer. A beat whose answer
//! was cut changes nothing that could hide a loss: on an older counter the script writes nothing, so
//! the next beat finds it again, and a new life stays another one. A beat that is late and runs
//! after its successors writes a number that is below theirs, so it writes none. Hence each loss is
//! told exactly once: in the first beat that is answered after it (several together, if no beat
//! between them was answered).
//!
//! A beat is also a message of the node to itself, in a pub/sub channel of its own: that it arrives proves
//! that what is published does.
//!
//! Beats are 200 ms apart: what was acknowledged after the last one, and then lost without the
//! connection being lost, is not seen here. Whoever appends sees it by the epoch and the chain.

use std::collections::HashMap;
use std::sync::Arc;

use fred::types::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::commands::Priority;
use super::errors::corrupt;
use super::primaries::slot_of;
use super::scripts::{Publishing, to_all, to_the_shard};
use super::{EXACT_MAX, RedisBackend};
use crate::model::{ChannelName, NodeId};
use crate::storage::primary::{Area, Place, Primary};
use crate::storage::{Beat, Lost, Result};

/// How long the life is kept after the last beat, and a node's counter after the node's last beat.
const KEPT_FOR_S: u64 = 24 * 3_600;
/// Counters of nodes that are gone are looked for once in so many beats of a node.
const PRUNE_EVERY: u64 = 512;

const BEAT_PARTS: &[&str] = &[include_str!("lua/beat.lua")];

static BEAT: Publishing = Publishing::new(|| to_all(BEAT_PARTS), || to_the_shard(BEAT_PARTS));

/// What a node knows of the lives of the data: one on each server. Held during a beat, so that those of
/// a server go one by one.
#[derive(Debug, Default)]
pub(super) struct Lives(parking_lot::Mutex<HashMap<Area, Arc<Mutex<Option<Known>>>>>);

/// What the clock of each server said, and when it was asked.
#[derive(Debug, Default)]
pub(super) struct Clocks(parking_lot::Mutex<HashMap<Area, (Instant, u64)>>);

#[derive(Debug)]
struct Known {
    node: NodeId,
    /// Where it is.
    key: String,
    /// Empty until the first answer.
    life: String,
    /// What the newest answer said that the server holds.
    acknowledged: u64,
    /// The greatest number ever sent.
    sent: u64,
}

impl RedisBackend {
    /// One round trip that proves that Redis takes what we write (a value, a stream, a message), and
    /// tells whether it is the Redis that it was, with what it had. To be called every 200 ms, one
    /// at a time; a call while another is under way waits for it.
    ///
    /// `Older` and `Other` are told once for each loss; a call that failed or was dropped takes
    /// nothing away from the next one.
    ///
    /// # Errors
    /// It cannot be reached, does not answer in time, or takes no writes; says which.
    pub async fn beat(&self, node: NodeId) -> Result<Beat, Lost> {
        Primary::beat(self, Area::ONLY, node).await
    }

    /// The same of one area.
    pub(super) async fn beat_in(&self, area: Area, node: NodeId) -> Result<Beat> {
        let held = Arc::clone(self.lives.0.lock().entry(area).or_default());
        let mut guard = held.lock().await;
        let before = guard.as_ref().map(|known| known.key.as_str());
        let tag = self.tag_in(area, before);
        let keys = self.keys.life(&tag);
        let unknown = || Known { node, key: keys[0].clone(), life: String::new(), acknowledged: 0, sent: 0 };
        let known = match &mut *guard {
            Some(known) if known.node == node && known.key == keys[0] => known,
            other => other.insert(unknown()),
        };
        let to_itself = format!("{}{{{tag}}}:{node}", self.keys.publish_prefix);
        known.sent = known.sent.max(known.acknowledged).saturating_add(1).min(EXACT_MAX);
        let args = vec![
            Value::from(to_itself.as_str()),
            Value::from(known.life.as_str()),
            Value::from(known.acknowledged.to_string()),
            Value::from(known.sent.to_string()),
            Value::from(Uuid::new_v4().simple().to_string()),
            Value::from(node.to_string()),
            Value::from(KEPT_FOR_S.to_string()),
            Value::from(if known.sent % PRUNE_EVERY == 1 { "1" } else { "0" }),
        ];
        let keys = keys.to_vec();
        let sent = Instant::now();
        let (word, life, held, time): (String, String, String, String) = BEAT
            .script(self.keys.sharded)
            .run_with(Priority::Beat, &self.commands, "beat", self.command_timeout, keys, args)
            .await?;
        let beat = match word.as_str() {
            "same" => Some(Beat::Same),
            "first" => Some(Beat::First),
            "older" => Some(Beat::Older),
            "other" => Some(Beat::Other),
            _ => None,
        };
        let (Some(beat), Ok(held)) = (beat, held.parse()) else {
            return Err(corrupt(&known.key, "a beat was answered by something else"));
        };
        (known.life, known.acknowledged) = (life, held);
        if let Ok(ms) = time.parse() {
            self.clocks.0.lock().insert(area, (sent, ms));
        }
        self.subscriber.expect(&to_itself);
        Ok(beat)
    }
    /// What the clock of the server that has a channel says now, in ms, or a little more; `None` before it
    /// has answered a beat.
    pub(super) fn server_time(&self, channel: &ChannelName) -> Option<u64> {
        let area = self.area_of(Place::Channel(channel));
        let (asked, said) = *self.clocks.0.lock().get(&area)?;
        // It was read after it was asked: nothing seems to have been sent earlier than it was.
        said.checked_add(u64::try_from(asked.elapsed().as_millis()).ok()?)
    }

    /// What the keys of an area's life have in their braces: the same on all nodes that see the same
    /// areas. In a cluster it is given such a slot that they land in the area; while they do, those that
    /// were used before stay.
    pub(super) fn tag_in(&self, area: Area, before: Option<&str>) -> String {
        /// More than are needed to hit one slot of a cluster.
        const TRIED: usize = 400_000;
        let Some(primaries) = self.commands.primaries() else { return "life".to_owned() };
        let slots = primaries.slots();
        let lands = |tag: &str| slots.area(slot_of(tag)) == area;
        let tag_of = |key: &str| Some(key.split_once('{')?.1.split_once('}')?.0.to_owned());
        if let Some(tag) = before.and_then(tag_of).filter(|tag| lands(tag)) {
            return tag;
        }
        let tried = (0..TRIED).map(|n| format!("life:{n}"));
        tried.into_iter().find(|tag| lands(tag)).unwrap_or_else(|| "life:0".to_owned())
    }
}
