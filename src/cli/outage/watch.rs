//! Subscribers: one socket per channel and node, opened again when it is cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::{self, Instant};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::load::Channel;
use super::witness::Witness;
use crate::cli::client::BaseUrl;
use crate::cli::follow::{self, Door, Follow, Until};

/// How soon a socket that was cut is opened again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What one subscriber saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) witness: Witness,
    /// `subscribed` came on the connection that is open.
    pub(super) is_subscribed: bool,
    /// How connections ended that were not ended by the suite, and how many.
    pub(super) cuts: BTreeMap<String, u64>,
    /// What `backend_state` said, and when.
    pub(super) states: Vec<(Instant, String)>,
    /// `error` messages, by code.
    pub(super) errors: BTreeMap<String, u64>,
}

/// One subscriber of one channel at one node.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) channel: Channel,
    pub(super) base: BaseUrl,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// The fields that matter here, of every message.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    id: Option<serde_json::Value>,
    by: Option<usize>,
    n: Option<u64>,
    #[serde(default)]
    late: bool,
    recovered: Option<bool>,
    gap: Option<u64>,
    state: Option<String>,
    code: Option<serde_json::Value>,
}

impl Watcher {
    /// Watches until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let door = self.channel.as_order().map_or(Door::Open, Door::Order);
        let mut follow = Follow::new([(self.channel.name.clone(), None)], Until::Forever);
        loop {
            let why = tokio::select! {
                () = stop.cancelled() => return,
                why = self.connection(door, &mut follow) => why,
            };
            {
                let mut seen = self.seen.lock();
                let had_one = std::mem::take(&mut seen.is_subscribed);
                // One that never came about was not cut.
                if had_one {
                    *seen.cuts.entry(why).or_default() += 1;
                }
            }
            time::sleep(AGAIN_AFTER).await;
        }
    }

    /// One connection, to its end: why it ended.
    async fn connection(&self, door: Door, follow: &mut Follow) -> String {
        let mut socket = match follow::connect(&follow::address(&self.base, door, follow)).await {
            Ok(socket) => socket,
            Err(lost) => return lost.why,
        };
        follow.connected(Instant::now());
        self.seen.lock().witness.connected();
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
                    // What it makes of entries does not matter: it knows where to resume.
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
        let Ok(told) = serde_json::from_str::<Told>(text) else {
            *seen.errors.entry("not_a_message".to_owned()).or_default() += 1;
            return;
        };
        match (told.kind.as_str(), &told.id, told.by, told.n) {
            ("subscribed" | "resync", ..) => {
                let is_subscribed = told.kind == "subscribed";
                seen.is_subscribed |= is_subscribed;
                seen.witness.placed(at, is_subscribed, told.recovered.unwrap_or(false), told.gap);
            }
            ("backend_state", ..) => {
                if let Some(state) = told.state {
                    seen.states.push((at, state));
                }
            }
            ("error", ..) => {
                let code = told.code.as_ref().and_then(serde_json::Value::as_str);
                *seen.errors.entry(code.unwrap_or("error").to_owned()).or_default() += 1;
            }
            (_, Some(serde_json::Value::String(id)), Some(by), Some(n)) => {
                seen.witness.entry(at, id, by, n, told.late);
            }
            _ => {}
        }
    }
}
