//! What is published: subscribing, receiving, and making sure that nothing is missed unnoticed.
//!
//! fred's own functions for this are not used: they end silently when a receiver lags, and they
//! answer a subscribe before the server has. So: after each SUBSCRIBE goes a PING with a token of
//! its own on the same connection; its answer proves that the server has come to it. A SUBSCRIBE that
//! the server refused is answered by an error that fred gives to nobody, so each names one channel more,
//! which nobody else knows: the server takes all of a command or nothing, and says when asked whether
//! that channel has a subscriber. On each further connection everything is subscribed anew, proven the
//! same way, and then told as `Suspect`; only then the connection counts as up.
//!
//! That what is published goes on to arrive is proven by the beats: each is a message of this node to
//! itself (see [`Subscriber::expect`]).
//!
//! Where channels are sharded, each is subscribed to by an SSUBSCRIBE of its own, whose answer fred
//! does give: it is the proof, or it says that another node has the channel now.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{Message, Value};
use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::commands::Commands;
use super::errors::storage_error;
use super::link::{Condition, Link, LinkState, answers};
use crate::storage::{ProbeFailure, StorageError};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 500;

/// A connection on which no message of this node to itself arrives for so long, while they are sent, is
/// replaced; or for as long as a command may take, if that is longer.
const DEAF_AFTER: Duration = Duration::from_millis(1_500);

/// How a server is asked for channels.
#[derive(Debug, Clone)]
pub(super) enum Subscribing {
    /// SUBSCRIBE.
    Plain,
    /// SSUBSCRIBE; told when the server does not have a channel.
    Sharded { moved: Arc<Notify> },
}

