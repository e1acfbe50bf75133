//! Subscribers: each of one channel, on one socket at a time. Some stay at a gateway, and reconnect when
//! their socket is cut; others move from gateway to gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio::time::{self, Instant};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::load::Channel;
use super::mirror::{Came, Mirror};
use super::witness::{Statement, Witness};
use zonewire::client::BaseUrl;
use zonewire::client::follow::{self, Door, Follow, Until};
use zonewire_protocol::{Epoch, ServerMessage};

/// How soon a socket that was cut is reconnected.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a moving subscriber stays at a gateway, connecting included, in milliseconds.
const STAY_MS: std::ops::RangeInclusive<u64> = 300..=2_000;

/// What one subscriber saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) witness: Witness,
    /// In place of `witness`, for a subscriber that begins with snapshots.
    pub(super) mirror: Option<Mirror>,
    /// `subscribed` came on the current connection.
    pub(super) is_subscribed: bool,
    /// `subscribed` came on some connection.
    pub(super) was_subscribed: bool,
    /// How connections ended that the suite did not end, by gateway, and how often.
    pub(super) cuts: BTreeMap<(usize, String), u64>,
    /// What `backend_state` said, and when.
    pub(super) states: Vec<(Instant, String)>,
    /// `error` messages, by code.
    pub(super) errors: BTreeMap<String, u64>,
}

/// One subscriber of one channel.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) channel: Channel,
    /// By node.
    pub(super) bases: Vec<BaseUrl>,
    /// The node that it begins at.
    pub(super) node: usize,
    pub(super) moves: Option<Moves>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// How a subscriber moves: it closes its socket after a while, and goes on, with its position, at a gateway
/// that may be another one.
#[derive(Debug)]
pub(super) struct Moves {
    pub(super) random: StdRng,
    /// It begins at a random time, at most this long after the token is cancelled; `None` if it is there from
    /// the start.
    pub(super) begins: Option<(CancellationToken, Duration)>,
    /// From here on it stays where it is.
    pub(super) stop_moving: CancellationToken,
}

/// How a connection ended.
enum End {
    /// The subscriber left.
    Left,
    /// The connection was cut, or could not be opened.
    Cut(String),
}

/// The content of a `missed` message.
#[derive(Debug, Deserialize)]
struct Missed {
    count: Option<u64>,
}

