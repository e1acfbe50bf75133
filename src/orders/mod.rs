//! Orders: accepted, queued as jobs, executed by workers, and published step by step.
//!
//! An order is a job and a channel of updates with the same id. The truth about it is in the storage: the job
//! says whether a worker has it, the channel says how far it is. Nothing here keeps state that a crash could
//! lose.
//!
//! What happens to an order, and in which module:
//!
//! - it is placed, or a dead letter is placed again: `placing`, with `request` and `schema` for its content;
//! - it is read, singly or in a list: `reading`, with `view` for how it is shown;
//! - it is cancelled: `cancelling`;
//! - it is claimed and executed: `worker` with an `executor`, or `external` (`claiming`, `reporting`) by
//!   workers over HTTP. Either way a claim is a `run`, with its `lease`, its `attempts` and its
//!   `reports`;
//! - its updates are published: `updates`; `interop` exchanges updates with workers that use Redis lists;
//! - it ends, or is left to another run: `ending`.
//!
//! `desk` is what all of these share.

mod attempts;
mod cancelling;
mod config;
mod desk;
mod ending;
mod executor;
mod external;
mod interop;
mod lease;
mod paper;
mod placing;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod reading;
mod reports;
mod request;
mod run;
mod schema;
mod updates;
mod view;
mod worker;

pub use config::{ExecutorChoice, OrdersConfig, PaperConfig, WhenDegraded};
pub use desk::{Orders, OrdersParts};
pub use executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle};
pub use external::{Claimed, Ticket};
pub use interop::{InteropConfig, OrderMirror};
pub(crate) use interop::{InteropStats, InteropWork, exchange_updates};
pub use paper::PaperExecutor;
pub use placing::{PlaceError, Placed, RetryError};
pub use request::{InvalidOrder, OrderRequest};
pub use schema::OrderSchema;
pub use updates::{OrderWatch, UpdateError};
pub use view::{Listed, OrderView};
pub(crate) use worker::Worker;

pub use self::run::RunError;

use zonewire_protocol::stats::OrderCounts;

use crate::support::counter::Counter;

/// This node's counters of orders.
pub(crate) type OrderStats = OrderCounts<Counter>;
