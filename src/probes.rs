//! One probe for each parser of outside input. A probe takes any bytes, has them parsed, and panics if an
//! invariant that must hold for any input does not: accepted input keeps its bounds and its digits, and reads
//! back as it was written; input in pieces gives the same result as input in one piece; an error text for the
//! sender is at most one line.
//!
//! Each room has the probes of its own parsers. `fuzz/` has a target for each of the probes listed here,
//! which searches for bytes that make it panic. The tests run each probe on the corpus in `fuzz/corpus` and
//! on mutations of it.

mod access;
#[cfg(test)]
mod tests;

/// Probes that need more than one room.
mod several {
    pub(super) fn positions(bytes: &[u8]) {
        crate::storage::probes::positions(bytes);
        crate::connections::probes::resumes(bytes);
    }

    pub(super) fn redis_answers(bytes: &[u8]) {
        crate::storage::probes::redis_answers(bytes, crate::protocol::probes::can_be_written);
    }

    pub(super) fn stored(bytes: &[u8]) {
        crate::storage::probes::stored(bytes, crate::protocol::probes::can_be_written);
    }

    pub(super) fn updates(bytes: &[u8]) {
        crate::protocol::probes::updates(bytes);
        crate::orders::probes::outside_updates(bytes);
    }
}

macro_rules! probes {
    ($($(#[$doc:meta])* $name:ident => $probe:path,)*) => {
        $(
            $(#[$doc])*
            pub fn $name(bytes: &[u8]) {
                $probe(bytes);
            }
        )*

        /// All probes, by name.
        pub const ALL: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),*];

        #[cfg(test)]
        mod each {
            $(
                #[test]
                fn $name() {
                    super::tests::check(stringify!($name), super::$name);
                }
            )*
        }
    };
}

probes! {
    /// Messages of gateways, as clients read them.
    answers => crate::protocol::probes::answers,
    /// Frames of Binance, and its answers.
    binance => crate::feeds::probes::binance,
    /// Frames of Coinbase.
    coinbase => crate::feeds::probes::coinbase,
    /// Documents of other sources: CSV and JSON.
    documents => crate::feeds::probes::documents,
    /// Messages of pub/sub.
    envelopes => crate::bridge::probes::envelopes,
    /// Events as publishers post them.
    events => crate::protocol::probes::events,
    /// Files that are replayed.
    files => crate::feeds::probes::files,
    /// Frames of WebSockets.
    frames => crate::connections::probes::frames,
    /// Headers of requests, including those that proxies add.
    headers => crate::http::probes::headers,
    /// The contents of key sources: keys that verify tokens, and files of API keys.
    keys => access::keys,
    /// Frames of Kraken.
    kraken => crate::feeds::probes::kraken,
    /// Bodies of lines (NDJSON).
    lines => crate::http::probes::lines,
    /// Messages from clients.
    messages => crate::protocol::probes::messages,
    /// Names of channels, zones, orders and entries, and rights.
    names => access::names,
    /// Orders as clients place them.
    orders => crate::orders::probes::orders,
    /// Positions, and the ids of server-sent events, which contain positions.
    positions => several::positions,
    /// Prices as publishers post them.
    prices => crate::protocol::probes::prices,
    /// Headers of the PROXY protocol.
    proxy_headers => crate::http::probes::proxy_headers,
    /// Records of registries, and merge patches.
    records => crate::registry::probes::records,
    /// Answers of the scripts that run in Redis.
    redis_answers => several::redis_answers,
    /// Settings.
    settings => crate::config::probes::settings,
    /// Entries as stored in Redis and on disk, and the rows of the files on disk.
    stored => several::stored,
    /// Tokens.
    tokens => access::tokens,
    /// Updates of orders: as workers report them, and as outside workers publish them or keep them in lists.
    updates => several::updates,
}
