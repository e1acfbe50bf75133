//! Health: the state of the gateway in short.

use chrono::Utc;
use zonewire_protocol::stats::BridgeView;

use super::Sources;
use crate::connections::Totals;
use crate::model::{BackendName, BackendState};
use crate::protocol::{
    AuthenticationView, ChannelSetAside, HealthView, RedisMetrics, RedisView, Scope, StorageView,
    WebSocketView,
};
use crate::storage::{self, SetAside, StorageStatus};

impl From<StorageStatus> for StorageView {
    fn from(status: StorageStatus) -> Self {
        let StorageStatus { backend, state, since, reason_code, reason, primaries, primaries_away, .. } =
            status;
        let scope = match status.scope {
            storage::Scope::All => Scope::All,
            storage::Scope::Some(_) => Scope::Some,
        };
        Self {
            storage_backend: backend.into(),
            state: state.into(),
            since,
            scope: scope.into(),
            reason_code: reason_code.to_owned(),
            reason,
            primaries,
            primaries_away,
        }
    }
}

impl Sources {
    pub(crate) fn health(&self) -> HealthView {
        let (storage, Totals { connections, messages }) = (self.storage.get(), self.manager.totals());
        let spool = self.outage.spool();
        let stopping = self.leaving.is_cancelled();
        HealthView {
            status: if stopping { "stopping" } else { storage.state.as_str() }.to_owned(),
            live: true,
            ready: !stopping,
            degraded: storage.state != BackendState::Healthy,
            storage: storage.into(),
            spool: spool.as_ref().map(|spool| spool.state.to_owned()),
            spool_reason: spool.and_then(|spool| spool.reason),
            channels_set_aside: self
                .outage
                .set_aside()
                .into_iter()
                .map(|SetAside { channel, reason }| ChannelSetAside { channel, reason })
                .collect(),
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            connections: connections.open,
            websocket: WebSocketView {
                open: connections.open,
                total: connections.total,
                messages_sent: messages.counts.sent,
                messages_received: messages.counts.received,
                errors: messages.errors,
                error_rate_percent: messages.error_rate_percent,
            },
            executor: self.orders.executor().to_owned(),
            other_executors: self.fleet.other_executors(),
            authentication: self.gate.is_on().then(|| {
                let health = self.gate.health();
                AuthenticationView {
                    revocations: if health.knows_revocations { "known" } else { "unknown" }.to_owned(),
                    keys: if health.problems.is_empty() { "fresh" } else { "stale" }.to_owned(),
                }
            }),
            tls: self.tls.as_ref().map(|tls| tls.health()),
            timestamp: Utc::now(),
        }
    }

    /// The counters of the bridge. If it is off, `connected` says whether Redis serves as the storage.
    pub(super) fn bridged(&self) -> BridgeView {
        let counts = self.bridge.read();
        if self.bridge.is_on() {
            return counts;
        }
        BridgeView { connected: u64::from(self.storage.get().backend == BackendName::Redis), ..counts }
    }

    pub(crate) fn redis(&self) -> RedisView {
        let storage = self.storage.get();
        let serving = storage.backend == BackendName::Redis;
        let link = match (serving, storage.state) {
            (true, BackendState::Degraded) => "partial",
            (true, _) => "up",
            (false, BackendState::Healthy) if !self.redis_configured => "not_configured",
            _ => "down",
        };
        let is_bridged = !self.bridge.is_on() || self.bridge.is_connected();
        let status = match link {
            "down" => "unhealthy",
            "partial" => "degraded",
            _ if is_bridged => "healthy",
            _ => "degraded",
        };
        let counts = self.bridged();
        let metrics = RedisMetrics {
            connected: counts.connected == 1,
            published_events: counts.published_events,
            received_events: counts.received_events,
            errors: counts.errors,
            subscriptions: counts.subscriptions,
            active_subscriptions: counts.active_subscriptions,
        };
        RedisView {
            status: status.to_owned(),
            metrics,
            link: link.to_owned(),
            serving,
            storage: storage.into(),
        }
    }
}
