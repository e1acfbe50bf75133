//! What is published: subscribing, receiving, and making sure that nothing is missed unnoticed.
//!
//! fred's own functions for this are not used: they end silently when a receiver lags, and they
//! answer a subscribe before the server has. So: after each SUBSCRIBE goes a PING with a token of
//! its own on the same connection; its answer proves that the server has subscribed us. On each
//! further connection everything is subscribed anew, proven the same way, and then told as
//! `Suspect`; only then the connection counts as up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{Message, Value};
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, mpsc, watch};

use super::errors::storage_error;
use super::link::{Link, LinkState, answers};
use crate::storage::{ProbeFailure, StorageError};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_CHUNK: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    /// Asked for; the server has not confirmed it yet.
    Asked,
    Confirmed,
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

/// The channels that are followed, and the connection that is subscribed to them.
#[derive(Debug)]
pub(super) struct Subscriber<P> {
    link: Link<SubscriberClient>,
    /// A subscribed connection can ask nothing; this one can.
    commands: Arc<Link<Client>>,
    published: P,
    command_timeout: Duration,
    followed: Mutex<HashMap<String, Follow>>,
    tokens: AtomicU64,
    dropped: AtomicU64,
    /// Answers on the connection are out of step, or it refused a barrier: only a new one helps.
    broken: Notify,
    /// Something may have been missed.
    suspect: Notify,
}

impl<P: Published> Subscriber<P> {
    pub(super) fn new(
        link: Link<SubscriberClient>,
        commands: Arc<Link<Client>>,
        published: P,
        command_timeout: Duration,
    ) -> Self {
        Self {
            link,
            commands,
            published,
            command_timeout,
            followed: Mutex::default(),
            tokens: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            broken: Notify::new(),
            suspect: Notify::new(),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) async fn follow(&self, name: String) -> Result<(), StorageError> {
        {
            let mut followed = self.followed.lock();
            if followed.get(&name) == Some(&Follow::Confirmed) {
                return Ok(());
            }
            followed.insert(name.clone(), Follow::Asked);
        }
        match self.subscribe(std::slice::from_ref(&name)).await {
            Ok(()) => {
                self.followed.lock().insert(name, Follow::Confirmed);
                Ok(())
            }
            Err(error) => {
                let mut followed = self.followed.lock();
                if followed.get(&name) == Some(&Follow::Asked) {
                    followed.remove(&name);
                }
                Err(storage_error("follow", self.command_timeout, &error))
            }
        }
    }

    pub(super) async fn unfollow(&self, name: String) -> Result<(), StorageError> {
        self.followed.lock().remove(&name);
        let answer = async { self.link.client()?.unsubscribe(name).await }.await;
        match answer.map_err(|error| storage_error("unfollow", self.command_timeout, &error)) {
            // A connection that is gone is subscribed to nothing.
            Err(StorageError::Unreachable { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Subscribes, and waits for the proof.
    async fn subscribe(&self, names: &[String]) -> Result<(), Error> {
        for chunk in names.chunks(SUBSCRIBE_CHUNK) {
            // Never an empty set: its error would put all later answers out of step.
            self.link.client()?.subscribe(chunk.to_vec()).await?;
        }
        let proof = self.ping().await;
        if matches!(&proof, Err(error) if !matches!(error.kind(), ErrorKind::IO | ErrorKind::Canceled)) {
            self.broken.notify_one();
        }
        proof?;
        for chunk in names.chunks(SUBSCRIBE_CHUNK) {
            self.check_subscribed(chunk).await?;
        }
        Ok(())
    }

    /// A refused SUBSCRIBE is answered by an error that fred gives to nobody. What has no subscriber
    /// was refused.
    async fn check_subscribed(&self, names: &[String]) -> Result<(), Error> {
        let counts: Result<HashMap<String, u64>, Error> =
            async { self.commands.client()?.pubsub_numsub(names.to_vec()).await }.await;
        match counts {
            Ok(counts) if names.iter().all(|name| counts.get(name).is_some_and(|count| *count > 0)) => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Auth, "NOPERM the channel cannot be subscribed to")),
            // A user who may not ask is taken at the server's word.
            Err(error) if error.details().starts_with("NOPERM") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Answers go in order: the answer to this proves that all before it was done.
    async fn ping(&self) -> Result<(), Error> {
        let token = format!("zw-{}", self.tokens.fetch_add(1, Ordering::Relaxed));
        let answer: Value = self.link.client()?.ping(Some(token.clone())).await?;
        if answers(&answer, &token) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::IO, "answers are out of step"))
        }
    }

    /// Subscribes to everything that is followed, on a new connection.
    async fn resubscribe(&self) -> Result<(), Error> {
        let names: Vec<String> = self.followed.lock().keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        tracing::info!(channels = names.len(), "subscribing anew");
        // It is asked whether the server took them.
        self.commands.until_up().await;
        self.subscribe(&names).await?;
        let left: Vec<String> = {
            let followed = self.followed.lock();
            names.into_iter().filter(|name| !followed.contains_key(name)).collect()
        };
        if !left.is_empty() {
            // Unfollowed while we subscribed.
            self.link.client()?.unsubscribe(left).await?;
        }
        // What was appended meanwhile is in the log; what comes later, we are told.
        self.suspect.notify_one();
        Ok(())
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }

    pub(super) async fn until_failed(&self) -> ProbeFailure {
        self.link.until_failed().await
    }

    /// Connects, receives, keeps subscribed, and begins with another connection when one is lost or
    /// out of step. Runs until it is dropped.
    pub(super) async fn run(&self, events: mpsc::Sender<P::Event>) {
        loop {
            // From before the first follow on this connection, so that nothing is missed.
            let messages = self.link.open(|client| client.message_rx()).await;
            let failure = tokio::select! {
                () = self.receive(messages, &events) => ProbeFailure::Unreachable("the client ended".into()),
                failure = self.serve() => failure,
                failure = self.link.until_lost() => failure,
                () = self.broken.notified() => ProbeFailure::Unexpected("answers are out of step".into()),
            };
            self.link.lose(failure).await;
        }
    }

    /// Brings a new connection into use. Returns only when that fails.
    async fn serve(&self) -> ProbeFailure {
        match self.resubscribe().await {
            Ok(()) => {
                self.link.up();
                std::future::pending().await
            }
            Err(error) => {
                tracing::warn!(%error, "could not subscribe anew");
                ProbeFailure::of(&error)
            }
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
        if !self.followed.lock().contains_key(name) {
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
