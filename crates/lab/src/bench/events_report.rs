//! The reports of `events`, `registry` and `dead-primary`.

use std::fmt;

use serde::Serialize;

use super::{
    events::Delivery,
    report::{NsEach, Percentiles, write_percentiles},
    sequence::SequenceCounts,
};

/// The results of `events`.
#[derive(Debug, Serialize)]
pub(super) struct EventsReport {
    pub(super) payload_bytes: usize,
    pub(super) kinds: Vec<EventsOf>,
}

/// The results of one kind of delivery.
#[derive(Debug, Serialize)]
pub(super) struct EventsOf {
    pub(super) delivery: Delivery,
    /// At each requested rate.
    pub(super) at_rates: Vec<EventsRun>,
    /// The greatest rate tried at which nothing was lost or delayed.
    pub(super) sustained: Option<EventsRun>,
    /// The first rate at which something was; null if that was not searched for, or not found.
    pub(super) first_beyond: Option<EventsRun>,
}

/// The results at one rate.
#[derive(Debug, Default, Serialize)]
pub(super) struct EventsRun {
    /// The requested rate.
    pub(super) rate_per_s: f64,
    pub(super) published_per_s: f64,
    /// From the end of the warm-up to the last arrival.
    pub(super) deliveries_per_s: f64,
    /// From the last publish, once answered, to the last arrival.
    pub(super) behind_s: f64,
    #[serde(flatten)]
    pub(super) sequences: SequenceCounts,
    /// The longest delay of a publish.
    pub(super) publish_late_us_max: f64,
    /// From just before an event was written to the first gateway until it was read at the second one's
    /// socket.
    pub(super) lag_us: Option<Percentiles>,
    /// CPU time of the first gateway, ...
    pub(super) publisher_cpu_us_per_event: Option<f64>,
    /// ... of the second one, ...
    pub(super) subscriber_cpu_us_per_event: Option<f64>,
    /// ... and of Redis, by its own account.
    pub(super) redis_cpu_us_per_event: Option<f64>,
    pub(super) client_busy_ratio: f64,
}

impl fmt::Display for EventsReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for of in &self.kinds {
            for run in &of.at_rates {
                write_run(out, of.delivery, "at", run)?;
            }
            if let Some(run) = &of.sustained {
                write_run(out, of.delivery, "sustained", run)?;
            }
            if let Some(run) = &of.first_beyond {
                write_run(out, of.delivery, "not sustained", run)?;
            }
        }
        Ok(())
    }
}

fn write_run(out: &mut fmt::Formatter<'_>, delivery: Delivery, what: &str, run: &EventsRun) -> fmt::Result {
    let EventsRun { rate_per_s, published_per_s, deliveries_per_s, behind_s, .. } = run;
    let SequenceCounts { lost, doubled, reordered, .. } = run.sequences;
    writeln!(
        out,
        "{:<13} {what} {rate_per_s:.0}/s: published {published_per_s:.0}/s, came {deliveries_per_s:.0}/s, the last \
         {behind_s:.2} s later; {lost} lost, {doubled} doubled, {reordered} reordered",
        delivery.as_str()
    )?;
    write_percentiles(out, "  lag us", run.lag_us.as_ref())?;
    let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
    writeln!(
        out,
        "  cpu us      {} at the publisher's gateway, {} at the subscriber's, {} in Redis, for each event; client busy \
         {:.0} %",
        us(run.publisher_cpu_us_per_event),
        us(run.subscriber_cpu_us_per_event),
        us(run.redis_cpu_us_per_event),
        run.client_busy_ratio * 100.0
    )
}