/// What is followed. Several may ask for the same channel at the same time, and another may let go
/// of it meanwhile: an answer says something only about the follow that it was asked for.
#[derive(Debug, Default)]
struct Followed(HashMap<String, Follow>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follow {
    /// Another one each time that the channel is followed anew.
    life: u64,
    /// How many wait for the server's answer, or count on it.
    asking: usize,
    is_confirmed: bool,
}

impl Followed {
    /// Asks for a channel; `None` when that is confirmed already. `life` is used where it is new.
    fn ask(&mut self, name: &str, life: u64) -> Option<u64> {
        let new = Follow { life, asking: 0, is_confirmed: false };
        let follow = self.0.entry(name.to_owned()).or_insert(new);
        if follow.is_confirmed {
            return None;
        }
        follow.asking += 1;
        Some(follow.life)
    }

    /// What was asked for in this life was answered.
    fn answered(&mut self, name: &str, life: u64, is_subscribed: bool) {
        let Some(follow) = self.0.get_mut(name).filter(|follow| follow.life == life) else { return };
        follow.asking = follow.asking.saturating_sub(1);
        follow.is_confirmed |= is_subscribed;
        if !follow.is_confirmed && follow.asking == 0 {
            self.0.remove(name);
        }
    }

    /// What is followed in this life is subscribed to.
    fn confirm(&mut self, name: &str, life: u64) {
        if let Some(follow) = self.0.get_mut(name).filter(|follow| follow.life == life) {
            follow.is_confirmed = true;
        }
    }

    /// UNSUBSCRIBE was sent for channels that were let go of. Where somebody follows one again, that may
    /// have been subscribed to before it: it counts as not subscribed to, in a life of its own. Says
    /// whether there is one.
    fn unsubscribed(&mut self, names: &[String], mut life: impl FnMut() -> u64) -> bool {
        let mut is_due = false;
        for name in names {
            if let Some(follow) = self.0.get_mut(name) {
                // Whoever asked for it is answered, and counts on it.
                *follow = Follow { life: life(), asking: 1, is_confirmed: false };
                is_due = true;
            }
        }
        is_due
    }
}

/// Messages of this node to itself.
#[derive(Debug, Default)]
struct Proof {
    /// Where they come.
    name: String,
    /// When the last one came, or was first to come.
    heard: Option<Instant>,
}

/// What messages are to those who follow.
pub(super) trait Published: Send + Sync {
    /// What they are told.
    type Event: Send;

    /// Reads a message; `None` when it cannot be read. The event must not keep `content` alive.
    fn read(&self, channel: &str, content: &[u8]) -> Option<Self::Event>;

    /// Says that messages may have been missed.
    fn suspect(&self) -> Self::Event;
}

impl<P: Published> Published for Arc<P> {
    type Event = P::Event;

    fn read(&self, channel: &str, content: &[u8]) -> Option<P::Event> {
        (**self).read(channel, content)
    }

    fn suspect(&self) -> P::Event {
        (**self).suspect()
    }
}

/// The channels that are followed, and the connection that is subscribed to them.
#[derive(Debug)]
pub(super) struct Subscriber<P> {
    link: Link<SubscriberClient>,
    /// A subscribed connection can ask nothing; this one can.
    commands: Arc<Commands>,
    published: P,
    subscribing: Subscribing,
    command_timeout: Duration,
    followed: Mutex<Followed>,
    proof: Mutex<Proof>,
    tokens: AtomicU64,
    dropped: AtomicU64,
    /// Answers on the connection are out of step, or it refused a barrier: only a new one helps.
    broken: Notify,
    /// What is published does not arrive.
    deaf: Notify,
    /// Something may have been missed.
    suspect: Notify,
    /// What is followed is not all subscribed to.
    due: Notify,
}

impl<P: Published> Subscriber<P> {
    pub(super) fn new(
        link: Link<SubscriberClient>,
        commands: Arc<Commands>,
        published: P,
        subscribing: Subscribing,
        command_timeout: Duration,
    ) -> Self {
        Self {
            link,
            commands,
            published,
            subscribing,
            command_timeout,
            followed: Mutex::default(),
            proof: Mutex::default(),
            tokens: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            broken: Notify::new(),
            deaf: Notify::new(),
            suspect: Notify::new(),
            due: Notify::new(),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn is_following(&self, name: &str) -> bool {
        self.followed.lock().0.contains_key(name)
    }

    /// Follows what somebody else followed until now. It is subscribed to soon, and then told as
    /// suspect.
    pub(super) fn adopt(&self, names: Vec<String>) {
        if !names.is_empty() {
            // Counted as asked for until it is let go of, so that no failure of another ends it.
            let adopted = |name| (name, Follow { life: self.token(), asking: 1, is_confirmed: false });
            self.followed.lock().0.extend(names.into_iter().map(adopted));
            self.due.notify_one();
        }
    }

    /// Leaves to somebody else what the server does not have any more, and has unsubscribed itself.
    pub(super) fn leave(&self, name: &str) {
        self.followed.lock().0.remove(name);
    }

    /// Tries again to subscribe to what is not subscribed to.
    pub(super) fn complete(&self) {
        if self.followed.lock().0.values().any(|follow| !follow.is_confirmed) {
            self.due.notify_one();
        }
    }

    pub(super) async fn follow(&self, name: String) -> Result<(), StorageError> {
        let asked = self.followed.lock().ask(&name, self.token());
        let Some(life) = asked else { return Ok(()) };
        let answer = self.subscribe(std::slice::from_ref(&name)).await;
        self.followed.lock().answered(&name, life, answer.is_ok());
        answer.map_err(|error| storage_error("follow", self.command_timeout, &error))
    }

    pub(super) async fn unfollow(&self, name: String) -> Result<(), StorageError> {
        self.followed.lock().0.remove(&name);
        let answer = self.unsubscribe(vec![name]).await;
        match answer.map_err(|error| storage_error("unfollow", self.command_timeout, &error)) {
            // A connection that is gone is subscribed to nothing.
            Err(StorageError::Unreachable { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Unsubscribes from channels that nobody follows. Whoever follows one again meanwhile is subscribed
    /// anew, should this fail, too, or be dropped.
    async fn unsubscribe(&self, names: Vec<String>) -> Result<(), Error> {
        /// Does its work when the command has been sent, or may have been.
        struct Sent<'a, P: Published>(&'a Subscriber<P>, &'a [String]);
        impl<P: Published> Drop for Sent<'_, P> {
            fn drop(&mut self) {
                if self.0.followed.lock().unsubscribed(self.1, || self.0.token()) {
                    self.0.due.notify_one();
                }
            }
        }
        let client = self.link.client()?;
        let _sent = Sent(self, &names);
        match self.subscribing {
            Subscribing::Plain => client.unsubscribe(names.clone()).await,
            Subscribing::Sharded { .. } => {
                let all = names.iter().map(|name| client.sunsubscribe(name.as_str()));
                try_join_all(all).await.map(drop)
            }
        }
    }

    /// From here on, messages of this node to itself come in this channel, as long as the beats that bring
    /// them do. To be called with each that was answered: it is noticed when none arrives.
    pub(super) fn expect(&self, name: &str) {
        let mut proof = self.proof.lock();
        if proof.name != name || !self.is_following(name) {
            let before = std::mem::replace(&mut *proof, Proof { name: name.to_owned(), heard: None });
            drop(proof);
            self.leave(&before.name);
            return self.adopt(vec![name.to_owned()]);
        }
        let is_confirmed = self.followed.lock().0.get(name).is_some_and(|follow| follow.is_confirmed);
        if !is_confirmed || self.link.state().borrow().condition != Condition::Up {
            proof.heard = None;
            return;
        }
        let heard = *proof.heard.get_or_insert_with(Instant::now);
        if heard.elapsed() >= DEAF_AFTER.max(self.command_timeout) {
            proof.heard = None;
            tracing::warn!("what is published does not arrive, replacing the connection to redis");
            self.deaf.notify_one();
        }
    }

    /// Subscribes, and waits for the proof.
    async fn subscribe(&self, names: &[String]) -> Result<(), Error> {
        match &self.subscribing {
            Subscribing::Plain => self.subscribe_plainly(names).await,
            Subscribing::Sharded { moved } => {
                let answer = self.subscribe_sharded(names).await;
                if answer.as_ref().is_err_and(Error::is_moved) {
                    moved.notify_one();
                }
                answer
            }
        }
    }

    /// Asks for all of them, whatever becomes of one. One at a time in a command: fred takes each
    /// answer for that of another command.
    async fn subscribe_sharded(&self, names: &[String]) -> Result<(), Error> {
        let mut failed = None;
        for chunk in names.chunks(SUBSCRIBE_CHUNK) {
            let client = self.link.client()?;
            let asked = chunk.iter().map(|name| client.ssubscribe(name.as_str()));
            let answers = join_all(asked).await;
            let mut followed = self.followed.lock();
            for (name, answer) in chunk.iter().zip(answers) {
                match answer {
                    Ok(()) => {
                        if let Some(follow) = followed.0.get_mut(name) {
                            follow.is_confirmed = true;
                        }
                    }
                    // Another error may mean that there is no connection, so it goes first.
                    Err(error) if !error.is_moved() => failed = Some(error),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn subscribe_plainly(&self, names: &[String]) -> Result<(), Error> {
        let mut witnesses = Vec::new();
        for chunk in names.chunks(SUBSCRIBE_CHUNK) {
            // Never an empty set: its error would put all later answers out of step.
            let witness = format!("{}:{}", chunk[0], Uuid::new_v4().simple());
            witnesses.push(witness.clone());
            self.link.client()?.subscribe(chunk.iter().cloned().chain([witness]).collect::<Vec<_>>()).await?;
        }
        let proof = self.ping().await;
        if matches!(&proof, Err(error) if !matches!(error.kind(), ErrorKind::IO | ErrorKind::Canceled)) {
            self.broken.notify_one();
        }
        proof?;
        self.check_subscribed(&witnesses).await?;
        self.link.client()?.unsubscribe(witnesses).await
    }

    /// Whether these channels, to which nobody else subscribes, have a subscriber: what has none was
    /// refused.
    async fn check_subscribed(&self, names: &[String]) -> Result<(), Error> {
        // In a cluster each node knows its own subscribers only.
        let ours = self.link.client()?.client_config().server.hosts();
        let counts: Result<HashMap<String, u64>, Error> = async {
            let client = match &*self.commands {
                Commands::One(link) => link.client()?,
                // Nobody can be asked about a node that is no primary.
                Commands::Cluster(primaries) => {
                    let ours = ours.iter().find_map(|server| primaries.client_of(server));
                    ours.ok_or_else(|| Error::new(ErrorKind::Auth, "NOPERM"))??
                }
            };
            client.pubsub_numsub(names.to_vec()).await
        }
        .await;
        match counts {
            Ok(counts) if names.iter().all(|name| counts.get(name).is_some_and(|count| *count > 0)) => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Auth, "NOPERM the channel cannot be subscribed to")),
            // A user who may not ask is taken at the server's word.
            Err(error) if error.details().starts_with("NOPERM") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A number that is used once.
    fn token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Answers go in order: the answer to this proves that all before it was done.
    async fn ping(&self) -> Result<(), Error> {
        let token = format!("zw-{}", self.token());
        let answer: Value = self.link.client()?.ping(Some(token.clone())).await?;
        if answers(&answer, &token) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::IO, "a subscription was not confirmed in its turn"))
        }
    }

    /// Subscribes to everything that is followed, on a new connection; otherwise to what is not
    /// subscribed to.
    async fn resubscribe(&self, is_new: bool) -> Result<(), Error> {
        let is_sharded = matches!(self.subscribing, Subscribing::Sharded { .. });
        let asked: Vec<(String, u64)> = {
            let mut followed = self.followed.lock();
            if is_new && is_sharded {
                followed.0.values_mut().for_each(|follow| follow.is_confirmed = false);
            }
            let due = |follow: &Follow| is_new || !follow.is_confirmed;
            let due = followed.0.iter().filter(|(_, follow)| due(follow));
            due.map(|(name, follow)| (name.clone(), follow.life)).collect()
        };
        let names: Vec<String> = asked.iter().map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        tracing::debug!(channels = names.len(), "subscribing anew");
        if !is_sharded {
            // It is asked whether the server took them.
            self.commands.until_up().await;
        }
        match self.subscribe(&names).await {
            // The others are subscribed to, and it is told to those who know where it went.
            Err(error) if is_sharded && error.is_moved() => {}
            answer => answer?,
        }
        let left: Vec<String> = {
            let mut followed = self.followed.lock();
            if !is_sharded {
                asked.iter().for_each(|(name, life)| followed.confirm(name, *life));
            }
            names.into_iter().filter(|name| !followed.0.contains_key(name)).collect()
        };
        if !left.is_empty() {
            // Unfollowed while we subscribed.
            self.unsubscribe(left).await?;
        }
        // What was appended meanwhile is in the log; what comes later, we are told. Messages of this node to
        // itself are no reason to look.
        if asked.iter().any(|(name, _)| *name != self.proof.lock().name) {
            self.suspect.notify_one();
        }
        Ok(())
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }

    /// Waits until the first attempt to connect, or one after it, has failed.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        self.link.until_failed().await
    }

    /// Connects, receives, keeps subscribed, and begins with another connection when one is lost or
    /// out of step. Runs until it is dropped.
    pub(super) async fn run(&self, events: mpsc::Sender<P::Event>) {
        loop {
            // From before the first follow on this connection, so that nothing is missed.
            let messages = self.link.open(|client| client.message_rx()).await;
            // What was said of the connection before this one.
            let _stale = (self.broken.notified().now_or_never(), self.deaf.notified().now_or_never());
            // Nothing was to be heard since then, so it is not deaf for that.
            self.proof.lock().heard = None;
            let failure = tokio::select! {
                () = self.receive(messages, &events) => ProbeFailure::Unreachable("the client ended".into()),
                failure = self.serve() => failure,
                failure = self.link.until_lost() => failure,
                () = self.broken.notified() => ProbeFailure::Unexpected("a subscription was not confirmed in time".into()),
                () = self.deaf.notified() => ProbeFailure::Unexpected("what is published does not arrive".into()),
            };
            self.link.lose(failure).await;
        }
    }

    /// Brings a new connection into use, and subscribes to what is adopted. Returns only when that
    /// fails.
    async fn serve(&self) -> ProbeFailure {
        let mut is_new = true;
        loop {
            match self.resubscribe(is_new).await {
                Ok(()) => self.link.up(),
                Err(error) => {
                    tracing::warn!(%error, "could not subscribe anew");
                    return ProbeFailure::of(&error);
                }
            }
            is_new = false;
            self.due.notified().await;
        }
    }

    /// Moves what is published into `events`; never waits for a reader who does not keep up.
    async fn receive(&self, mut messages: broadcast::Receiver<Message>, events: &mpsc::Sender<P::Event>) {
        let mut suspect = false;
        loop {
            tokio::select! {
                biased;
                room = events.reserve(), if suspect => {
                    if let Ok(room) = room {
                        room.send(self.published.suspect());
                    }
                    suspect = false;
                }
                () = self.suspect.notified() => suspect = true,
                message = messages.recv() => {
                    let missed = match message {
                        // Appended before the suspicion is told, so covered by it.
                        Ok(_) if suspect => 1,
                        Ok(message) => u64::from(!self.forward(&message, events)),
                        Err(RecvError::Lagged(missed)) => missed,
                        Err(RecvError::Closed) => return,
                    };
                    if missed > 0 {
                        self.dropped.fetch_add(missed, Ordering::Relaxed);
                        suspect = true;
                    }
                }
            }
        }
    }

    /// False when the message was lost.
    fn forward(&self, message: &Message, events: &mpsc::Sender<P::Event>) -> bool {
        let name: &str = &message.channel;
        {
            let mut proof = self.proof.lock();
            if *name == *proof.name {
                proof.heard = Some(Instant::now());
                return true;
            }
        }
        if !self.followed.lock().0.contains_key(name) {
            return true;
        }
        let content = match &message.value {
            Value::Bytes(bytes) => bytes,
            Value::String(text) => text.inner(),
            _ => return false,
        };
        let Some(event) = self.published.read(name, content) else {
            tracing::debug!(channel = name, "published bytes are not readable");
            return false;
        };
        match events.try_send(event) {
            // Whoever let go of the receiver does not want to know.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_for_the_follow_that_it_was_asked_for() {
        let mut followed = Followed::default();
        let first = followed.ask("a", 1).unwrap();
        followed.0.remove("a");
        followed.answered("a", first, true);
        assert!(followed.0.is_empty(), "let go of meanwhile");
        let second = followed.ask("a", 2).unwrap();
        followed.answered("a", first, true);
        assert!(!followed.0["a"].is_confirmed, "another one's answer");
        followed.answered("a", second, true);
        assert_eq!(followed.ask("a", 3), None);
    }

    #[test]
    fn who_follows_again_while_a_channel_is_let_go_of_is_subscribed_anew() {
        let mut followed = Followed::default();
        let first = followed.ask("a", 1).unwrap();
        followed.answered("a", first, true);
        // It is let go of; before UNSUBSCRIBE is sent, another asks and is subscribed.
        followed.0.remove("a");
        let second = followed.ask("a", 2).unwrap();
        assert!(followed.unsubscribed(&["a".to_owned(), "b".to_owned()], || 3));
        followed.answered("a", second, true);
        assert!(!followed.0["a"].is_confirmed, "what it was answered may have been before");
        followed.0.remove("a");
        assert!(!followed.unsubscribed(&["a".to_owned()], || 4));
    }

    #[test]
    fn who_fails_does_not_end_what_another_asked_for() {
        let mut followed = Followed::default();
        let (one, two) = (followed.ask("a", 1).unwrap(), followed.ask("a", 2).unwrap());
        followed.answered("a", one, false);
        followed.answered("a", two, true);
        assert!(followed.0["a"].is_confirmed);
        let (one, two) = (followed.ask("b", 3).unwrap(), followed.ask("b", 4).unwrap());
        followed.answered("b", one, true);
        followed.answered("b", two, false);
        assert!(followed.0["b"].is_confirmed);
        let alone = followed.ask("c", 5).unwrap();
        followed.answered("c", alone, false);
        assert!(!followed.0.contains_key("c"));
    }
}
