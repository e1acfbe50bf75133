//! A probe of the reader of outside updates.

use uuid::Uuid;

use super::read::{Read, after_gap, identity, identity_of, producer, read};
use crate::model::{ChannelName, Entry, EntryId, OrderId};
use crate::protocol::{ServerMessage, entry_json};
use crate::support::probing::{NOW, json, text, told};

/// Updates as outside workers publish them or push them to lists.
pub(crate) fn outside_updates(bytes: &[u8]) {
    const BYTES_MAX: usize = 16 << 10;
    let order = OrderId(Uuid::from_u128(7));
    let named = identity(order, bytes);
    assert_eq!(identity_of(producer(named)), Some(named));
    let draft = match read(order, bytes, BYTES_MAX, NOW) {
        Read::Update(draft) => draft,
        Read::Own => return,
        Read::Invalid(invalid) => return told(&invalid.to_string()),
    };
    assert!(draft.kind.is_stage());
    // Fields named like those of the envelope get other names, which are longer.
    assert!(draft.data.len() <= 4 * bytes.len() + 64, "{} bytes of {}", draft.data.len(), bytes.len());
    let id = EntryId { producer: producer(named), seq: 1 };
    let channel = ChannelName::order(order);
    for draft in [after_gap(&draft), draft] {
        let mut frame = Vec::new();
        entry_json(&channel, &Entry { offset: 1, id, draft }, false, &mut frame);
        let frame = text(&frame).expect("frames are text");
        json(frame);
        assert!(matches!(ServerMessage::read(frame), Ok(ServerMessage::Entry(_))), "{frame}");
    }
}
