//! What carries an order out, and how it tells how far it is.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::request::OrderRequest;
use super::run::{Run, RunError};
use crate::model::{EntryKind, OrderId};
use crate::protocol::Standing;

/// Carries orders out.
///
/// [`execute`](Self::execute) may be dropped at any await: at a shutdown, or when a run takes too
/// long. It may be called again for the same order, also after a crash:
/// [`OrderHandle::previous`] says how far the run before came, and where that is `submitted`, it is
/// the executor's part to find out what became of it before it submits again, whichever attempt that
/// was. Where it was the last one, and its run broke off, [`OrderHandle::attempt`] is still that one: there is nothing left but to find out,
/// to report `submitted` with as much progress or more, and to end.
#[async_trait]
pub trait OrderExecutor: fmt::Debug + Send + Sync + 'static {
    /// Stands in the `executor` field of every update. Also the kind of orders that it carries out: those
    /// that were placed at gateways with an executor of the same name.
    fn name(&self) -> &'static str;

    /// Carries an order out, reporting through the handle. Between reports it must not do what
    /// cannot be undone, except after a report of `submitted` was accepted.
    ///
    /// Where it panics, the attempt has failed, and there is another one if any is left.
    ///
    /// # Errors
    /// Why it was not carried out, and whether another try makes sense.
    async fn execute(
        &self,
        order: &OrderRequest,
        handle: &mut OrderHandle,
    ) -> Result<Confirmation, ExecutionError>;
}

/// An order that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmation {
    /// For people.
    pub message: String,
    /// What came of it: fields of the order's last update, such as `txHash` and `dex` of a swap.
    pub fields: Vec<(&'static str, Value)>,
}

/// An order that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// It cannot be done, or could not be this time.
    #[error("{message}")]
    Failed {
        /// Stable word for the kind of failure, such as `no_liquidity`.
        code: &'static str,
        /// For people.
        message: String,
        /// Whether another try makes sense.
        retry: bool,
    },
    /// The run has to stop; passed on from a report.
    #[error(transparent)]
    Stopped(#[from] StepError),
}

/// A report that was not accepted: the run is over.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StepError(#[from] pub(super) RunError);

/// How an executor tells how far an order is.
///
/// A report of a step that can be undone does not wait for the log: it is told while the executor goes on, together
/// with those that come meanwhile, and what is wrong with it is said to the next one. The first report of
/// [`submitted`](Self::submitted) of an attempt waits until the log has it and all before it.
#[derive(Debug)]
pub struct OrderHandle {
    pub(super) run: Run,
}

impl OrderHandle {
    /// The order.
    pub fn order(&self) -> OrderId {
        self.run.order()
    }

    /// Which attempt this is, counting from 1 over all runs. A run that was given back is followed by
    /// another one of the same attempt, which begins anew with `routing` or `submitted`.
    pub fn attempt(&self) -> u32 {
        self.run.attempt()
    }

    /// How many tries there are.
    pub fn attempts_max(&self) -> u32 {
        self.run.attempts_max()
    }

    /// How far the run before this one came; `None` when nothing was told yet.
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
    ) -> Result<(), StepError> {
        Ok(self.run.report(EntryKind::Routing, progress, message, fields).await?)
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
    ) -> Result<(), StepError> {
        Ok(self.run.report(EntryKind::Building, progress, message, fields).await?)
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
    ) -> Result<(), StepError> {
        Ok(self.run.report(EntryKind::Submitted, progress, message, fields).await?)
    }

    /// Begins another try within this run, if there is one left; its first report is `routing` or
    /// `submitted`.
    pub fn next_attempt(&mut self) -> bool {
        self.run.attempts.begin_next()
    }
}
