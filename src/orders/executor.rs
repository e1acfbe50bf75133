//! The executor, which executes an order, and the handle through which it reports its progress.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::request::OrderRequest;
use super::run::{Run, RunError};
use crate::model::{EntryKind, OrderId};
use crate::protocol::Standing;

/// Executes orders.
///
/// [`execute`](Self::execute) may be dropped at any await: at a shutdown, or when a run takes too long. It
/// may be called again for the same order, also after a crash: [`OrderHandle::previous`] says how far the run
/// before came. If that is `submitted`, whichever attempt it was in, the executor has to find out what became
/// of the submission before it submits again. If that run was in the last attempt and broke off,
/// [`OrderHandle::attempt`] is still that attempt: the executor can only find out, report `submitted` with at
/// least the same progress, and end the order.
#[async_trait]
pub trait OrderExecutor: fmt::Debug + Send + Sync + 'static {
    /// The `executor` field of every update. Also the kind of jobs that this executor executes: orders
    /// placed at gateways whose executor has the same name.
    fn name(&self) -> &'static str;

    /// Executes an order, reporting through the handle. Before a report of `submitted` was accepted it
    /// must not do anything that cannot be undone.
    ///
    /// A panic fails the attempt; the next attempt follows if one is left.
    ///
    /// # Errors
    /// Why it was not executed, and whether another attempt makes sense.
    async fn execute(
        &self,
        order: &OrderRequest,
        handle: &mut OrderHandle,
    ) -> Result<Confirmation, ExecutionError>;
}

/// An order that was executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmation {
    /// A message for people.
    pub message: String,
    /// The result: fields of the order's last update, such as `txHash` and `dex` of a swap.
    pub fields: Vec<(&'static str, Value)>,
}

/// An order that was not executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The attempt failed, for now or for good.
    #[error("{message}")]
    Failed {
        /// A stable word for the kind of failure, such as `no_liquidity`.
        code: &'static str,
        /// A message for people.
        message: String,
        /// Whether another attempt makes sense.
        retry: bool,
    },
    /// A report was refused, and the run has to stop.
    #[error(transparent)]
    Stopped(#[from] RunError),
}

/// Through which an executor reports an order's progress.
///
/// A report of a step that can be undone does not wait for the log: it is appended while the executor continues,
/// together with the reports that follow meanwhile, and its error is returned by the next report. The first
/// report of [`submitted`](Self::submitted) of an attempt waits until the log has it and all before it.
#[derive(Debug)]
pub struct OrderHandle {
    pub(super) run: Run,
}

impl OrderHandle {
    /// The order.
    pub fn order(&self) -> OrderId {
        self.run.order
    }

    /// The current attempt, counting from 1 over all runs. A run that was given back is followed by a run in
    /// the same attempt, which begins anew with `routing` or `submitted`.
    pub fn attempt(&self) -> u32 {
        self.run.attempts.current
    }

    /// How many attempts there are.
    pub fn attempts_max(&self) -> u32 {
        self.run.attempts.max
    }

    /// How far the run before this one came; `None` if the order has no updates yet.
    pub fn previous(&self) -> Option<Standing> {
        self.run.previous()
    }

    /// The venue is being chosen; `progress` from 10 to 30.
    ///
    /// # Errors
    /// The run has to stop.
    pub async fn routing(
        &mut self,
        progress: u8,
        message: &str,
        fields: &[(&str, Value)],
    ) -> Result<(), RunError> {
        self.run.report(EntryKind::Routing, progress, message, fields).await
    }

    /// The transaction is being made; `progress` from 50 to 70.
    ///
    /// # Errors
    /// The run has to stop.
    pub async fn building(
        &mut self,
        progress: u8,
        message: &str,
        fields: &[(&str, Value)],
    ) -> Result<(), RunError> {
        self.run.report(EntryKind::Building, progress, message, fields).await
    }

    /// The transaction may be sent once this has answered, and not before: from here on the order
    /// cannot be cancelled. `progress` from 75 to 90.
    ///
    /// # Errors
    /// The run has to stop, and nothing may be sent.
    pub async fn submitted(
        &mut self,
        progress: u8,
        message: &str,
        fields: &[(&str, Value)],
    ) -> Result<(), RunError> {
        self.run.report(EntryKind::Submitted, progress, message, fields).await
    }

    /// Begins the next attempt within this run, if one is left; its first report is `routing` or `submitted`.
    pub fn next_attempt(&mut self) -> bool {
        self.run.attempts.begin_next()
    }
}
