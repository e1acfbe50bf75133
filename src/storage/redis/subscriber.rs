//! Subscriptions: subscribing, receiving, and detecting that messages were missed.
//!
//! fred's own functions for this are not used: they end silently when a receiver lags, and report a
//! subscription before the server has confirmed it. Instead, each SUBSCRIBE is followed by a PING with a
//! unique token on the same connection, whose answer proves that the server has processed both. If the server
//! refuses a SUBSCRIBE, fred passes the error to nobody; so each SUBSCRIBE includes a channel with a random
//! name, the witness. The server accepts all channels of a command or none, and when asked, says whether the
//! witness has a subscriber. On each new connection, everything is subscribed again and verified in the same
//! way, then reported as `Suspect`; only then the connection counts as up.
//!
//! That messages keep arriving is verified with health probes: each of them sends a message of this node to
//! itself (see [`Subscriber::expect`]).
//!
//! Sharded channels are each subscribed with their own SSUBSCRIBE, whose answer fred does pass on: it is the
//! confirmation, or says that another node has the channel now.

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

/// The most channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 500;

/// A connection on which no message of this node to itself has arrived for this long, although messages are
/// sent, is replaced. If the command timeout is longer, that applies.
const DEAF_AFTER: Duration = Duration::from_millis(1_500);

/// How channels are subscribed.
#[derive(Debug, Clone)]
pub(super) enum Subscribing {
    /// SUBSCRIBE.
    Plain,
    /// SSUBSCRIBE; notifies `moved` if the server does not have a channel.
    Sharded { moved: Arc<Notify> },
}

