//! Probes of the readers of orders, and of the updates of outside workers: see [`crate::probes`].

use uuid::Uuid;

use super::interop::read::{Read, after_gap, identity, identity_of, producer, read};
use super::request::{InvalidOrder, OrderRequest};
use crate::model::{ChannelName, Entry, EntryId, OrderId};
use crate::protocol::{ServerMessage, entry_json};
use crate::support::probing::{NOW, json, text, told};

/// Orders, as clients place them.
pub(crate) fn orders(bytes: &[u8]) {
    let Some(order) = text(bytes) else { return };
    let request = match OrderRequest::parse(order) {
        Ok(request) => request,
        Err(InvalidOrder::Json(problem)) => return told(&problem),
        Err(InvalidOrder::Fields(faults)) => {
            assert!((1..=20).contains(&faults.len()), "{} faults", faults.len());
            for fault in faults {
                told(&fault.field);
                told(&fault.message);
            }
            return;
        }
    };
    let handed_out = request.as_json().get();
    let written = json(handed_out);
    assert!(handed_out.len() <= 2 * order.len() + 256, "{} bytes of {}", handed_out.len(), order.len());
    assert!(request.number("amount").is_some_and(|amount| amount > 0.0 && amount.is_finite()));
    assert!(
        request.number("slippage").is_some_and(|slippage| (0.0..=1.0).contains(&slippage)),
        "{handed_out}"
    );
    let of = |name| request.number(name).expect("a number");
    let (fraction, percent) = (of("slippage"), of("slippagePercent"));
    assert!((fraction * 100.0 - percent).abs() <= 1e-9 * percent, "{handed_out}");
    // The client sees the order that it placed, and may place it again as the same order.
    let shown = request.shown_as_swap();
    let shown_again = OrderRequest::parse(shown.as_json().get()).expect("what was taken is taken again");
    assert_eq!(shown_again.fingerprint(), request.fingerprint());
    assert_eq!(json(shown_again.as_json().get()), written);
}

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
