//! Probes of the parsers of positions, and of entries stored in Redis and on disk: see [`crate::probes`].

use super::epoch_name::{EpochName, begin_of_fork, had_at, is_fork, log_of_fork, told_epoch};
use super::outage::spool;
use super::{codec, memory};
use crate::model::{Entry, Epoch, OFFSET_MAX, Position};
use crate::support::probing::text;

pub(crate) use super::redis::probes::redis_answers;

/// Positions are resume tokens, so clients send them back.
pub(crate) fn positions(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(epoch) = Epoch::of_log(text) {
        assert_eq!(epoch.as_str(), text);
        assert_eq!(EpochName::of(&epoch), None, "an epoch of a log names nothing else");
    }
    let Ok(position) = text.parse::<Position>() else { return };
    let Position { epoch, offset } = &position;
    assert!(*offset <= OFFSET_MAX && (1..=1_024).contains(&epoch.as_str().len()));
    assert!(epoch.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
    assert_eq!(position.to_string().parse(), Ok(position.clone()));
    let written = serde_json::to_string(&position).expect("plain fields");
    assert_eq!(serde_json::from_str::<Position>(&written).expect("as it was written"), position);
    // The version vector of its reader survives being written into an epoch and read again.
    let had = had_at(&position);
    let log: Epoch = "0123456789abcdef".parse().expect("plain");
    let told = told_epoch(&log, &had);
    if told.as_str().starts_with("v.") {
        assert_eq!(EpochName::of(&told), Some(EpochName::View(log.clone(), had)), "{told} of {text}");
    }
    assert_eq!(begin_of_fork(epoch).is_some(), is_fork(epoch) && EpochName::of(epoch).is_some());
    assert!(log_of_fork(epoch).is_none_or(|log| Epoch::of_log(log.as_str()).is_ok()));
}

/// Stored entries. `can_be_written` is called with each decoded entry and panics if it cannot be sent.
pub(crate) fn stored(bytes: &[u8], can_be_written: impl Fn(&Entry)) {
    let entry = codec::decode(9, bytes);
    assert_eq!(entry.offset, 9);
    assert!(entry.draft.data.len() <= bytes.len());
    can_be_written(&entry);
    if entry.draft.kind.unknown().is_none() {
        let again = codec::encode(entry.id, &entry.draft);
        assert_eq!(codec::decode(9, &again), entry);
        assert_eq!(codec::decode_id(&again), Some(entry.id));
    }
    spool::probes::appends(bytes);
    memory::probes::rows(bytes);
    super::redis::probes::batches(bytes, can_be_written);
}
