//! What a follower knows and decides. No I/O: messages and ends of connections go in, steps come out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{BackendName, BackendState, ChannelName, Position};
use crate::protocol::{
    ClientMessage, CloseCode, EntryMessage, ErrorMessage, Open, Resync, ServerMessage, Since, Subscribe,
    Subscribed, Unsubscribed,
};
use crate::support::backoff::RECONNECT;
use crate::support::recent::Recent;

/// A connection must have lasted this long to reset the count of attempts.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// The interval until the gateway announces its own.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// How many entries' ids are remembered per channel: as many entries as a log keeps by default, so that
/// repeated entries are recognized.
const IDS_MAX: usize = 10_000;

/// When enough entries have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Forever,
    /// After this many; 0 stands for 1.
    Count(u64),
    /// After the last update of an order.
    Terminal,
}

/// What to do about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Print the message, which is an entry.
    Print,
    /// A message for the user.
    Say(String),
    /// The entries of a channel after a position are about to arrive.
    Placed(ChannelName, Position),
    /// Enough entries have arrived.
    Done,
    /// The gateway ended everything that was followed, for this reason.
    Over(String),
    /// The gateway refused the last channel that was followed, for this reason.
    Fail(String),
}

/// The state of following some channels, across connections.
#[derive(Debug)]
pub struct Follow {
    channels: HashMap<ChannelName, Progress>,
    /// Whether to ask for snapshots.
    takes_snapshots: bool,
    until: Until,
    /// How many attempts in a row to make; `None`: no limit.
    pub(super) tries: Option<u32>,
    attempt: u32,
    /// Whether a gateway has answered at least once.
    pub(super) is_known: bool,
    connected_at: Option<Instant>,
    last_heard: Option<Instant>,
    heartbeat: Duration,
    /// From `closing`: the shortest delay before reconnecting.
    retry_after: Duration,
    state: Option<String>,
}

/// The progress of one channel.
#[derive(Debug)]
struct Progress {
    position: Option<Position>,
    /// Whether it is not requested again, because it was refused or has ended.
    is_over: bool,
    /// Whether entries may come again: the latest message about the position had `"recovered":false`.
    may_come_again: bool,
    /// The ids of the newest entries.
    ids: Recent<Arc<str>, ()>,
}

fn no_ids() -> Recent<Arc<str>, ()> {
    Recent::new(IDS_MAX, IDS_MAX)
}

impl Follow {
    /// A follower of these channels, each from its position if it has one. A lost connection is retried
    /// `tries` times in a row, or without limit.
    pub fn new(
        channels: impl IntoIterator<Item = (ChannelName, Option<Position>)>,
        until: Until,
        tries: Option<u32>,
    ) -> Self {
        let progress = |position| Progress { position, is_over: false, may_come_again: false, ids: no_ids() };
        Self {
            channels: channels.into_iter().map(|(name, position)| (name, progress(position))).collect(),
            takes_snapshots: false,
            until,
            tries,
            attempt: 0,
            is_known: false,
            connected_at: None,
            last_heard: None,
            heartbeat: HEARTBEAT_INTERVAL,
            retry_after: Duration::ZERO,
            state: None,
        }
    }

    /// Records that the gateway exists, so that it is worth waiting for.
    pub fn was_there(&mut self) {
        self.is_known = true;
    }

    /// Each channel that is followed, with its position.
    pub fn positions(&self) -> impl Iterator<Item = (&ChannelName, &Position)> {
        self.channels.iter().filter_map(|(name, progress)| Some((name, progress.position.as_ref()?)))
    }

    /// Sets the position of a channel after entries that were read elsewhere.
    pub fn begin_at(&mut self, channel: &ChannelName, position: Position) {
        if let Some(progress) = self.channels.get_mut(channel) {
            progress.position = Some(position);
        }
    }

    /// Asks for snapshots where entries would be missing, and for channels without a position.
    pub fn with_snapshots(mut self) -> Self {
        self.takes_snapshots = true;
        self
    }

