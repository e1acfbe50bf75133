//! Orders: taken in, queued as jobs, carried out by workers, and told step by step.
//!
//! An order is a job of the same id and a channel of updates. What is true of it is in the storage:
//! the job says whether somebody works on it, the channel says how far it is. Nothing here keeps
//! state that a crash could lose.

mod config;
mod executor;
mod external;
mod interop;
mod lifecycle;
mod paper;
mod peers;
mod request;
mod run;
mod schema;
mod service;
mod stats;
mod view;
mod worker;

pub use config::{ExecutorChoice, OrdersConfig, PaperConfig, WhenDegraded};
pub use executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle, StepError};
pub use external::{Claimed, Outcome, ReportError, Ticket};
pub(crate) use interop::{Interop, InteropParts, InteropStats, InteropTotals, InteropWork};
pub use interop::{InteropConfig, OrderMirror};
pub use paper::PaperExecutor;
pub use request::{InvalidOrder, OrderRequest};
pub use schema::OrderSchema;
pub use service::{Orders, OrdersParts, PlaceError, Placed, RetryError, UpdateError};
pub use stats::{OrderStats, OrderTotals};
pub use view::{Listed, OrderView};
pub(crate) use worker::Worker;

pub use self::run::RunError;
