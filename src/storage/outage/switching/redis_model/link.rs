//! What is between a node and the server: two connections, each of which may be lost by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{ModelServer, lost};
use crate::model::ChannelName;
use crate::storage::LogEvent;
use crate::storage::primary::{Domains, LinkHealth};

pub(super) type Execute = Box<dyn FnOnce() + Send>;

/// A command on its way.
pub(super) struct InFlight {
    pub(super) arrives: Instant,
    pub(super) execute: Execute,
}

/// What is between one node and the server.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: usize,
    pub(super) state: Mutex<LinkState>,
    pub(super) domains: watch::Sender<Domains>,
    /// The failure domain of all channels; everything else is in the first.
    pub(super) channels_in: AtomicU16,
    events: mpsc::Sender<LogEvent>,
    /// Nobody is on this side any more.
    pub(super) crashed: AtomicBool,
}

impl Link {
    /// Not connected yet. What is published comes to `events`.
    pub(super) fn new(name: usize, events: mpsc::Sender<LogEvent>) -> Self {
        let domains = watch::Sender::new(Domains::one(LinkHealth { lost: Some(lost()), losses: 0 }));
        Self {
            name,
            state: Mutex::default(),
            domains,
            channels_in: AtomicU16::new(0),
            events,
            crashed: AtomicBool::new(false),
        }
    }

    fn change_health(&self, change: impl Fn(&mut LinkHealth)) {
        self.domains.send_modify(|domains| {
            domains.parts.iter_mut().flatten().for_each(|part| change(&mut part.health))
        });
    }
}

#[derive(Debug, Default)]
pub(super) struct LinkState {
    pub(super) connection: Option<Connection>,
    pub(super) subscriber: Option<Subscriber>,
    /// What the node follows, on whichever connection.
    pub(super) followed: BTreeSet<ChannelName>,
}

/// The connection for commands.
pub(super) struct Connection {
    pub(super) commands: mpsc::UnboundedSender<InFlight>,
    /// Commands are executed, and answered, in order.
    pub(super) last_arrival: Instant,
    /// How long what is under way is held up, in milliseconds.
    held_up: Arc<AtomicU64>,
    pub(super) lost: CancellationToken,
    task: AbortHandle,
}

/// The connection on which the node receives what is published.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) published: mpsc::UnboundedSender<(Instant, LogEvent)>,
    pub(super) last_event: Instant,
    pub(super) subscribed: BTreeSet<ChannelName>,
    task: AbortHandle,
}

/// Which of a node's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Both,
    Commands,
    Subscriber,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl ModelServer {
    /// Nobody uses this link any more; what was under way may take effect.
    pub(crate) fn crash(&self, name: usize) {
        let link = self.link(name);
        link.crashed.store(true, Ordering::Release);
        self.disconnect(name, Which::Both, Some(Duration::ZERO));
    }

    pub(super) fn link(&self, name: usize) -> Arc<Link> {
        let state = self.0.state.lock();
        let found = state.links.iter().rev().find(|link| link.name == name);
        Arc::clone(found.expect("it was started"))
    }

    /// Changes the failure domains as a node sees them. What is in a domain can be asked even if it is lost.
    pub(in crate::storage) fn change_domains(&self, name: usize, change: impl FnOnce(&mut Domains)) {
        self.link(name).domains.send_modify(change);
    }

    /// Moves all channels to a failure domain.
    pub(in crate::storage) fn set_channels_in(&self, name: usize, domain: u16) {
        self.link(name).channels_in.store(domain, Ordering::Relaxed);
    }

    /// The node's connections break. What was under way is lost, or takes effect this much later.
    pub(crate) fn disconnect(&self, name: usize, which: Which, later: Option<Duration>) {
        let link = self.link(name);
        let (connection, subscriber) = {
            let mut state = link.state.lock();
            let connection = if which == Which::Subscriber { None } else { state.connection.take() };
            let subscriber = if which == Which::Commands { None } else { state.subscriber.take() };
            (connection, subscriber)
        };
        let is_minded = which != Which::Subscriber || !self.0.state.lock().laws.subscriber_not_minded;
        let losses = u64::from(connection.is_some()) + u64::from(subscriber.is_some());
        if let Some(connection) = connection {
            match later {
                None => connection.task.abort(),
                Some(later) => {
                    let held_up = u64::try_from(later.as_millis()).unwrap_or(0);
                    connection.held_up.store(held_up, Ordering::Release);
                }
            }
            connection.lost.cancel();
        }
        if let Some(subscriber) = subscriber {
            subscriber.task.abort();
        }
        if losses > 0 && is_minded {
            link.change_health(|health| {
                health.lost = Some(lost());
                health.losses += losses;
            });
        }
    }

    /// New connections in place of those that are lost, with everything followed that was.
    pub(crate) fn connect(&self, name: usize) {
        let link = self.link(name);
        if link.crashed.load(Ordering::Acquire) {
            return;
        }
        let is_minded = !self.0.state.lock().laws.subscriber_not_minded;
        let mut state = link.state.lock();
        if state.connection.is_some() && state.subscriber.is_some() {
            return;
        }
        if state.connection.is_none() {
            state.connection = Some(self.connection());
        }
        if state.subscriber.is_none() {
            let subscriber = Self::subscriber(&link, state.followed.clone());
            if !subscriber.subscribed.is_empty() && is_minded {
                // The receiver lives as long as the connection.
                let _sent = subscriber.published.send((Instant::now(), LogEvent::Suspect));
            }
            state.subscriber = Some(subscriber);
        }
        drop(state);
        link.change_health(|health| health.lost = None);
    }

    pub(super) fn connection(&self) -> Connection {
        let (commands, mut to_execute) = mpsc::unbounded_channel::<InFlight>();
        let held_up = Arc::new(AtomicU64::new(0));
        let (holds, server) = (Arc::clone(&held_up), Arc::downgrade(&self.0));
        let executing = tokio::spawn(async move {
            while let Some(command) = to_execute.recv().await {
                time::sleep_until(command.arrives).await;
                let more = holds.swap(0, Ordering::AcqRel);
                if more > 0 {
                    time::sleep(Duration::from_millis(more)).await;
                }
                while let Some(running) = server.upgrade().map(|server| server.running.lock().clone())
                    && !running.is_cancelled()
                {
                    running.cancelled().await;
                }
                (command.execute)();
            }
        });
        Connection {
            commands,
            last_arrival: Instant::now(),
            held_up,
            lost: CancellationToken::new(),
            task: executing.abort_handle(),
        }
    }

    pub(super) fn subscriber(link: &Link, subscribed: BTreeSet<ChannelName>) -> Subscriber {
        let (published, mut to_tell) = mpsc::unbounded_channel::<(Instant, LogEvent)>();
        let events = link.events.clone();
        let telling = tokio::spawn(async move {
            while let Some((at, event)) = to_tell.recv().await {
                time::sleep_until(at).await;
                if events.try_send(event).is_err() && events.send(LogEvent::Suspect).await.is_err() {
                    return;
                }
            }
        });
        Subscriber { published, last_event: Instant::now(), subscribed, task: telling.abort_handle() }
    }

    /// Whether a node can use it now.
    pub(crate) fn serves(&self, name: usize) -> bool {
        let link = self.link(name);
        let is_connected = link.domains.borrow().are_up();
        is_connected && self.is_running() && !self.0.state.lock().refuses_writes
    }
}