/// The results of `registry`.
#[derive(Debug, Serialize)]
pub(super) struct RegistryReport {
    /// How many records there are.
    pub(super) records: usize,
    /// Reads in this process, by one thread.
    pub(super) reads: Vec<NsEach>,
    /// The requested updates per second, ...
    pub(super) updates_asked_per_s: f64,
    /// ... and the actual ones.
    pub(super) updates_per_s: f64,
    /// From an update until the log has the record.
    pub(super) behind_us: Option<Percentiles>,
    /// How many entries these updates became.
    pub(super) appended: u64,
    /// CPU time of this process, which includes the gateway, per update.
    pub(super) cpu_us_per_update: f64,
    /// How many gateways were cut off from Redis.
    pub(super) gateways: usize,
    /// For how long.
    pub(super) apart_s: f64,
    /// How many writes they accepted meanwhile.
    pub(super) written_apart: usize,
    /// From when Redis could be reached again until all gateways held the same; null if they never did.
    pub(super) converged_ms: Option<f64>,
    /// How many records then differed from the last write.
    pub(super) wrong: usize,
}

impl fmt::Display for RegistryReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for NsEach { what, ns, ns_least, ns_most } in &self.reads {
            let per_s = 1e9 / ns.max(1e-9);
            writeln!(
                out,
                "reads         {ns:>10.1} ns ({ns_least:.1} to {ns_most:.1}), {per_s:.0}/s  {what}"
            )?;
        }
        let Self { updates_per_s, updates_asked_per_s, appended, cpu_us_per_update, .. } = self;
        writeln!(
            out,
            "updates       {updates_per_s:.0}/s of {updates_asked_per_s:.0}/s, as {appended} entries, \
             {cpu_us_per_update:.1} us of CPU each"
        )?;
        write_percentiles(out, "behind us", self.behind_us.as_ref())?;
        let Self { gateways, apart_s, written_apart, wrong, .. } = self;
        let converged = self.converged_ms.map_or("never".to_owned(), |ms| format!("after {ms:.0} ms"));
        writeln!(
            out,
            "apart         {gateways} gateways for {apart_s:.0} s, {written_apart} writings; the same {converged}, \
             {wrong} wrong"
        )
    }
}

/// The results of `dead-primary`.
#[derive(Debug, Serialize)]
pub(super) struct DeadPrimaryReport {
    /// Channels of the other primaries, and the requested appends per second to all of them.
    pub(super) healthy: u32,
    pub(super) rate_per_s: f64,
    /// Channels of the primary that failed, and the same of them.
    pub(super) forked: u32,
    pub(super) forked_rate_per_s: f64,
    /// All primaries serve; ...
    pub(super) before: Stretch,
    /// ... one does not, and all of its channels are forked; ...
    pub(super) during: Stretch,
    /// ... and all of them have been reconciled.
    pub(super) after: Stretch,
    /// How long it took to fork all of them.
    pub(super) forking_s: f64,
    /// From when the primary went on until everything was in step with the logs again.
    pub(super) reconciled_s: f64,
}

/// What was measured while the state of the cluster did not change.
#[derive(Debug, Serialize)]
pub(super) struct Stretch {
    pub(super) appends_per_s: f64,
    pub(super) others_per_s: f64,
    /// What an append to a channel of the other primaries took.
    pub(super) append_us: Option<Percentiles>,
    /// The same of the primary that failed.
    pub(super) other_append_us: Option<Percentiles>,
    /// CPU time of this process; 1 means one core.
    pub(super) busy_ratio: f64,
}

impl fmt::Display for DeadPrimaryReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { healthy, forked, forking_s, reconciled_s, .. } = self;
        for (what, of) in [("before", &self.before), ("during", &self.during), ("after", &self.after)] {
            let Stretch { appends_per_s, others_per_s, busy_ratio, .. } = of;
            writeln!(
                out,
                "{what:<13} {appends_per_s:.0}/s to {healthy} healthy channels, {others_per_s:.0}/s to {forked} others, busy \
                 {:.0} %",
                busy_ratio * 100.0
            )?;
            write_percentiles(out, "  healthy us", of.append_us.as_ref())?;
            write_percentiles(out, "  others us", of.other_append_us.as_ref())?;
        }
        writeln!(out, "forked        in {forking_s:.2} s, reconciled in {reconciled_s:.2} s")
    }
}
