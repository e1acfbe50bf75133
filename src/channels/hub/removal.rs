//! Removes keys and zones. A removal is an entry of the zone's log, so every gateway and every subscriber
//! sees it in order among the prices, even across an outage.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::{Channels, Need, PublishError, Terms, is_of_a_price};
use crate::model::{ChannelName, DraftEntry, EntryKind, Marks, Zone};
use crate::protocol::PayloadWriter;
use crate::storage::{RecordKind, StorageError};

impl Channels {
    /// Removes a key of a zone: the key no longer has a latest entry, and subscribers of the zone get the
    /// removal in order. False if there is no such key. Publishing the key again creates it again.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) async fn remove_key(&self, zone: &Zone, key: &str) -> Result<bool, PublishError> {
        let channel = ChannelName::zone(zone);
        let keys = self.keys_of(&channel).await?;
        let Ok(at) = keys.binary_search_by(|known| (**known).cmp(key)) else { return Ok(false) };
        let before = at.checked_sub(1).map(|before| &*keys[before]);
        let time = self.time_after(&channel, before, Some(key)).await?;
        let queues = self.queues(&channel, Need::Publisher);
        let mut payload = PayloadWriter::default();
        payload.push_text("key", key);
        let removal = draft(time, EntryKind::KeyRemoved, Some(key.into()), payload);
        self.hand_over(&channel, queues.clone(), vec![removal], Terms::USUAL).await?;
        // The keys are read again from the storage when they are needed next.
        *queues.keys.lock() = None;
        Ok(true)
    }

    /// Removes all keys of a zone, and its record. Its entries stay in the log as long as they would have,
    /// and its positions stay valid. False if there is no such zone.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) async fn remove_zone(&self, zone: &Zone) -> Result<bool, PublishError> {
        let (channel, backend) = (ChannelName::zone(zone), &self.0.common.backend);
        let recorded = backend.get(RecordKind::Zone, zone.as_str()).await.map_err(unavailable)?;
        if recorded.is_none() && self.keys_of(&channel).await?.is_empty() {
            return Ok(false);
        }
        let time = self.time_after(&channel, None, None).await?;
        let queues = self.queues(&channel, Need::Publisher);
        let removal = draft(time, EntryKind::ZoneRemoved, None, PayloadWriter::default());
        self.hand_over(&channel, queues.clone(), vec![removal], Terms::USUAL).await?;
        *queues.keys.lock() = None;
        backend.delete(RecordKind::Zone, zone.as_str()).await.map_err(unavailable)?;
        self.0.zones.lock().remove(&channel);
        // Somebody may have published to it in the meantime.
        if !self.keys_of(&channel).await?.is_empty() {
            self.admit_zone(&channel, false).await?;
        }
        Ok(true)
    }

    /// The time of a removal, of one key or of all: now, or right after the newest entry that it removes if
    /// that has a later time, so that the removal is newer wherever the two are compared by time. `before`:
    /// the key after which to look for that entry.
    async fn time_after(
        &self,
        channel: &ChannelName,
        before: Option<&str>,
        key: Option<&str>,
    ) -> Result<DateTime<Utc>, PublishError> {
        /// After a key there may be entries of other kinds before the next key.
        const FEW: usize = 16;
        let limit = if key.is_some() { FEW } else { usize::MAX };
        let (mut after, mut newest) = (before.map(str::to_owned), Utc::now());
        loop {
            let page = self.0.common.backend.latest(channel, after.as_deref(), limit).await;
            let page = page.map_err(unavailable)?;
            let drafts = page.entries.iter().map(|entry| &entry.draft);
            let removed = drafts.filter(|draft| key.is_none_or(|key| draft.key.as_deref() == Some(key)));
            let after_each = removed.map(|draft| draft.time + TimeDelta::milliseconds(1));
            newest = after_each.chain([newest]).max().unwrap_or(newest);
            after = page.next.filter(|_| key.is_none());
            if after.is_none() {
                return Ok(newest.trunc_subsecs(3));
            }
        }
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

/// An entry that the gateway itself creates.
fn draft(time: DateTime<Utc>, kind: EntryKind, key: Option<Arc<str>>, payload: PayloadWriter) -> DraftEntry {
    DraftEntry { time, kind, key, data: payload.finish(), marks: Marks::default() }
}
