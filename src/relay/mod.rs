//! Carries events from one fleet of gateways to another, each with a Redis of its own.
//!
//! Durable events are copied from log to log under their own ids ([`durable`]): a log takes each id once,
//! whoever appends it and however often. So nothing is duplicated and nothing travels in circles, and after a
//! restart the target's log shows where to continue. Live events, which are in no shared log, are carried
//! from pub/sub to pub/sub, at most once ([`live`]). Of several relays with the same source and target, one
//! carries each type ([`leases`]).

mod durable;
mod end;
mod leases;
mod live;
mod serving;
mod stats;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::bridge::relayed::Way;
use crate::config::Config;
use crate::model::{ChannelName, EventType};
use crate::storage::{Log as _, LogEvent, Result as StorageResult, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::seldom::{Seldom, warn_seldom};
use durable::{Carrier, TAIL_LEN, Tail};
use end::End;
use leases::Leases;
use live::Live;
use stats::Counts;

/// How often to check that the fleets still have their names: one that lost its data gets its name again.
const IDENTIFY_EVERY: Duration = Duration::from_secs(5);

/// How many failed lookups of the fleets' names are not reported: connecting may take half a second.
const CONNECTING_TRIES: u32 = 3;

/// What the options, the errors and the logs call the two fleets.
const FROM: &str = "from";
const TO: &str = "to";

/// What a relay is built from.
pub(crate) struct RelayParts {
    /// The settings of the fleet that events come from, with its Redis.
    pub(crate) from: Config,
    /// The settings of the fleet that they go to.
    pub(crate) to: Config,
    /// The types that are carried, each once.
    pub(crate) types: Vec<EventType>,
    /// Where health and metrics are served, if anywhere.
    pub(crate) listen: Option<SocketAddr>,
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// Events would be carried to the fleet that they come from.
    #[error(
        "--from and --to are the same fleet: one Redis, and one prefix of its keys. If one of the two was made of a copy \
         of the other's data, give it a name of its own; docs/OPERATIONS.md says how"
    )]
    OneFleet,
    /// A setting cannot be used.
    #[error("the Redis of --{end} cannot be used: {reason}")]
    Unusable {
        /// Which of the two.
        end: &'static str,
        /// For people. Holds no secrets.
        reason: String,
    },
    /// The future that maintains the connections to a Redis ended, which it never does by itself.
    #[error("the client of the Redis of --{end} has ended; start the relay again")]
    Ended {
        /// Which of the two.
        end: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (--listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What the parts of a relay share.
#[derive(Debug)]
struct Shared {
    from: End,
    to: End,
    types: Vec<EventType>,
    leases: Leases,
    counts: Counts,
}

impl Shared {
    /// The fleets to carry from and to. Both names must have been looked up.
    fn way(&self) -> Way {
        Way { from: self.from.fleet(), to: self.to.fleet() }
    }
}

/// Carries events until `stop`.
///
/// # Errors
/// The relay cannot start. Once started, it waits for either Redis for as long as necessary.
pub(crate) async fn run(parts: RelayParts, stop: CancellationToken) -> Result<(), RelayError> {
    let RelayParts { from, to, types, listen } = parts;
    let listener = match listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.map_err(|cause| RelayError::Listen { address, cause })?)
        }
        None => None,
    };
    let (from, from_driver) = End::new(FROM, &from)?;
    let (to, to_driver) = End::new(TO, &to)?;
    let shared = Arc::new(Shared { from, to, types, leases: Leases::default(), counts: Counts::default() });
    let serving = async {
        match listener {
            Some(listener) => serving::serve(listener, Arc::clone(&shared)).await,
            None => std::future::pending().await,
        }
    };
    let carrying = async {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = identify(&shared) => {}
        }
        if shared.from.fleet() == shared.to.fleet() {
            return Err(RelayError::OneFleet);
        }
        let names: Vec<&str> = shared.types.iter().map(|event| event.as_str()).collect();
        info!(from = %shared.from.fleet(), to = %shared.to.fleet(), types = names.join(","), "relaying events");
        carry(&shared, &stop).await;
        Ok(())
    };
    tokio::select! {
        result = carrying => result,
        () = from_driver => Err(RelayError::Ended { end: FROM }),
        () = to_driver => Err(RelayError::Ended { end: TO }),
        () = serving => Ok(()),
    }
}

