//! The reports of the subcommands about orders.

use std::fmt;

use serde::Serialize;

use super::report::{Delivered, Percentiles, write_busy, write_percentiles};

/// The results of `order-updates`.
#[derive(Debug, Serialize)]
pub(super) struct OrderUpdatesReport {
    /// The addresses of the sockets, as given.
    pub(super) urls: Vec<String>,
    /// Where updates were posted.
    pub(super) post_urls: Vec<String>,
    /// Each order has one socket.
    pub(super) orders: usize,
    /// HTTP connections that posted.
    pub(super) connections: usize,
    /// The requested updates per second.
    pub(super) rate_per_s: f64,
    pub(super) payload_bytes: usize,
    /// Updates that were posted and accepted in the measured part.
    pub(super) updates: u64,
    pub(super) updates_per_s: f64,
    /// The longest delay of a post. More than tens of milliseconds mean that answers took longer than the
    /// interval between two updates of a connection.
    pub(super) post_late_us_max: f64,
    #[serde(flatten)]
    pub(super) delivered: Delivered,
    /// From the answer to the arrival; zero if the arrival was first.
    pub(super) after_answer_us: Option<Percentiles>,
    /// The share of updates that arrived before their answer.
    pub(super) before_answer_ratio: Option<f64>,
    /// From just before the request was written to its answer.
    pub(super) answer_us: Option<Percentiles>,
}

/// The results of `order-throughput`.
#[derive(Debug, Serialize)]
pub(super) struct OrderThroughputReport {
    /// The gateways, as given.
    pub(super) urls: Vec<String>,
    pub(super) orders: u64,
    /// HTTP connections that placed them.
    pub(super) connections: usize,
    /// From the first request until the last order was accepted.
    pub(super) placed_s: f64,
    /// From the first request until all orders were seen to have ended.
    pub(super) window_s: f64,
    /// Ended orders over the whole window.
    pub(super) orders_per_s: f64,
    /// Accepted, over the time of placing.
    pub(super) placed: Stage,
    /// Claims by workers; more than orders if some were retried.
    pub(super) runs: Stage,
    /// Updates written.
    pub(super) updates: Stage,
    pub(super) ended: Stage,
    pub(super) confirmed: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    /// Orders that had not ended when the time was over.
    pub(super) unfinished: u64,
    /// From just before an order was sent until it was accepted.
    pub(super) answer_us: Option<Percentiles>,
    /// How often the gateways' counters were read after the last order was accepted.
    pub(super) stats_asked: u64,
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_order: Option<f64>,
    /// 1 means one core.
    pub(super) server_busy_ratio: Option<f64>,
    pub(super) client_busy_ratio: f64,
}

/// How many orders passed a stage, and how fast.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub(super) count: u64,
    pub(super) per_s: f64,
}

impl fmt::Display for OrderUpdatesReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, updates, updates_per_s, connections, post_late_us_max, delivered, .. } = self;
        writeln!(out, "orders        {orders}, each with a socket, open in {:.2} s", delivered.open_s)?;
        writeln!(
            out,
            "posted        {updates} updates, {updates_per_s:.1}/s, over {connections} connections, late by \
             {post_late_us_max:.0} us at most"
        )?;
        delivered.fmt(out)?;
        write_percentiles(out, "answer us", self.answer_us.as_ref())?;
        write_percentiles(out, "after it us", self.after_answer_us.as_ref())?;
        match self.before_answer_ratio {
            Some(ratio) => writeln!(out, "before it     {:.1} % of the updates", ratio * 100.0),
            None => Ok(()),
        }
    }
}

impl fmt::Display for OrderThroughputReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, window_s, orders_per_s, confirmed, failed, retried, unfinished, .. } = self;
        writeln!(out, "orders        {orders} in {window_s:.2} s, {orders_per_s:.0}/s from end to end")?;
        writeln!(
            out,
            "ended         {confirmed} confirmed, {failed} failed, {retried} tried again, {unfinished} unfinished"
        )?;
        for (name, stage) in [
            ("placed", &self.placed),
            ("runs", &self.runs),
            ("updates", &self.updates),
            ("ended", &self.ended),
        ] {
            writeln!(out, "{name:<13} {} at {:.0}/s", stage.count, stage.per_s)?;
        }
        write_percentiles(out, "answer us", self.answer_us.as_ref())?;
        if let (Some(each), Some(busy)) = (self.server_cpu_us_per_order, self.server_busy_ratio) {
            writeln!(out, "server cpu    {each:.1} us per order, busy {:.0} %", busy * 100.0)?;
        }
        write_busy(out, self.client_busy_ratio)
    }
}