/// The followed channels. Several callers may follow a channel at the same time, and another may unfollow it
/// meanwhile, so an answer counts only for the follow that it belongs to.
#[derive(Debug, Default)]
struct Followed(HashMap<String, Follow>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follow {
    /// A new number each time the channel is followed.
    number: u64,
    /// How many callers wait for the server's answer, or rely on it.
    asking: usize,
    is_confirmed: bool,
}

impl Followed {
    /// Follows a channel; `None` if it is confirmed already. A new follow gets the number `number`.
    fn ask(&mut self, name: &str, number: u64) -> Option<u64> {
        let new = Follow { number, asking: 0, is_confirmed: false };
        let follow = self.0.entry(name.to_owned()).or_insert(new);
        if follow.is_confirmed {
            return None;
        }
        follow.asking += 1;
        Some(follow.number)
    }

    /// The server answered the follow with this number.
    fn answered(&mut self, name: &str, number: u64, is_subscribed: bool) {
        let Some(follow) = self.0.get_mut(name).filter(|follow| follow.number == number) else { return };
        follow.asking = follow.asking.saturating_sub(1);
        follow.is_confirmed |= is_subscribed;
        if !follow.is_confirmed && follow.asking == 0 {
            self.0.remove(name);
        }
    }

    /// The follow with this number is subscribed.
    fn confirm(&mut self, name: &str, number: u64) {
        if let Some(follow) = self.0.get_mut(name).filter(|follow| follow.number == number) {
            follow.is_confirmed = true;
        }
    }

    /// UNSUBSCRIBE was sent for channels that had been unfollowed. A channel that was followed again
    /// meanwhile may have been subscribed before that command, so it counts as a new, unconfirmed follow.
    /// Returns whether there is one.
    fn unsubscribed(&mut self, names: &[String], mut number: impl FnMut() -> u64) -> bool {
        let mut is_due = false;
        for name in names {
            if let Some(follow) = self.0.get_mut(name) {
                // The callers that followed it were answered, and rely on it.
                *follow = Follow { number: number(), asking: 1, is_confirmed: false };
                is_due = true;
            }
        }
        is_due
    }
}

/// Messages of this node to itself.
#[derive(Debug, Default)]
struct Proof {
    /// The channel on which they come.
    name: String,
    /// When the last one came, or since when one has been due.
    heard: Option<Instant>,
}

/// Turns messages into events.
pub(super) trait Published: Clone + Send + Sync {
    /// The event for followers.
    type Event: Send;

    /// Parses a message; `None` if it is unreadable. The event must not keep `content` alive.
    fn read(&self, channel: &str, content: &[u8]) -> Option<Self::Event>;

    /// The event that says that messages may have been missed.
    fn suspect(&self) -> Self::Event;
}

/// The followed channels, and the connection that is subscribed to them.
#[derive(Debug)]
pub(super) struct Subscriber<P> {
    link: Link<SubscriberClient>,
    /// For requests: a subscribed connection cannot make any.
    commands: Arc<Commands>,
    published: P,
    subscribing: Subscribing,
    followed: Mutex<Followed>,
    proof: Mutex<Proof>,
    tokens: AtomicU64,
    dropped: AtomicU64,
    /// Answers on the connection are out of step, or the server refused a PING: the connection has to be
    /// replaced.
    broken: Notify,
    /// Published messages do not arrive.
    deaf: Notify,
    /// Messages may have been missed.
    suspect: Notify,
    /// Some followed channel is not subscribed.
    due: Notify,
}

impl<P: Published> Subscriber<P> {
    pub(super) fn new(
        link: Link<SubscriberClient>,
        commands: Arc<Commands>,
        published: P,
        subscribing: Subscribing,
    ) -> Self {
        Self {
            link,
            commands,
            published,
            subscribing,
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

    /// Follows channels that another subscriber followed until now. They are subscribed soon, and then
    /// reported as suspect.
    pub(super) fn adopt(&self, names: Vec<String>) {
        if !names.is_empty() {
            // Counts as relied on until it is unfollowed, so that no other caller's failure ends it.
            let adopted = |name| (name, Follow { number: self.token(), asking: 1, is_confirmed: false });
            self.followed.lock().0.extend(names.into_iter().map(adopted));
            self.due.notify_one();
        }
    }

    /// Drops a channel that another subscriber takes over; the server no longer has it, and has ended the
    /// subscription.
    pub(super) fn leave(&self, name: &str) {
        self.followed.lock().0.remove(name);
    }

    /// Retries subscribing to channels that are not subscribed.
    pub(super) fn complete(&self) {
        if self.followed.lock().0.values().any(|follow| !follow.is_confirmed) {
            self.due.notify_one();
        }
    }

    pub(super) async fn follow(&self, name: String) -> Result<(), StorageError> {
        let asked = self.followed.lock().ask(&name, self.token());
        let Some(number) = asked else { return Ok(()) };
        let answer = self.subscribe(std::slice::from_ref(&name)).await;
        self.followed.lock().answered(&name, number, answer.is_ok());
        answer.map_err(|error| storage_error("follow", self.commands.limit(), &error))
    }

    pub(super) async fn unfollow(&self, name: String) -> Result<(), StorageError> {
        self.followed.lock().0.remove(&name);
        let answer = self.unsubscribe(vec![name]).await;
        match answer.map_err(|error| storage_error("unfollow", self.commands.limit(), &error)) {
            // A lost connection has no subscriptions.
            Err(StorageError::Unreachable { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Unsubscribes from channels that nobody follows. If a channel is followed again meanwhile, it is
    /// subscribed again, even if this fails or is dropped.
    async fn unsubscribe(&self, names: Vec<String>) -> Result<(), Error> {
        /// Runs when the command has been sent, or may have been.
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

    /// Expects messages of this node to itself on this channel as long as health probes send them. Call it
    /// after each answered health probe: if no message arrives, the connection is replaced.
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
        if heard.elapsed() >= DEAF_AFTER.max(self.commands.limit()) {
            proof.heard = None;
            tracing::warn!("published messages do not arrive, replacing the connection to redis");
            self.deaf.notify_one();
        }
    }

    /// Subscribes, and waits for the confirmation.
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

    /// Subscribes to every channel, even if one fails, with one channel per command, because fred would take
    /// further answers for those of other commands.
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
                    // An error that is not MOVED may mean that there is no connection, so it takes
                    // precedence.
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
            // The set is never empty: the error would put all later answers out of step.
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

    /// Verifies that these channels, which nobody else subscribes to, have a subscriber; one that has none
    /// was refused.
    async fn check_subscribed(&self, names: &[String]) -> Result<(), Error> {
        // In a cluster, each node knows only its own subscribers.
        let ours = self.link.client()?.client_config().server.hosts();
        let counts: Result<HashMap<String, u64>, Error> = async {
            let client = match &*self.commands {
                Commands::One(link) => link.client()?,
                // There is no connection for requests to a node that is not a primary.
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
            // If the user may not ask, the server's confirmation is believed.
            Err(error) if error.details().starts_with("NOPERM") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A number that is used only once.
    fn token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Answers come in order, so this answer proves that everything before it was processed.
    async fn ping(&self) -> Result<(), Error> {
        let token = format!("zw-{}", self.token());
        let answer: Value = self.link.client()?.ping(Some(token.clone())).await?;
        if answers(&answer, &token) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::IO, "a subscription was confirmed out of order"))
        }
    }

    /// Subscribes to all followed channels if the connection is new, otherwise to those that are not
    /// subscribed.
    async fn resubscribe(&self, is_new: bool) -> Result<(), Error> {
        let is_sharded = matches!(self.subscribing, Subscribing::Sharded { .. });
        let asked: Vec<(String, u64)> = {
            let mut followed = self.followed.lock();
            if is_new && is_sharded {
                followed.0.values_mut().for_each(|follow| follow.is_confirmed = false);
            }
            let due = |follow: &Follow| is_new || !follow.is_confirmed;
            let due = followed.0.iter().filter(|(_, follow)| due(follow));
            due.map(|(name, follow)| (name.clone(), follow.number)).collect()
        };
        let names: Vec<String> = asked.iter().map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        tracing::debug!(channels = names.len(), "subscribing again");
        if !is_sharded {
            // Verifying the subscriptions requires a connection for commands.
            self.commands.until_up().await;
        }
        match self.subscribe(&names).await {
            // The other channels are subscribed, and `moved` was notified about these.
            Err(error) if is_sharded && error.is_moved() => {}
            answer => answer?,
        }
        let left: Vec<String> = {
            let mut followed = self.followed.lock();
            if !is_sharded {
                asked.iter().for_each(|(name, number)| followed.confirm(name, *number));
            }
            names.into_iter().filter(|name| !followed.0.contains_key(name)).collect()
        };
        if !left.is_empty() {
            // They were unfollowed while we subscribed.
            self.unsubscribe(left).await?;
        }
        // Entries appended meanwhile are in the log, later ones will be received. Messages of this node to
        // itself are no reason to read the log.
        if asked.iter().any(|(name, _)| *name != self.proof.lock().name) {
            self.suspect.notify_one();
        }
        Ok(())
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }

    /// Waits until an attempt to connect has failed, the first one or a later one.
    pub(super) async fn until_failed(&self) -> ProbeFailure {
        self.link.until_failed().await
    }

    /// Connects, receives, maintains the subscriptions, and replaces the connection when it is lost or out of
    /// step. Runs until it is dropped.
    pub(super) async fn run(&self, events: mpsc::Sender<P::Event>) {
        loop {
            // Subscribed before the first follow on this connection, so that nothing is missed.
            let messages = self.link.open(|client| client.message_rx()).await;
            // Notifications about the earlier connection do not count.
            let _stale = (self.broken.notified().now_or_never(), self.deaf.notified().now_or_never());
            // No message was due without a connection, so the new one is not deaf.
            self.proof.lock().heard = None;
            let failure = tokio::select! {
                () = self.receive(messages, &events) => ProbeFailure::Unreachable("the client ended".into()),
                failure = self.serve() => failure,
                failure = self.link.until_lost() => failure,
                () = self.broken.notified() => ProbeFailure::Unexpected("a subscription was not confirmed in time".into()),
                () = self.deaf.notified() => ProbeFailure::Unexpected("published messages do not arrive".into()),
            };
            self.link.lose(failure).await;
        }
    }

    /// Brings a new connection into use, and subscribes to adopted channels. Returns only if that fails.
    async fn serve(&self) -> ProbeFailure {
        let mut is_new = true;
        loop {
            match self.resubscribe(is_new).await {
                Ok(()) => self.link.up(),
                Err(error) => {
                    tracing::warn!(%error, "could not subscribe again");
                    return ProbeFailure::of(&error);
                }
            }
            is_new = false;
            self.due.notified().await;
        }
    }

    /// Moves messages into `events`; never waits for a reader that does not keep up.
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
                        // The message came before the suspicion is reported, so that covers it.
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

    /// Returns false if the message was lost.
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
            tracing::debug!(channel = name, "a published message is unreadable");
            return false;
        };
        match events.try_send(event) {
            // If the receiver was dropped, nobody wants the event.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_for_its_own_follow() {
        let mut followed = Followed::default();
        let first = followed.ask("a", 1).unwrap();
        followed.0.remove("a");
        followed.answered("a", first, true);
        assert!(followed.0.is_empty(), "unfollowed meanwhile");
        let second = followed.ask("a", 2).unwrap();
        followed.answered("a", first, true);
        assert!(!followed.0["a"].is_confirmed, "the answer belongs to another follow");
        followed.answered("a", second, true);
        assert_eq!(followed.ask("a", 3), None);
    }

    #[test]
    fn following_again_during_unfollow_subscribes_again() {
        let mut followed = Followed::default();
        let first = followed.ask("a", 1).unwrap();
        followed.answered("a", first, true);
        // The channel is unfollowed; before UNSUBSCRIBE is sent, another caller follows and is subscribed.
        followed.0.remove("a");
        let second = followed.ask("a", 2).unwrap();
        assert!(followed.unsubscribed(&["a".to_owned(), "b".to_owned()], || 3));
        followed.answered("a", second, true);
        assert!(!followed.0["a"].is_confirmed, "it may have been subscribed before UNSUBSCRIBE");
        followed.0.remove("a");
        assert!(!followed.unsubscribed(&["a".to_owned()], || 4));
    }

    #[test]
    fn a_failed_follow_does_not_end_that_of_another_caller() {
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
