//! A probe of the parser of the spool's rows.

use uuid::Uuid;

use super::store::{decode, encode};
use crate::model::NodeId;
use crate::storage::codec;

/// Rows of the spool.
pub(in crate::storage) fn appends(bytes: &[u8]) {
    // The key of a row has its producer and its sequence.
    let stored = bytes.splitn(4, |byte| *byte == b' ').nth(3).and_then(codec::decode_id);
    let (producer, seq) = stored.map_or((NodeId(Uuid::nil()), 1), |id| (id.producer, id.seq));
    if let Ok(append) = decode(producer, seq, bytes) {
        assert_eq!(append.seq, seq);
        assert_eq!(decode(producer, seq, &encode(producer, &append)), Ok(append));
    }
    let other = NodeId(Uuid::from_u128(producer.0.as_u128() ^ 1));
    assert!(decode(other, seq, bytes).is_err(), "it would be taken for another producer's");
}
