//! Attacks: input that tries to cost a gateway more than its limits allow, or to be taken for something else.
//! Each attack is a row of a table: what it sends, and what must come back. This module knows addresses and
//! bytes, and nothing of the library.
//!
//! A round of an attack ends by itself, and fails if anything unexpected comes back. Its caller checks what
//! else must hold meanwhile, such as what another client receives and how much memory is used.

mod bodies;
mod frames;
mod heads;
mod names;
mod pages;
mod smuggling;
mod storms;
pub mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time;

pub use names::NAMES;
pub use smuggling::{Smuggled, smuggled};

/// Settings of the attacked gateway that shorten its timeouts to between one and three seconds.
pub const SETTINGS: [&str; 5] = [
    "http.head_timeout_ms=1000",
    "http.body_idle_s=1",
    "connections.heartbeat_interval_s=1",
    "connections.silence_timeout_s=3",
    "connections.close_grace_ms=200",
];

/// The longest a round may take, however busy the machine is.
const ROUND_PATIENCE: Duration = Duration::from_secs(120);

/// The target of an attack, and its size.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The gateway's address. It runs on this machine with [`SETTINGS`], without authentication.
    pub address: SocketAddr,
    /// How many connections are opened, or messages sent, by attacks that repeat one action.
    pub many: usize,
}

type Round = for<'a> fn(&'a Target) -> Pin<Box<dyn Future<Output = anyhow::Result<u64>> + Send + 'a>>;

/// An attack.
pub struct Attack {
    /// One or two words.
    pub name: &'static str,
    /// What it sends.
    pub sends: &'static str,
    /// What must come back.
    pub expects: &'static str,
    round: Round,
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attack").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Attack {
    /// Runs one round, and returns how many cases it had.
    ///
    /// # Errors
    /// Something unexpected came back, or nothing in time.
    pub async fn round(&self, target: &Target) -> anyhow::Result<u64> {
        let round = time::timeout(ROUND_PATIENCE, (self.round)(target)).await;
        round.map_err(anyhow::Error::from).flatten().with_context(|| format!("the attack `{}`", self.name))
    }
}

/// All attacks.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "slow heads",
        sends: "heads of requests a byte at a time, without an end",
        expects: "the end of the connection, once a head may have taken",
        round: |target| Box::pin(heads::slow(target)),
    },
    Attack {
        name: "silence",
        sends: "nothing, on open TCP connections",
        expects: "the same",
        round: |target| Box::pin(heads::silent(target)),
    },
    Attack {
        name: "large heads",
        sends: "10,000 headers, a header of 1 MiB, 100 of 10 KiB, a target of 1 MiB",
        expects: "431, or the end of the connection",
        round: |target| Box::pin(heads::large(target)),
    },
    Attack {
        name: "half handshakes",
        sends: "upgrades to WebSocket that break off at some byte, by FIN or by RST, one after the other",
        expects: "nothing; no connection stays behind",
        round: |target| Box::pin(heads::half_open(target)),
    },
    Attack {
        name: "endless messages",
        sends: "a message of two million empty fragments, one of full ones, and one of which the rest never comes",
        expects: "1009, and 4002 of the one that falls silent",
        round: |target| Box::pin(frames::endless(target)),
    },
    Attack {
        name: "pings",
        sends: "pings as fast as they are taken, by a client that reads nothing",
        expects: "the end of the connection",
        round: |target| Box::pin(frames::pings(target)),
    },
    Attack {
        name: "wrong frames",
        sends: "frames without a mask, with reserved bits and opcodes, with broken UTF-8 across fragments",
        expects: "1002, 1007 and 1009, each as the RFC says",
        round: |target| Box::pin(frames::wrong(target)),
    },
    Attack {
        name: "deep and giant JSON",
        sends: "nested 20,000 deep, of megabytes, numbers of 60,000 digits, 60,000 fields: as messages, prices, lines, \
                events, records, merge patches, orders and updates",
        expects: "400, 413 or 422, and `error` of messages; what was there is as it was",
        round: |target| Box::pin(bodies::round(target)),
    },
    Attack {
        name: "names",
        sends: "`*`, NUL, CRLF, `..`, slashes, escapes, Lua, formulas: as zones, keys, types, orders, records, \
                connections, positions, workers, channels and headers",
        expects: "a 4xx where it is no name, and nothing but the record where it is one",
        round: |target| Box::pin(names::round(target)),
    },
    Attack {
        name: "foreign pages",
        sends: "upgrades and requests of other origins and of names that were led here, with forged forwarding headers",
        expects: "403 and 421; the address of who connects stays its own",
        round: |target| Box::pin(pages::round(target)),
    },
    Attack {
        name: "smuggling",
        sends: "requests of two lengths, of codings that are none, with folded lines, bare CR and LF, odd chunks",
        expects: "each is one request, or none",
        round: |target| Box::pin(smuggling::round(target)),
    },
    Attack {
        name: "subscribing",
        sends: "`subscribe` and `unsubscribe` alternately, as fast as they are taken",
        expects: "4004",
        round: |target| Box::pin(storms::subscribing(target)),
    },
    Attack {
        name: "resuming",
        sends: "`subscribe` from the beginning of a log, again and again",
        expects: "4004",
        round: |target| Box::pin(storms::resuming(target)),
    },
    Attack {
        name: "auth",
        sends: "`auth` with a token, again and again",
        expects: "4004, after 20 of them",
        round: |target| Box::pin(storms::auth(target)),
    },
];
