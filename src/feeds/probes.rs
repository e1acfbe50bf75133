//! Probes of the parsers of replayed files, and of the frames of exchanges: see [`crate::probes`].

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};

use super::replay::{FileFormat, Replay, ReplayOptions, ReplayPrice};
use crate::protocol::OrderedFields;
use crate::support::json::check_json;
use crate::support::probing::{cuts, json};

pub(crate) use super::exchanges::probes::{binance, coinbase, documents, kraken};

/// A reader that returns the input piece by piece.
struct Pieces(VecDeque<Cursor<Vec<u8>>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            match piece.read(buffer)? {
                0 => self.0.pop_front(),
                read => return Ok(read),
            };
        }
        Ok(0)
    }
}

/// The results of a file: prices, and problems of lines or of the whole file.
fn replayed(pieces: &[&[u8]], options: &ReplayOptions) -> Vec<Result<ReplayPrice, String>> {
    let input = Box::new(Pieces(pieces.iter().map(|piece| Cursor::new(piece.to_vec())).collect()));
    let replay = match Replay::read("the file".to_owned(), input, options.clone()) {
        Ok(replay) => replay,
        Err(error) => return vec![Err(error.to_string())],
    };
    replay.map(|row| row.map_err(|error| error.to_string())).collect()
}

/// Checks that a price is an object that says what its line does.
fn is_price(text: &str, ReplayPrice { line, at, price, .. }: &ReplayPrice) {
    let OrderedFields(fields) =
        serde_json::from_str(&price.json).unwrap_or_else(|e| panic!("{e}: {}", price.json));
    if check_json(&price.json).is_ok() {
        json(&price.json);
    }
    let get = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
    assert!(get("key").is_some_and(|key| key.starts_with('"')), "{}", price.json);
    for (place, (name, _)) in fields.iter().enumerate() {
        assert!(fields[..place.min(64)].iter().all(|(other, _)| other != name), "{name} occurs twice");
    }
    let number = get("price").or_else(|| get("bid").and(get("ask"))).expect("a price, or a quote");
    assert!(number.parse::<f64>().is_ok_and(f64::is_finite), "{}", price.json);
    // Its digits are those of the file, apart from zeros that JSON does not allow.
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    if !text.contains('\\') {
        assert!(digits(text).contains(digits(number).trim_matches('0')), "{number} is not in the file");
    }
    assert!(*line >= 1 && *at <= text.len() as u64 + 3, "line {line} at {at} of {}", text.len());
}

/// Files of CSV and of NDJSON.
pub(crate) fn files(bytes: &[u8]) {
    let zone = Some("pjm".parse().expect("a name"));
    let named = ReplayOptions { zone: zone.clone(), ..ReplayOptions::default() };
    let joined = ReplayOptions {
        key_columns: vec!["node".to_owned(), "market".to_owned()],
        price_column: Some("total_lmp_da".to_owned()),
        time_format: Some("%m/%d/%Y %H:%M".parse().expect("a form")),
        time_zone: "America/New_York".parse().expect("a zone"),
        rename: vec![("id".to_owned(), "trade_id".to_owned())],
        ..named.clone()
    };
    let shifted = ReplayOptions { key: Some("HUB".to_owned()), now: Some(0.5), ..named.clone() };
    let lines = ReplayOptions { format: Some(FileFormat::Ndjson), ..named.clone() };
    for options in [ReplayOptions::default(), named, joined, lines] {
        let whole = replayed(&[bytes], &options);
        if let Ok(text) = std::str::from_utf8(bytes) {
            whole.iter().flatten().for_each(|price| is_price(text, price));
        }
        let lines: Vec<u64> = whole.iter().flatten().map(|price| price.line).collect();
        assert!(lines.is_sorted(), "{lines:?}");
        for pieces in cuts(bytes) {
            assert_eq!(replayed(&pieces, &options), whole, "in {} pieces", pieces.len());
        }
    }
    // This one depends on the clock, so its results cannot be compared.
    let _shifted = replayed(&[bytes], &shifted);
}
