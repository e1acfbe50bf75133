//! The health probe: proves that Redis accepts writes, and has lost nothing that it acknowledged.
//!
//! The data in Redis have a random id (`life`), which the first probe creates, and which is lost when the
//! data are. Each node has a counter next to it. Each probe sends what the node knows: the id, the last
//! acknowledged number, and the number of this probe, which is greater than all before. From these the script
//! determines what has happened:
//!
//! - another id: the data were flushed, or this is another server;
//! - a counter below the acknowledged number: the data are older than before.
//!
//! The comparison is with what the node *knows*, and it learns only from answers. A probe whose answer is
//! lost changes nothing that could hide a loss: if the counter is older, the script writes nothing, so the
//! next probe finds the loss again; and a new id stays different from the known one. A probe that is delayed
//! and runs after its successors has a smaller number than theirs, so it writes none. Hence each loss is
//! reported exactly once: by the first probe that is answered after it (several losses together, if no probe
//! in between was answered).
//!
//! A probe is also a message of the node to itself, on its own pub/sub channel: its arrival proves that
//! published messages arrive.
//!
//! Probes are 200 ms apart. If entries that were acknowledged after the last probe are lost, and the
//! connection is not, that is not detected here. Appends detect it by the epoch and the producer's chain.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use fred::types::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::commands::Priority;
use super::errors::corrupt;
use super::primaries::slot_of;
use super::scripts::{Publishing, Words, text};
use super::{EXACT_MAX, RedisBackend};
use crate::model::{ChannelName, NodeId};
use crate::storage::primary::{Domain, Place, Primary};
use crate::storage::{Beat, Lost, Result};

/// How long the id is kept after the last probe, and a node's counter after the node's last probe.
const KEPT_FOR_S: u64 = 24 * 3_600;
/// Counters of nodes that are gone are removed once in this many probes of a node.
const PRUNE_EVERY: u64 = 512;

static BEAT: LazyLock<Publishing> = LazyLock::new(|| Publishing::new(&[include_str!("lua/beat.lua")]));

/// What a node knows about the data on each server. Locked during a probe, so that probes of one server run
/// one after the other.
#[derive(Debug, Default)]
pub(super) struct Lives(parking_lot::Mutex<HashMap<Domain, Arc<Mutex<Option<Known>>>>>);

/// The last reading of each server's clock, and when it was requested.
#[derive(Debug, Default)]
pub(super) struct Clocks(parking_lot::Mutex<HashMap<Domain, (Instant, u64)>>);

#[derive(Debug)]
struct Known {
    node: NodeId,
    /// The key of the hash.
    key: String,
    /// The id of the data; empty until the first answer.
    life: String,
    /// The node's counter on the server, by the newest answer.
    acknowledged: u64,
    /// The greatest number ever sent.
    sent: u64,
}

impl RedisBackend {
    /// One round trip that proves that Redis accepts our kinds of writes (a value, a stream, a message), and
    /// tells whether it is the same Redis, with its data. Call it every 200 ms, one call at a time; a call
    /// during another waits for it.
    ///
    /// `Older` and `Other` are reported once for each loss; a call that failed or was dropped takes nothing
    /// away from the next one.
    ///
    /// # Errors
    /// Redis cannot be reached, does not answer in time, or accepts no writes; the error says which.
    pub async fn beat(&self, node: NodeId) -> Result<Beat, Lost> {
        Primary::beat(self, Domain::ONLY, node).await
    }

    /// The same for one domain.
    pub(super) async fn beat_in(&self, domain: Domain, node: NodeId) -> Result<Beat> {
        let held = Arc::clone(self.lives.0.lock().entry(domain).or_default());
        let mut guard = held.lock().await;
        let before = guard.as_ref().map(|known| known.key.as_str());
        let tag = self.tag_in(domain, before);
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
            text(known.acknowledged),
            text(known.sent),
            text(Uuid::new_v4().simple()),
            text(node),
            text(KEPT_FOR_S),
            text(u8::from(known.sent % PRUNE_EVERY == 1)),
        ];
        let sent = Instant::now();
        let (script, words) = (BEAT.script(self.keys.sharded), Words::of(&keys, &args));
        let (word, life, held, time): (String, String, String, String) =
            script.send(Priority::Beat, &self.commands, "beat", keys.len(), words).await?;
        let beat = match word.as_str() {
            "same" => Some(Beat::Same),
            "first" => Some(Beat::First),
            "older" => Some(Beat::Older),
            "other" => Some(Beat::Other),
            _ => None,
        };
        let (Some(beat), Ok(held)) = (beat, held.parse()) else {
            return Err(corrupt(&known.key, "the answer to a health probe has an unknown form"));
        };
        (known.life, known.acknowledged) = (life, held);
        if let Ok(ms) = time.parse() {
            self.clocks.0.lock().insert(domain, (sent, ms));
        }
        self.subscriber.expect(&to_itself);
        Ok(beat)
    }

    /// The present time of the clock of the server with a channel, in ms, or slightly later; `None` until
    /// that server has answered a health probe.
    pub(super) fn server_time(&self, channel: &ChannelName) -> Option<u64> {
        let domain = self.domain_of(Place::Channel(channel));
        let (asked, said) = *self.clocks.0.lock().get(&domain)?;
        // The clock was read after the request, so this is never too early, and no entry seems to be sent
        // earlier than it was.
        said.checked_add(u64::try_from(asked.elapsed().as_millis()).ok()?)
    }

    /// The hash tag of the keys that a domain's health probes write, the same on all nodes that see the same
    /// domains. In a cluster its slot is in the domain; the tag of the key `before` is kept while that is
    /// true of it.
    pub(super) fn tag_in(&self, domain: Domain, before: Option<&str>) -> String {
        /// More than enough to find a slot of each domain.
        const TRIED: usize = 400_000;
        let Some(primaries) = self.commands.primaries() else { return "life".to_owned() };
        let slots = primaries.slots();
        let lands = |tag: &str| slots.domain(slot_of(tag)) == domain;
        let tag_of = |key: &str| Some(key.split_once('{')?.1.split_once('}')?.0.to_owned());
        if let Some(tag) = before.and_then(tag_of).filter(|tag| lands(tag)) {
            return tag;
        }
        let tried = (0..TRIED).map(|n| format!("life:{n}"));
        tried.into_iter().find(|tag| lands(tag)).unwrap_or_else(|| "life:0".to_owned())
    }
}