/// Looks up the names of both fleets, however long that takes.
async fn identify(shared: &Shared) {
    let (mut failures, mut of_failures) = (0, Seldom::default());
    while let Err(error) = identify_once(shared).await {
        failures += 1;
        // At first the connections are still being made.
        let is_failure = failures > CONNECTING_TRIES;
        shared.counts.failures.add(u64::from(is_failure));
        if is_failure {
            warn_seldom!(of_failures, error = error.with_causes(), "waiting for both Redis");
        }
        STORAGE_RETRY.pause(failures).await;
    }
}

async fn identify_once(shared: &Shared) -> StorageResult<()> {
    let (from, to) = tokio::join!(shared.from.identify(), shared.to.identify());
    from.and(to)
}

/// Runs all parts until `stop`, then waits for them to end.
async fn carry(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut carriers = Vec::new();
    let mut tails: [Option<TailSender>; EventType::ALL.len()] = Default::default();
    for event in &shared.types {
        let (sender, tail) = mpsc::channel(TAIL_LEN);
        let suspect = Arc::new(Notify::new());
        carriers.push(Carrier::new(Arc::clone(shared), *event, tail, Arc::clone(&suspect)));
        tails[*event as usize] = Some(TailSender { sender, suspect });
    }
    let live = Live::new(Arc::clone(shared));
    let carrying = async {
        let durable = join_all(carriers.into_iter().map(|carrier| carrier.run(stop.clone())));
        tokio::join!(durable, live.run(stop.clone()));
    };
    let beside = async {
        tokio::join!(dispatch(shared, tails), leases::renew(shared), identify_again(shared));
    };
    tokio::pin!(carrying, beside);
    let _carried = select(carrying, beside).await;
    leases::let_go(shared).await;
    info!("stopped relaying events");
}

async fn identify_again(shared: &Shared) {
    let mut of_failures = Seldom::default();
    loop {
        time::sleep(IDENTIFY_EVERY).await;
        if let Err(error) = identify_once(shared).await {
            shared.counts.failures.add(1);
            warn_seldom!(of_failures, error = error.with_causes(), "cannot look for the names of the fleets");
        }
    }
}

/// Where the appended entries of one log are sent.
#[derive(Debug)]
struct TailSender {
    sender: mpsc::Sender<Tail>,
    suspect: Arc<Notify>,
}

/// Passes what the source's Redis announces to the carriers. One whose queue is full reads the log instead.
async fn dispatch(shared: &Shared, tails: [Option<TailSender>; EventType::ALL.len()]) {
    let Some(mut incoming) = shared.from.backend.take_incoming() else { return };
    let of = |channel: &ChannelName| {
        let (event, _) = channel.as_event()?;
        tails[event as usize].as_ref()
    };
    while let Some(announced) = incoming.recv().await {
        match announced {
            LogEvent::Appended { channel, epoch, entries } => {
                let Some(tail) = of(&channel) else { continue };
                if tail.sender.try_send((epoch, entries)).is_err() {
                    tail.suspect.notify_one();
                }
            }
            LogEvent::Changed(channel) => of(&channel).iter().for_each(|tail| tail.suspect.notify_one()),
            LogEvent::Suspect => tails.iter().flatten().for_each(|tail| tail.suspect.notify_one()),
        }
    }
}

/// Counts and logs a failed call of either Redis.
fn note_failure(shared: &Shared, of_failures: &mut Seldom, event: EventType, error: &StorageError) {
    shared.counts.failures.add(1);
    warn_seldom!(
        of_failures,
        event = event.as_str(),
        error = error.with_causes(),
        "events wait to be carried"
    );
}
