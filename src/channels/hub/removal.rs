//! Keys and zones that an operator takes away. A removal is an entry of the zone's log, so that every
//! gateway and every subscriber gets it in its place among the prices, also across an outage.

use std::sync::Arc;

use chrono::Utc;

use super::{Channels, Need, PublishError, is_of_a_price};
use crate::model::{ChannelName, DraftEntry, EntryKind, Marks, Zone};
use crate::protocol::{PayloadWriter, quoted};
use crate::storage::{RecordKind, StorageError};

impl Channels {
    /// Removes a key of a zone: it has no latest entry any more, and those who follow the zone are told in
    /// their order. False where there is no such key. One who publishes it again makes it anew.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) async fn remove_key(&self, zone: &Zone, key: &str) -> Result<bool, PublishError> {
        let channel = ChannelName::zone(zone);
        if !self.keys_of(&channel).await?.iter().any(|known| **known == *key) {
            return Ok(false);
        }
        let door = self.door(&channel, Need::Publisher);
        let mut payload = PayloadWriter::default();
        payload.push("key", &quoted(key));
        let removal = draft(EntryKind::KeyRemoved, Some(key.into()), payload);
        self.hand_over(&channel, door.clone(), vec![removal], None).await?;
        // They are read again where they are needed next.
        *door.keys.lock() = None;
        Ok(true)
    }

    /// The same for all keys of a zone, and its record. Entries stay in the log as long as they would
    /// have, and the zone keeps its positions. False where there is no such zone.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) async fn remove_zone(&self, zone: &Zone) -> Result<bool, PublishError> {
        let (channel, backend) = (ChannelName::zone(zone), &self.0.common.backend);
        let recorded = backend.get(RecordKind::Zone, zone.as_str()).await.map_err(unavailable)?;
        if recorded.is_none() && self.keys_of(&channel).await?.is_empty() {
            return Ok(false);
        }
        let door = self.door(&channel, Need::Publisher);
        let removal = draft(EntryKind::ZoneRemoved, None, PayloadWriter::default());
        self.hand_over(&channel, door.clone(), vec![removal], None).await?;
        *door.keys.lock() = None;
        backend.delete(RecordKind::Zone, zone.as_str()).await.map_err(unavailable)?;
        self.0.zones.lock().remove(&channel);
        // Somebody may have published to it in between.
        if !self.keys_of(&channel).await?.is_empty() {
            self.admit_zone(&channel, false).await?;
        }
        Ok(true)
    }

    async fn keys_of(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>, PublishError> {
        let mut keys = self.0.common.backend.keys(channel).await.map_err(unavailable)?;
        keys.retain(|key| is_of_a_price(key));
        Ok(keys)
    }
}

fn unavailable(error: StorageError) -> PublishError {
    PublishError::Unavailable { accepted: 0, cause: Arc::new(error) }
}

/// An entry that the gateway itself makes.
fn draft(kind: EntryKind, key: Option<Arc<str>>, payload: PayloadWriter) -> DraftEntry {
    DraftEntry { time: Utc::now(), kind, key, data: payload.finish(), marks: Marks::default() }
}