impl Watcher {
    /// Watches until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let _cancelled = stop.run_until_cancelled(self.watch()).await;
    }

    async fn watch(&mut self) {
        if let Some(moves) = &mut self.moves
            && let Some((begun, within)) = moves.begins.take()
        {
            begun.cancelled().await;
            time::sleep(within.mul_f64(moves.random.random_range(0.0..1.0))).await;
        }
        let door = self.channel.as_order().map_or(Door::Open, Door::Order);
        let mut follow = self.follow();
        loop {
            let leave_at = self
                .moves
                .as_mut()
                .map(|moves| Instant::now() + Duration::from_millis(moves.random.random_range(STAY_MS)));
            let stop_moving = self.moves.as_ref().map(|moves| &moves.stop_moving);
            let end = tokio::select! {
                end = self.connection(door, &mut follow) => End::Cut(end),
                () = until(leave_at, stop_moving) => End::Left,
            };
            let was_subscribed = std::mem::take(&mut self.seen.lock().is_subscribed);
            match end {
                End::Left => {
                    self.go_on(0);
                    if self.begins_anew() {
                        follow = self.follow();
                    }
                }
                End::Cut(why) => {
                    // A connection that was never subscribed was not cut.
                    if was_subscribed {
                        *self.seen.lock().cuts.entry((self.node, why)).or_default() += 1;
                    }
                    self.go_on(1);
                    time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    fn follow(&self) -> Follow {
        let follow = Follow::new([(self.channel.name.clone(), None)], Until::Forever, None);
        if self.seen.lock().mirror.is_some() { follow.with_snapshots() } else { follow }
    }

    /// Every other time, a subscriber that begins with snapshots forgets its position.
    fn begins_anew(&mut self) -> bool {
        let takes_snapshots = self.seen.lock().mirror.is_some();
        takes_snapshots && self.moves.as_mut().is_some_and(|moves| moves.random.random_bool(0.5))
    }

    /// Chooses the gateway of the next connection of a moving subscriber, at least so many gateways on.
    fn go_on(&mut self, at_least: usize) {
        let count = self.bases.len();
        if let Some(moves) = &mut self.moves
            && count > at_least
        {
            self.node = (self.node + moves.random.random_range(at_least..count)) % count;
        }
    }

    /// One connection, to its end; returns why it ended.
    async fn connection(&self, door: Door, follow: &mut Follow) -> String {
        let since = follow.position(&self.channel.name).map(ToString::to_string);
        let base = &self.bases[self.node];
        let mut socket = match follow::connect(base, &follow::address(base, door, follow)).await {
            Ok(socket) => socket,
            Err(lost) => return lost.why,
        };
        follow.connected(Instant::now());
        self.seen.lock().witness.connected(self.node, since);
        if let Door::Open = door
            && let Err(error) = socket.send(Message::text(follow.subscribe())).await
        {
            return format!("cannot subscribe: {error}");
        }
        loop {
            let message = match time::timeout_at(follow.silent_at(), socket.next()).await {
                Err(_) => return "nothing was heard for too long".to_owned(),
                Ok(None) => return "the connection was closed".to_owned(),
                Ok(Some(Err(error))) => return format!("the connection broke: {error}"),
                Ok(Some(Ok(message))) => message,
            };
            let at = Instant::now();
            follow.heard(at);
            match message {
                Message::Text(text) => {
                    // What the client makes of entries does not matter: it tracks the position to resume
                    // from.
                    follow.message(&text);
                    self.message(at, &text);
                }
                Message::Close(frame) => {
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    return format!("closed with {code}");
                }
                _ => {}
            }
        }
    }

    fn message(&self, at: Instant, text: &str) {
        let mut seen = self.seen.lock();
        let Ok(message) = ServerMessage::read(text) else {
            *seen.errors.entry("not_a_message".to_owned()).or_default() += 1;
            return;
        };
        if let Some(mirror) = &mut seen.mirror {
            mirror.tell(at, &message, &self.channel);
        }
        let placed = |is_subscribed, recovered, gap, epoch: &Epoch, offset| Statement {
            at,
            is_subscribed,
            recovered,
            gap,
            position: format!("{epoch}:{offset}"),
        };
        match message {
            ServerMessage::Subscribed(said) => {
                seen.is_subscribed = true;
                seen.was_subscribed = true;
                seen.witness.placed(placed(true, said.recovered, said.gap, &said.epoch, said.offset));
            }
            ServerMessage::Resync(said) => {
                seen.witness.placed(placed(false, said.recovered, said.gap, &said.epoch, said.offset));
            }
            ServerMessage::BackendState(said) => seen.states.push((at, said.state.to_string())),
            ServerMessage::Error(error) => *seen.errors.entry(error.code.to_string()).or_default() += 1,
            ServerMessage::Entry(entry) if &*entry.kind == "missed" => {
                let missed: Option<Missed> = entry.fields.get("data");
                seen.witness.missed(at, missed.and_then(|missed| missed.count));
            }
            ServerMessage::Entry(entry) if seen.mirror.is_none() => {
                if let (Some(id), Some((by, n))) = (&entry.id, self.channel.number(&entry.fields)) {
                    seen.witness.entry(at, id, by, n, entry.late);
                    if entry.missed_before {
                        seen.witness.missed_before(by, n);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Mirror {
    fn tell(&mut self, at: Instant, message: &ServerMessage, channel: &Channel) {
        match message {
            ServerMessage::Subscribed(said) => self.placed(said.recovered, said.snapshot),
            ServerMessage::Resync(said) => self.placed(said.recovered, said.snapshot),
            ServerMessage::SnapshotEnd(said) => self.ended(said.recovered),
            ServerMessage::Entry(entry) => {
                let key = channel.key(&entry.fields);
                let n = channel.number(&entry.fields).map(|(_, n)| n);
                let is_known = n.is_some() || &*entry.kind == "key_removed";
                if let (Some(id), Some(key), true) = (&entry.id, key, is_known) {
                    let time = entry.timestamp.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
                    let time = time.as_deref().unwrap_or_default();
                    let (is_late, is_latest) = (entry.late, entry.snapshot);
                    self.entry(Came { at, id, key, n, time, is_late, is_latest });
                }
            }
            _ => {}
        }
    }
}

/// Waits until it is time to leave; forever if there is no such time, or if the subscriber stays from then
/// on.
async fn until(leave_at: Option<Instant>, stop_moving: Option<&CancellationToken>) {
    if let Some(leave_at) = leave_at {
        time::sleep_until(leave_at).await;
        if !stop_moving.is_some_and(CancellationToken::is_cancelled) {
            return;
        }
    }
    std::future::pending().await
}
