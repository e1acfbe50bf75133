use std::time::Duration;

use chrono::{DateTime, Utc};

use super::*;
use crate::model::{EntryId, EntryKind, EventType, NodeId, new_epoch};
use crate::protocol::parse_event;

fn name(text: &str) -> ChannelName {
    text.parse().unwrap()
}

/// A ticker, or, where its symbol is empty, something that this build cannot show.
fn entry(offset: u64, exchange: &str, symbol: &str) -> Entry {
    let text = format!(r#"{{"exchange":"{exchange}","symbol":"{symbol}","price":{offset}}}"#);
    let ahead = Duration::from_secs(1);
    let draft = parse_event(EventType::Ticker, &text, DateTime::<Utc>::UNIX_EPOCH, ahead);
    let draft = draft.unwrap_or_else(|_| {
        let other = format!(r#"{{"exchange":"a","symbol":"B","price":{offset}}}"#);
        let mut draft = parse_event(EventType::Ticker, &other, DateTime::<Utc>::UNIX_EPOCH, ahead).unwrap();
        draft.kind = EntryKind::named("quote", false).unwrap();
        draft
    });
    Entry { offset, id: EntryId { producer: NodeId::random(), seq: offset }, draft }
}

/// The encoded batches: for each view, the range that it covers and the offsets that it shows.
fn told(told: Vec<(Arc<str>, Live)>) -> Vec<(String, u64, u64, Vec<u64>)> {
    let mut told: Vec<_> = told
        .into_iter()
        .map(|(pattern, live)| {
            let Live::Batch(batch) = live else { panic!("no batch") };
            assert_eq!(batch.channel.as_event().unwrap().1, Some(&*pattern));
            let offsets = (0..batch.len()).map(|index| batch.offset(index)).collect();
            (pattern.to_string(), batch.first, batch.last(), offsets)
        })
        .collect();
    told.sort();
    told
}

#[test]
fn each_view_is_told_what_it_shows_and_how_far_the_log_was_looked_through() {
    let mut views = Views::default();
    for view in ["event:ticker:a:B", "event:ticker:a:*", "event:ticker:*:B", "event:ticker:z:Z"] {
        views.join(&name(view), 0, 1, 10);
    }
    let encode = |views: &mut Views, entries: &[Entry], whole_from| {
        told(views.encode(&new_epoch(), Lane::Latest, false, entries, whole_from))
    };
    let run = [entry(11, "a", "B"), entry(12, "a", "C"), entry(13, "b", "B"), entry(14, "b", "C")];
    let shown =
        |pattern: &str, first, last, offsets: &[u64]| (pattern.to_owned(), first, last, offsets.to_vec());
    assert_eq!(
        encode(&mut views, &run, 1),
        [shown("*:B", 11, 14, &[11, 13]), shown("a:*", 11, 14, &[11, 12]), shown("a:B", 11, 14, &[11])]
    );
    // A view that was sent nothing for a while covers all of that with the next entry that it shows.
    assert_eq!(encode(&mut views, &[entry(15, "z", "Z")], 1), [shown("z:Z", 11, 15, &[15])]);
    assert_eq!(encode(&mut views, &[entry(16, "q", "Q")], 1), []);
    // If entries were left out, it does not cover what lies before them.
    assert_eq!(
        encode(&mut views, &[entry(20, "a", "B")], 20),
        [shown("*:B", 20, 20, &[20]), shown("a:*", 20, 20, &[20]), shown("a:B", 20, 20, &[20])]
    );
    assert!(views.leave(&name("event:ticker:*:B"), 0));
    assert!(views.leave(&name("event:ticker:a:*"), 0));
    assert!(!views.leave(&name("event:ticker:a:*"), 0), "it is gone");
    let unreadable = [entry(21, "a", "")];
    assert_eq!(
        encode(&mut views, &unreadable, 20),
        [shown("a:B", 21, 21, &[21]), shown("z:Z", 20, 21, &[21])],
        "what cannot be shown may be anybody's"
    );
}

#[test]
fn a_filter_shows_what_its_pattern_says() {
    for (view, exchange, symbol, expected) in [
        ("event:ticker", "a", "B", true),
        ("event:ticker:a:B", "a", "B", true),
        ("event:ticker:a:B", "a", "BC", false),
        ("event:ticker:a:*", "a", "BC", true),
        ("event:ticker:a:*", "ab", "B", false),
        ("event:ticker:*:B", "ab", "B", true),
    ] {
        let view = name(view);
        assert_eq!(
            Filter::of(&view).shows(&entry(1, exchange, symbol)),
            expected,
            "{view} {exchange} {symbol}"
        );
    }
    let prefix = |view: &str| Filter::of(&name(view)).prefix();
    assert_eq!(prefix("event:ticker:*:B"), "");
    assert_eq!(prefix("event:ticker:a:*"), "a:");
    assert_eq!(prefix("event:candle:a:B:*"), "a:B:");
    assert_eq!(prefix("event:ticker:a:B"), "a:B");
}

#[test]
fn a_batch_of_a_view_is_cut_where_a_reader_stands() {
    let (first, second) = (entry(5, "a", "B"), entry(9, "a", "B"));
    let view = name("event:ticker:a:B");
    let batch =
        |entries: &[&Entry]| LiveBatch::encode_view(&view, &new_epoch(), Lane::Every, false, 3..=12, entries);
    let some = batch(&[&first, &second]);
    assert_eq!([2, 4, 5, 8, 9, 20].map(|cursor| some.count_up_to(cursor)), [0, 0, 1, 1, 2, 2]);
    let part = some.part(1..2);
    assert_eq!((part.first, part.last(), part.offset(0), part.len()), (6, 12, 9, 1));
    let none = batch(&[]);
    assert_eq!((none.len(), none.last(), none.count_up_to(7)), (0, 12, 0));
}
