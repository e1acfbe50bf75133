//! What is counted of registries.

use serde::{Deserialize, Serialize};

use super::table::counts;
use super::{Metric, MetricKind, Metrics, Number, Timing};

/// How the registries of a node do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(!default))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RegistriesView {
    /// Online providers.
    pub providers: RegistryView,
    /// Orders that are under way.
    pub active_orders: RegistryView,
}

impl Metrics for RegistriesView {
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>)) {
        for (name, view) in [("providers", &self.providers), ("active-orders", &self.active_orders)] {
            view.tell(&mut |metric| to(Metric { label: Some(("registry", name)), ..metric }));
        }
        let mut behind = self.providers.counts.behind_duration;
        behind += self.active_orders.counts.behind_duration;
        to(Metric {
            name: "registry_behind_seconds",
            kind: MetricKind::Histogram,
            help: "How long what was written waited for the log, of all registries",
            label: None,
            number: Number::Timing(behind),
        });
    }
}

counts! {
    /// How a registry does on one node.
    pub struct RegistryView {
        /// `healthy`; `degraded` while Redis is away, and what other nodes write is not known here; `recovering`
        /// until it was compared with the log after that.
        state: String,
        /// Records.
        records: usize = gauge("registry_records"),
        /// Removals that are remembered, so that nothing older brings them back.
        removals: usize = gauge("registry_removals"),
        /// Records that were written here and are not in the log yet.
        waiting: usize = gauge("registry_waiting"),
        /// How long the first of them has waited, in milliseconds; null where none waits.
        waiting_for_ms: Option<u64>,
        /// That is 5 seconds or longer.
        is_lagging: bool,
        /// What was done since the start.
        #[serde(flatten)]
        counts: RegistryCounts = of,
    }

    /// What a node did with a registry since its start.
    pub struct RegistryCounts<N> {
        /// Records written here, renewals included.
        written: N = counter("registry_written"),
        /// Records removed here.
        removed: N = counter("registry_removed"),
        /// Records whose time had run out, as this node found first.
        expired: N = counter("registry_expired"),
        /// Records and removals appended to the log; several writings of a record may be one.
        appended: N = counter("registry_appended"),
        /// Times that the log did not take them; each was tried again.
        append_failures: N = counter("registry_append_failures"),
        /// Entries of the log that lost to a newer writing of their record.
        superseded: N = counter("registry_superseded"),
        /// Entries of the log that are no records.
        unreadable: N = counter("registry_unreadable"),
        /// Times that what is held here was compared with the log.
        compared: N = counter("registry_compared"),
        /// Providers taken offline, since their connection or their node was gone.
        went_offline: N = counter("registry_went_offline"),
        /// Records taken from the Redis keys of other programs.
        imported: N = counter("registry_imported"),
        /// Times that these keys could not be written.
        mirror_failures: N = counter("registry_mirror_failures"),
        /// Orders under way here that the registry had no room for.
        orders_left_out: N = counter("registry_orders_left_out"),
        /// How long what was written waited for the log.
        behind_duration: Timing<N>,
    }
}
