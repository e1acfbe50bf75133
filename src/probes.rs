//! A probe for each parser of what comes from outside: it takes any bytes, has them parsed, and panics where
//! something does not hold that must hold of whatever comes. What is accepted keeps its bounds and its digits, and
//! is the same when it is written and read again; what comes in pieces is what comes as a whole; who sent it is told
//! no more than a line.
//!
//! Each room has the probes of its own parsers. `fuzz/` has a target for each of these here, which looks for bytes
//! that make it panic, and the tests try each with what is kept in `fuzz/corpus`, and with changes of it.

mod access;
#[cfg(test)]
mod tests;

/// What takes more than one room.
mod several {
    pub(super) fn positions(bytes: &[u8]) {
        crate::storage::probes::positions(bytes);
        crate::connections::probes::resumes(bytes);
    }

    pub(super) fn redis_answers(bytes: &[u8]) {
        crate::storage::probes::redis_answers(bytes, crate::protocol::probes::can_be_told);
    }

    pub(super) fn stored(bytes: &[u8]) {
        crate::storage::probes::stored(bytes, crate::protocol::probes::can_be_told);
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

        /// All there are, by name.
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
    /// What gateways say, as clients read it.
    answers => crate::protocol::probes::answers,
    /// Frames of Binance, and its answers.
    binance => crate::feeds::probes::binance,
    /// Frames of Coinbase.
    coinbase => crate::feeds::probes::coinbase,
    /// Documents of other sources: CSV and JSON.
    documents => crate::feeds::probes::documents,
    /// Messages of pub/sub.
    envelopes => crate::bridge::probes::envelopes,
    /// Events, as publishers post them.
    events => crate::protocol::probes::events,
    /// Files that are replayed.
    files => crate::feeds::probes::files,
    /// Frames of WebSockets.
    frames => crate::connections::probes::frames,
    /// Headers of requests, of proxies among them.
    headers => crate::http::probes::headers,
    /// Keys that tokens are verified with, and files of API keys.
    keys => access::keys,
    /// Frames of Kraken.
    kraken => crate::feeds::probes::kraken,
    /// Bodies of lines (NDJSON).
    lines => crate::http::probes::lines,
    /// Messages of clients.
    messages => crate::protocol::probes::messages,
    /// Names of channels, zones, orders and entries, and rights.
    names => access::names,
    /// Orders, as clients place them.
    orders => crate::orders::probes::orders,
    /// Positions, and the ids of events, which hold some.
    positions => several::positions,
    /// Prices, as publishers post them.
    prices => crate::protocol::probes::prices,
    /// Headers of the PROXY protocol.
    proxy_headers => crate::http::probes::proxy_headers,
    /// Records of registries, and merge patches.
    records => crate::registry::probes::records,
    /// Answers of scripts in Redis.
    redis_answers => several::redis_answers,
    /// Settings.
    settings => crate::config::probes::settings,
    /// Entries as they are stored in Redis and on disk, and rows of the files there.
    stored => several::stored,
    /// Tokens.
    tokens => access::tokens,
    /// Updates of orders, as workers report them, and as workers outside publish them or keep them in lists.
    updates => several::updates,
}
