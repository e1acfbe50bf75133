//! Counters of registries.

use serde::{Deserialize, Serialize};

use super::table::counts;
use super::{Metric, MetricKind, Metrics, Number, Timing};

/// The registries of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), schemars(!default))]
pub struct RegistriesView {
    /// Online providers.
    pub providers: RegistryView,
    /// Orders in progress.
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
            help: "How long written records waited for the log, in all registries",
            label: None,
            number: Number::Timing(behind),
        });
    }
}

counts! {
    /// A registry on one node.
    pub struct RegistryView {
        /// `healthy`; `degraded` while Redis is away and what other nodes write is unknown here;
        /// `recovering` after that, until the records were compared with the log.
        state: String,
        /// Records.
        records: usize = gauge("registry_records"),
        /// Removals that are remembered, so that older records do not come back.
        removals: usize = gauge("registry_removals"),
        /// Records written here that are not in the log yet.
        waiting: usize = gauge("registry_waiting"),
        /// How long the first of them has waited, in milliseconds; null if none waits.
        waiting_for_ms: Option<u64>,
        /// Whether it has waited for 5 seconds or longer.
        is_lagging: bool,
        /// Counters since the start.
        #[serde(flatten)]
        counts: RegistryCounts = of,
    }

    /// What a node did with a registry since its start.
    pub struct RegistryCounts<N> {
        /// Records written here, renewals included.
        written: N = counter("registry_written"),
        /// Records removed here.
        removed: N = counter("registry_removed"),
        /// Expired records that this node noticed first.
        expired: N = counter("registry_expired"),
        /// Records and removals appended to the log; several writes of a record may be combined.
        appended: N = counter("registry_appended"),
        /// Failed appends; each was tried again.
        append_failures: N = counter("registry_append_failures"),
        /// Entries of the log that were older than the known version of their record.
        superseded: N = counter("registry_superseded"),
        /// Entries of the log that are not records.
        unreadable: N = counter("registry_unreadable"),
        /// Times that the records here were compared with the log.
        compared: N = counter("registry_compared"),
        /// Providers taken offline because their connection or their node was gone.
        went_offline: N = counter("registry_went_offline"),
        /// Records taken from the Redis keys of other programs.
        imported: N = counter("registry_imported"),
        /// Times that writing these keys failed.
        mirror_failures: N = counter("registry_mirror_failures"),
        /// Orders in progress here that the registry had no room for.
        orders_left_out: N = counter("registry_orders_left_out"),
        /// How long written records waited for the log.
        behind_duration: Timing<N>,
    }
}
