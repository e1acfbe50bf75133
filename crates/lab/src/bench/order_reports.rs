//! The reports of the subcommands about orders.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::report::{Percentiles, ServerCpu, ServerMemory, write_counts, write_memory, write_percentiles};

/// The results of `order-updates`.
#[derive(Debug, Serialize)]
pub(super) struct OrderUpdatesReport {
    /// `order-updates`.
    pub(super) kind: &'static str,
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
    /// From the first connect until every socket was subscribed.
    pub(super) open_s: f64,
    /// Updates that were posted and accepted in the measured part.
    pub(super) updates: u64,
    pub(super) updates_per_s: f64,
    /// The longest delay of a post. More than tens of milliseconds mean that answers took longer than the
    /// interval between two updates of a connection.
    pub(super) post_late_us_max: f64,
    /// From the end of the warm-up to the last arrival.
    pub(super) window_s: f64,
    /// Updates that arrived in the window.
    pub(super) deliveries: u64,
    /// Updates of the whole run, including the warm-up, that arrived, ...
    pub(super) received: u64,
    /// ... and that were accepted.
    pub(super) expected: u64,
    /// Accepted, but never arrived.
    pub(super) lost: u64,
    /// Arrived more than once.
    pub(super) doubled: u64,
    /// Arrived after a later one of the same order.
    pub(super) reordered: u64,
    /// Updates sent before this run began.
    pub(super) stale: u64,
    /// Frames without an update: greeting, subscription, heartbeat.
    pub(super) other_frames: u64,
    /// Connections that sent something that is not a frame.
    pub(super) broken_frames: u64,
    /// Connections that the server ended; 1006 means without a close frame.
    pub(super) closed_by_code: BTreeMap<u16, u64>,
    /// From just before the request was written to the arrival on the socket.
    pub(super) latency_us: Option<Percentiles>,
    /// From the answer to the arrival; zero if the arrival was first.
    pub(super) after_answer_us: Option<Percentiles>,
    /// The share of updates that arrived before their answer.
    pub(super) before_answer_ratio: Option<f64>,
    /// From just before the request was written to its answer.
    pub(super) answer_us: Option<Percentiles>,
    #[serde(flatten)]
    pub(super) server: ServerCpu,
    #[serde(flatten)]
    pub(super) memory: ServerMemory,
    /// CPU time of this process, which has two busy threads, relative to the window.
    pub(super) client_busy_ratio: f64,
}

/// The results of `order-throughput`.
#[derive(Debug, Serialize)]
pub(super) struct OrderThroughputReport {
    /// `order-throughput`.
    pub(super) kind: &'static str,
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
        writeln!(out, "orders        {}, each with a socket, open in {:.2} s", self.orders, self.open_s)?;
        let Self { updates, updates_per_s, connections, post_late_us_max, .. } = self;
        writeln!(
            out,
            "posted        {updates} updates, {updates_per_s:.1}/s, over {connections} connections, late by {post_late_us_max:.0} us at most"
        )?;
        let Self { received, lost, doubled, reordered, stale, broken_frames, .. } = self;
        writeln!(
            out,
            "checked       {received} arrived, {lost} lost, {doubled} doubled, {reordered} reordered, {stale} stale, {broken_frames} broken"
        )?;
        write_counts(out, "closed", &self.closed_by_code)?;
        write_percentiles(out, "latency us", self.latency_us.as_ref())?;
        write_percentiles(out, "answer us", self.answer_us.as_ref())?;
        write_percentiles(out, "after it us", self.after_answer_us.as_ref())?;
        if let Some(ratio) = self.before_answer_ratio {
            writeln!(out, "before it     {:.1} % of the updates", ratio * 100.0)?;
        }
        let cpu = &self.server;
        if let (Some(user), Some(system), Some(busy)) =
            (cpu.server_user_us_per_delivery, cpu.server_system_us_per_delivery, cpu.server_busy_ratio)
        {
            writeln!(
                out,
                "server cpu    {user:.1} us user + {system:.1} us system per update, busy {:.0} %",
                busy * 100.0
            )?;
        }
        write_memory(out, &self.memory)?;
        writeln!(out, "client cpu    busy {:.0} %", self.client_busy_ratio * 100.0)
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
        writeln!(out, "client cpu    busy {:.0} %", self.client_busy_ratio * 100.0)
    }
}