    /// A connection was made.
    pub fn connected(&mut self, now: Instant) {
        self.is_known = true;
        self.connected_at = Some(now);
        self.last_heard = Some(now);
        self.retry_after = Duration::ZERO;
    }

    /// The message that requests the channels, from their positions on.
    pub fn subscribe(&self) -> String {
        let wanted = || self.channels.iter().filter(|(_, progress)| !progress.is_over);
        let mut names: Vec<&str> = wanted().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let since = wanted().filter_map(|(name, progress)| {
            Some((name.to_string(), Some(Since::At(progress.position.clone()?))))
        });
        let since = since.collect();
        let subscribe = Subscribe { since, snapshot: self.takes_snapshots, ..Subscribe::to(names) };
        ClientMessage::Subscribe(subscribe).to_json()
    }

    /// Where to resume a channel; `None` before any message about it.
    pub fn position(&self, channel: &ChannelName) -> Option<&Position> {
        self.channels.get(channel)?.position.as_ref()
    }

    /// Records that something arrived, even if only a ping.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
    }

    /// When the connection counts as dead if nothing arrives before.
    pub fn silent_at(&self) -> Instant {
        self.last_heard.unwrap_or_else(Instant::now) + self.heartbeat.mul_f64(2.5)
    }

    /// What to do about a text message.
    pub fn message(&mut self, text: &str) -> Vec<Step> {
        let Ok(message) = ServerMessage::read(text) else {
            let head: String = text.chars().take(80).collect();
            return vec![Step::Say(format!("not a message of this protocol: {head}"))];
        };
        match message {
            ServerMessage::ConnectionEstablished(established) => {
                self.beats_every(established.heartbeat_interval_ms);
                self.backend(&established.storage_backend, &established.state, None)
            }
            ServerMessage::Connection(established) => {
                self.beats_every(established.heartbeat_interval_ms);
                self.backend(&established.storage_backend, &established.state, None)
            }
            ServerMessage::BackendState(change) => {
                self.backend(&change.storage_backend, &change.state, change.reason.as_deref())
            }
            ServerMessage::Subscribed(Subscribed {
                channel,
                epoch,
                offset,
                recovered,
                gap,
                snapshot,
                ..
            })
            | ServerMessage::Resync(Resync { channel, epoch, offset, recovered, gap, snapshot, .. }) => {
                let position = Position { epoch, offset };
                match snapshot {
                    true => self.begins_with_snapshot(&channel, position, recovered),
                    false => self.placed(channel, position, recovered, gap),
                }
            }
            ServerMessage::SnapshotEnd(end) => {
                let position = Position { epoch: end.epoch, offset: end.offset };
                self.had_snapshot(&end.channel, position, end.recovered)
            }
            ServerMessage::Error(error) => self.error(&error),
            ServerMessage::Closing(closing) => {
                self.retry_after = Duration::from_millis(closing.retry_after_ms.unwrap_or(0));
                Vec::new()
            }
            ServerMessage::Unsubscribed(end) => self.ended(&end),
            // Entries of any type, including types that this version does not know.
            ServerMessage::Entry(entry) => self.entry(&entry),
            ServerMessage::CaughtUp(_)
            | ServerMessage::Heartbeat(_)
            | ServerMessage::HeartbeatAck(_)
            | ServerMessage::Pong(_)
            | ServerMessage::Authenticated(_)
            | ServerMessage::TokenExpiring(_)
            | ServerMessage::Published(_)
            | ServerMessage::Unknown(_) => Vec::new(),
        }
    }

    fn beats_every(&mut self, interval_ms: u64) {
        if interval_ms > 0 {
            self.heartbeat = Duration::from_millis(interval_ms);
        }
    }

    /// Records that a connection was lost or could not be made. Returns the number of the next attempt and the
    /// delay before it; `None` if the attempts are used up, or the gateway said not to reconnect. `random` is in
    /// `0.0..1.0`.
    pub(super) fn lost(&mut self, code: Option<u16>, now: Instant, random: f64) -> Option<(u32, Duration)> {
        if let Some(since) = self.connected_at.take()
            && now - since >= STABLE_AFTER
        {
            self.attempt = 0;
        }
        self.attempt += 1;
        if self.tries.is_some_and(|tries| self.attempt > tries)
            || code.is_some_and(|code| !CloseCode::may_reconnect(code))
        {
            return None;
        }
        let wait = RECONNECT.wait_with(self.attempt, random).max(std::mem::take(&mut self.retry_after));
        Some((self.attempt, wait))
    }

    /// The state of the storage; reported when it changes.
    fn backend(
        &mut self,
        backend: &Open<BackendName>,
        state: &Open<BackendState>,
        reason: Option<&str>,
    ) -> Vec<Step> {
        let said = format!("storage {backend} is {state}");
        if self.state.as_ref() == Some(&said) {
            return Vec::new();
        }
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let step = Step::Say(format!("{said}{reason}"));
        self.state = Some(said);
        vec![step]
    }

    /// Records that the entries after a position follow; `None` for a channel that is not followed.
    fn at(&mut self, channel: &ChannelName, position: Position, recovered: bool) -> Option<&mut Progress> {
        let progress = self.channels.get_mut(channel)?;
        progress.position = Some(position);
        progress.may_come_again = !recovered;
        Some(progress)
    }

    fn placed(
        &mut self,
        channel: ChannelName,
        position: Position,
        recovered: bool,
        gap: Option<u64>,
    ) -> Vec<Step> {
        if self.at(&channel, position.clone(), recovered).is_none() {
            return Vec::new();
        }
        let missing = match (recovered, gap) {
            (true, _) => None,
            (false, Some(gap)) => Some(format!("{channel}: {gap} entries are missing here")),
            (false, None) => Some(format!("{channel}: entries may be missing here; it is unknown how many")),
        };
        missing.map(Step::Say).into_iter().chain([Step::Placed(channel, position)]).collect()
    }

    /// Records that a channel starts over with a snapshot, whose entries do not count as repeated.
    fn begins_with_snapshot(
        &mut self,
        channel: &ChannelName,
        position: Position,
        recovered: bool,
    ) -> Vec<Step> {
        let Some(progress) = self.at(channel, position, recovered) else { return Vec::new() };
        progress.ids = no_ids();
        let missed = format!("{channel}: entries are missing here; the latest of each key follow");
        if recovered { Vec::new() } else { vec![Step::Say(missed)] }
    }

    fn had_snapshot(&mut self, channel: &ChannelName, position: Position, recovered: bool) -> Vec<Step> {
        let is_part = self.at(channel, position, recovered).is_some() && !recovered;
        let part = format!("{channel}: some keys cannot be reached; they follow when they can");
        if is_part { vec![Step::Say(part)] } else { Vec::new() }
    }

    fn entry(&mut self, entry: &EntryMessage) -> Vec<Step> {
        let Some(progress) = self.channels.get_mut(&entry.channel) else { return Vec::new() };
        // Gaps between offsets are no loss: on lane `latest`, newer entries replace older ones.
        if let (Some(position), false) = (&mut progress.position, entry.snapshot) {
            position.offset = entry.offset;
        }
        if let Some(id) = &entry.id {
            let is_repeated = progress.ids.get(&**id).is_some();
            if is_repeated && progress.may_come_again {
                return Vec::new();
            }
            if !is_repeated {
                progress.ids.insert((**id).into(), (), 1);
            }
        }
        let is_enough = match &mut self.until {
            Until::Forever => false,
            Until::Count(remaining) => {
                *remaining = remaining.saturating_sub(1);
                *remaining == 0
            }
            Until::Terminal => entry.is_terminal(),
        };
        if is_enough { vec![Step::Print, Step::Done] } else { vec![Step::Print] }
    }

    fn error(&mut self, error: &ErrorMessage) -> Vec<Step> {
        let about = error.channel.as_ref().map(|channel| format!("{channel}: ")).unwrap_or_default();
        let text = format!("{about}{} ({})", error.message, error.code);
        if error.temporary {
            return vec![Step::Say(text)];
        }
        match self.give_up_on(error.channel.as_deref()) {
            true => vec![Step::Fail(text)],
            false => vec![Step::Say(text)],
        }
    }

    /// Stops following a channel that the gateway has ended. Without a code, this only answers `unsubscribe`.
    fn ended(&mut self, end: &Unsubscribed) -> Vec<Step> {
        let Some(code) = &end.code else { return Vec::new() };
        let text = format!("{}: ended by the gateway ({code})", end.channel);
        match self.give_up_on(Some(end.channel.as_str())) {
            true => vec![Step::Over(text)],
            false => vec![Step::Say(text)],
        }
    }

    /// Stops requesting a channel; returns whether it was the last one.
    fn give_up_on(&mut self, channel: Option<&str>) -> bool {
        let channel = channel.and_then(|name| name.parse::<ChannelName>().ok());
        let Some(progress) = channel.and_then(|channel| self.channels.get_mut(&channel)) else {
            return false;
        };
        progress.is_over = true;
        self.channels.values().all(|progress| progress.is_over)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A message, completed with the fields that all messages of its type have.
    fn sent(mut message: Value) -> String {
        let more = match message["type"].as_str().unwrap() {
            "connection_established" => json!({
                "connection_id": uuid::Uuid::nil(), "storage_backend": "redis", "state": "healthy", "protocol": 1,
                "message": "Connected",
            }),
            "backend_state" => {
                json!({"storage_backend": "redis", "since": "2021-01-08T00:00:00Z", "scope": "all"})
            }
            _ => json!({}),
        };
        let fields = message.as_object_mut().unwrap();
        fields.insert("timestamp".to_owned(), json!("2021-01-08T00:00:00.278Z"));
        fields.extend(more.as_object().unwrap().clone());
        message.to_string()
    }

    fn follow(until: Until) -> Follow {
        let channels = ["zone:a", "zone:b"].map(|name| (name.parse().unwrap(), None));
        Follow::new(channels, until, Some(5))
    }

    fn placed(channel: &str, position: &str) -> Step {
        Step::Placed(channel.parse().unwrap(), position.parse().unwrap())
    }

    fn subscribed(channel: &str, epoch: &str, offset: u64, recovered: bool) -> String {
        sent(
            json!({"type": "subscribed", "channel": channel, "epoch": epoch, "offset": offset, "recovered": recovered}),
        )
    }

    fn entry(channel: &str, offset: u64, id: &str) -> String {
        format!(r#"{{"type":"price_update","channel":"{channel}","offset":{offset},"id":"{id}"}}"#)
    }

    fn wait_ms(next: Option<(u32, Duration)>) -> u128 {
        next.expect("another attempt").1.as_millis()
    }

    #[test]
    fn it_resumes_each_channel_after_the_last_entry_it_had() {
        let mut follow = follow(Until::Forever);
        let first: Value = serde_json::from_str(&follow.subscribe()).unwrap();
        assert_eq!(first, json!({"type": "subscribe", "channels": ["zone:a", "zone:b"]}));
        assert_eq!(follow.message(&subscribed("zone:a", "e", 5, true)), [placed("zone:a", "e:5")]);
        assert_eq!(follow.message(&entry("zone:a", 6, "x-1")), [Step::Print]);
        let again: Value = serde_json::from_str(&follow.subscribe()).unwrap();
        assert_eq!(again["since"], json!({"zone:a": {"epoch": "e", "offset": 6}}));
    }

    #[test]
    fn what_was_had_is_dropped_from_recovered_false_until_recovered_true() {
        let mut follow = follow(Until::Forever);
        follow.message(&subscribed("zone:a", "e", 5, true));
        assert_eq!(follow.message(&entry("zone:a", 6, "x-6")), [Step::Print]);
        // Regardless of the connection on which it was received.
        follow.lost(None, Instant::now(), 0.0);
        follow.connected(Instant::now());
        assert!(matches!(
            follow.message(&subscribed("zone:a", "f", 0, false))[..],
            [Step::Say(_), Step::Placed(..)]
        ));
        assert_eq!(follow.message(&entry("zone:a", 1, "x-6")), []);
        assert_eq!(follow.position(&"zone:a".parse().unwrap()), Some(&"f:1".parse().unwrap()));
        assert_eq!(follow.message(&entry("zone:a", 2, "x-7")), [Step::Print]);
        assert_eq!(follow.message(&entry("zone:a", 3, "x-7")), []);
        // Channels are independent.
        assert_eq!(follow.message(&entry("zone:b", 1, "x-6")), [Step::Print]);
        let resync = |recovered: bool| {
            sent(
                json!({"type": "resync", "channel": "zone:a", "old_epoch": "f", "epoch": "g", "offset": 0, "recovered": recovered}),
            )
        };
        follow.message(&resync(true));
        assert_eq!(follow.message(&entry("zone:a", 1, "x-8")), [Step::Print]);
        // From here on nothing should come again; if something does, it is shown, so that it is noticed.
        assert_eq!(follow.message(&entry("zone:a", 2, "x-7")), [Step::Print]);
        follow.message(&resync(false));
        assert_eq!(follow.message(&entry("zone:a", 1, "x-8")), []);
    }

    #[test]
    fn a_snapshot_begins_anew_and_its_entries_are_no_positions() {
        let mut follow = follow(Until::Forever).with_snapshots();
        let asked: Value = serde_json::from_str(&follow.subscribe()).unwrap();
        assert_eq!(asked["snapshot"], true);
        let sends = |kind: &str, epoch: &str, offset: u64, recovered: bool, snapshot: bool| {
            sent(
                json!({"type": kind, "channel": "zone:a", "old_epoch": "e", "epoch": epoch, "offset": offset, "recovered": recovered, "snapshot": snapshot}),
            )
        };
        let latest = |offset: u64, id: &str| entry("zone:a", offset, id).replace('}', ",\"snapshot\":true}");
        let at = |follow: &Follow| follow.position(&"zone:a".parse().unwrap()).unwrap().to_string();
        assert_eq!(follow.message(&sends("subscribed", "v.e.s", 9, true, true)), []);
        assert_eq!(follow.message(&latest(4, "x-4")), [Step::Print]);
        assert_eq!(at(&follow), "v.e.s:9");
        assert_eq!(follow.message(&sends("snapshot_end", "e", 9, true, false)), []);
        assert_eq!(follow.message(&entry("zone:a", 10, "x-10")), [Step::Print]);
        assert_eq!(at(&follow), "e:10");
        // Entries from before the snapshot are shown again.
        assert!(matches!(follow.message(&sends("resync", "v.f.s", 12, false, true))[..], [Step::Say(_)]));
        assert_eq!(follow.message(&latest(10, "x-10")), [Step::Print]);
        assert!(matches!(
            follow.message(&sends("snapshot_end", "v.f.s", 12, false, false))[..],
            [Step::Say(_)]
        ));
        assert_eq!(at(&follow), "v.f.s:12");
    }

    #[test]
    fn as_many_ids_are_remembered_as_a_log_keeps_and_no_more() {
        let mut follow = follow(Until::Forever);
        follow.message(&subscribed("zone:a", "e", 0, false));
        for n in 1..=IDS_MAX as u64 + 1 {
            assert_eq!(follow.message(&entry("zone:a", n, &format!("x-{n}"))), [Step::Print]);
        }
        assert_eq!(follow.message(&entry("zone:a", 1, "x-2")), []);
        let ids = &follow.channels[&"zone:a".parse().unwrap()].ids;
        assert_eq!(ids.values().count(), IDS_MAX);
    }

    #[test]
    fn offsets_that_are_skipped_are_not_a_gap() {
        let mut follow = follow(Until::Forever);
        follow.message(&subscribed("zone:a", "e", 5, true));
        assert_eq!(follow.message(&entry("zone:a", 9, "x-9")), [Step::Print]);
    }

    #[test]
    fn a_gap_is_said() {
        let mut follow = follow(Until::Forever);
        let resync = json!({"type": "resync", "channel": "zone:a", "old_epoch": "e", "epoch": "e", "offset": 9, "recovered": false, "gap": 4});
        let said = Step::Say("zone:a: 4 entries are missing here".to_owned());
        assert_eq!(follow.message(&sent(resync)), [said, placed("zone:a", "e:9")]);
    }

    #[test]
    fn it_ends_after_the_entries_asked_for() {
        let mut follow = follow(Until::Count(2));
        assert_eq!(follow.message(&entry("zone:a", 1, "x-1")), [Step::Print]);
        assert_eq!(follow.message(&entry("zone:b", 1, "x-1")), [Step::Print, Step::Done]);
    }

    #[test]
    fn an_order_is_followed_to_the_update_that_ends_it() {
        let name = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
        let channel: ChannelName = name.parse().unwrap();
        let mut follow = Follow::new([(channel.clone(), None)], Until::Terminal, Some(5));
        let update = |kind: &str, offset: u64| {
            sent(json!({"type": kind, "channel": name, "offset": offset, "id": format!("x-{offset}")}))
        };
        assert_eq!(follow.position(&channel), None);
        follow.message(&subscribed(name, "e", 0, true));
        assert_eq!(follow.message(&update("routing", 1)), [Step::Print]);
        assert_eq!(follow.position(&channel), Some(&"e:1".parse().unwrap()));
        assert_eq!(follow.message(&update("failed", 2)), [Step::Print, Step::Done]);
    }

    #[test]
    fn waits_double_and_the_sixth_loss_in_a_row_ends_it() {
        let (mut follow, now) = (follow(Until::Forever), Instant::now());
        let waits: Vec<u128> = (0..5).map(|_| wait_ms(follow.lost(None, now, 0.5))).collect();
        assert_eq!(waits, [1_500, 2_500, 4_500, 8_500, 16_500]);
        assert_eq!(follow.lost(None, now, 0.5), None);
    }

    #[test]
    fn without_a_bound_it_is_tried_for_ever() {
        let mut follow = Follow::new([("zone:a".parse().unwrap(), None)], Until::Forever, None);
        let now = Instant::now();
        for _ in 0..1_000 {
            assert!(wait_ms(follow.lost(None, now, 0.0)) <= 16_000);
        }
        assert_eq!(follow.lost(Some(4500), now, 0.0), None);
    }

    #[test]
    fn entries_read_elsewhere_count_and_do_not_come_again() {
        let mut follow = follow(Until::Count(3));
        let channel: ChannelName = "zone:a".parse().unwrap();
        follow.begin_at(&channel, "e:4".parse().unwrap());
        assert_eq!(follow.message(&entry("zone:a", 5, "x-5")), [Step::Print]);
        assert_eq!(follow.position(&channel), Some(&"e:5".parse().unwrap()));
        follow.message(&subscribed("zone:a", "f", 0, false));
        assert_eq!(follow.message(&entry("zone:a", 1, "x-5")), []);
        assert_eq!(follow.message(&entry("zone:a", 2, "x-6")), [Step::Print]);
        assert_eq!(follow.message(&entry("zone:a", 3, "x-7")), [Step::Print, Step::Done]);
    }

    #[test]
    fn only_a_stable_connection_refills_the_attempts() {
        let (mut follow, now) = (follow(Until::Forever), Instant::now());
        for _ in 0..4 {
            follow.lost(None, now, 0.0);
        }
        follow.connected(now);
        assert_eq!(wait_ms(follow.lost(None, now + Duration::from_millis(4_999), 0.0)), 16_000);
        follow.connected(now);
        assert_eq!(wait_ms(follow.lost(None, now + STABLE_AFTER, 0.0)), 1_000);
    }

    #[test]
    fn the_close_code_says_whether_to_come_back_and_closing_when() {
        let now = Instant::now();
        for (code, back) in
            [(4000, true), (4001, true), (4004, true), (1006, true), (1000, false), (4502, false)]
        {
            assert_eq!(follow(Until::Forever).lost(Some(code), now, 0.0).is_some(), back, "{code}");
        }
        let mut follow = follow(Until::Forever);
        follow.connected(now);
        follow.message(&sent(
            json!({"type": "closing", "code": 4000, "reason": "shutting_down", "retry_after_ms": 7000}),
        ));
        assert_eq!(wait_ms(follow.lost(Some(4000), now, 0.0)), 7_000);
        assert_eq!(wait_ms(follow.lost(None, now, 0.0)), 2_000);
    }

    #[test]
    fn silence_is_two_and_a_half_heartbeats() {
        let (mut follow, now) = (follow(Until::Forever), Instant::now());
        follow.connected(now);
        assert_eq!(follow.silent_at(), now + Duration::from_secs(75));
        follow.message(&sent(json!({"type": "connection_established", "heartbeat_interval_ms": 2000})));
        let later = now + Duration::from_secs(1);
        follow.heard(later);
        assert_eq!(follow.silent_at(), later + Duration::from_secs(5));
    }

    #[test]
    fn it_fails_when_every_channel_is_refused() {
        let mut follow = follow(Until::Forever);
        let error = |channel: &str, code: &str| {
            let temporary = code == "storage_unavailable";
            sent(
                json!({"type": "error", "code": code, "temporary": temporary, "message": "no", "channel": channel}),
            )
        };
        assert!(matches!(follow.message(&error("zone:a", "storage_unavailable"))[..], [Step::Say(_)]));
        assert!(matches!(follow.message(&error("zone:a", "too_many_zones"))[..], [Step::Say(_)]));
        let wanted: Value = serde_json::from_str(&follow.subscribe()).unwrap();
        assert_eq!(wanted["channels"], json!(["zone:b"]));
        assert!(matches!(follow.message(&error("zone:b", "too_many_zones"))[..], [Step::Fail(_)]));
    }

    #[test]
    fn what_the_gateway_ends_is_not_asked_for_again() {
        let mut follow = follow(Until::Forever);
        let unsubscribed = |channel: &str, code: Option<&str>| {
            sent(json!({"type": "unsubscribed", "channel": channel, "code": code}))
        };
        assert_eq!(follow.message(&sent(json!({"type": "caught_up", "channel": "zone:a"}))), []);
        assert_eq!(follow.message(&unsubscribed("zone:a", None)), []);
        assert!(matches!(follow.message(&unsubscribed("zone:a", Some("finished")))[..], [Step::Say(_)]));
        let wanted: Value = serde_json::from_str(&follow.subscribe()).unwrap();
        assert_eq!(wanted["channels"], json!(["zone:b"]));
        let over = Step::Over("zone:b: ended by the gateway (finished)".to_owned());
        assert_eq!(follow.message(&unsubscribed("zone:b", Some("finished"))), [over]);
    }

    #[test]
    fn a_change_of_the_storage_is_said_once() {
        let mut follow = follow(Until::Forever);
        let state = |state: &str| {
            sent(
                json!({"type": "backend_state", "storage_backend": "redis", "state": state, "reason": "gone"}),
            )
        };
        assert_eq!(
            follow.message(&state("degraded")),
            [Step::Say("storage redis is degraded: gone".to_owned())]
        );
        assert_eq!(follow.message(&state("degraded")), []);
    }

    #[test]
    fn what_newer_gateways_say_does_no_harm() {
        let mut follow = follow(Until::Forever);
        assert_eq!(follow.message(&sent(json!({"type": "weather", "sun": true}))), []);
        let entry = r#"{"type":"ticker","channel":"zone:a","offset":7,"id":"x-7","bid":1}"#;
        assert_eq!(follow.message(entry), [Step::Print]);
        let tired = sent(json!({"type": "backend_state", "state": "tired", "mood": "low"}));
        assert_eq!(follow.message(&tired), [Step::Say("storage redis is tired".to_owned())]);
        assert!(matches!(follow.message("{}")[..], [Step::Say(_)]));
    }
}
