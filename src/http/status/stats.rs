//! `/ws/stats`: all counters.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use futures_util::future::join_all;
use tokio::time;
use uuid::Uuid;
use zonewire_protocol::stats::{
    ChannelsView, ExchangeView, HttpView, JobsView, Live as _, OrdersView, OutageView, RegistriesView,
    StateSpell, StatsView,
};

use super::Sources;
use crate::connections::{ConnectionStory, Listing, Overview, Totals};
use crate::model::{BackendState, ChannelName, EventType};
use crate::protocol::Scope;
use crate::registry::RegistryKind;
use crate::storage::{self, JobCounts};

/// How long the storage may take to return the state of connections to exchanges.
const STATES_WITHIN: Duration = Duration::from_millis(250);

/// The most exchanges whose state is read.
const EXCHANGES_MAX: usize = 1_000;

/// Events that say how the connection to an exchange is. If two have the same time, the later one in this
/// list counts.
const STATES: [(EventType, &str); 3] = [
    (EventType::ExchangeDisconnected, "disconnected"),
    (EventType::ExchangeReconnecting, "reconnecting"),
    (EventType::ExchangeConnected, "connected"),
];

/// How long the storage may take to count jobs; statistics do not wait for the end of an outage.
const JOBS_WITHIN: Duration = Duration::from_millis(250);

impl Sources {
    /// Reads all counters. With `list`, it also asks the shards, which know the selected connections, and
    /// reads the state of the exchanges.
    pub(crate) async fn stats(&self, list: Option<Listing>) -> StatsView {
        let list_wanted = list.is_some();
        let exchanges = async { if list_wanted { self.exchanges().await } else { BTreeMap::new() } };
        let (overview, jobs, exchanges) = tokio::join!(self.manager.stats(list), self.jobs(), exchanges);
        let Overview { totals, connections: connection_list, next, tcp, behind, silent_shards } = overview;
        let mut limits = self.gate.quotas().view();
        limits.refused.extend(behind.refused);
        limits.dry_run.extend(behind.dry_run);
        limits.behind = behind.connections;
        let Totals { connections, mut messages } = totals;
        messages.pages = self.channels.page_stats().read();
        messages.replay_bytes = self.channels.page_bytes();
        let storage = self.storage.get();
        let mut requests_refused_by_reason = self.refusals.counts();
        // Counted where the problem arises, so that refusals in the middle of a body count too.
        let (tokens_accepted, tokens_refused) = self.gate.counts();
        requests_refused_by_reason.insert("busy".to_owned(), self.bodies.refused() + self.answers.refused());
        StatsView {
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            timestamp: Utc::now(),
            memory: self.memory.usage(),
            outage: OutageView {
                switches: storage.switches,
                seconds_in_state: BackendState::ALL
                    .map(|state| {
                        (state.as_str().to_owned(), storage.spent_in(state).as_millis() as f64 / 1_000.0)
                    })
                    .into(),
                ..self.outage.view()
            },
            storage: storage.into(),
            connections,
            messages,
            channels: ChannelsView {
                active: self.channels.active(),
                views: self.channels.views(),
                followed_events: self.channels.followed_events().borrow().len(),
                counts: self.channels.stats().read(),
            },
            orders: OrdersView {
                counts: self.orders.stats().read(),
                executor: self.orders.executor().to_owned(),
                other_executors: self.fleet.other_executors(),
                jobs,
            },
            interop: self.interop.read(),
            redis: self.bridged(),
            exchanges,
            feeds: self.feeds.iter().map(|(name, feed)| (name.clone(), feed.view())).collect(),
            registries: RegistriesView {
                providers: self.registry.view(RegistryKind::Providers),
                active_orders: self.registry.view(RegistryKind::ActiveOrders),
            },
            fleet: self.fleet.counts(),
            limits,
            http: HttpView {
                open: tcp,
                accepts: self.accepts.read(),
                body_bytes: self.bodies.bytes(),
                answer_bytes: self.answers.bytes(),
                requests_refused_by_reason,
                intake: self.intake.read(),
                tokens_accepted,
                tokens_refused_by_reason: tokens_refused
                    .into_iter()
                    .map(|(reason, count)| (reason.to_owned(), count))
                    .collect(),
                revocations: self.gate.revocations(),
                key_places_stale: self.gate.health().problems.len(),
                tls: self.tls.as_ref().map(|tls| tls.view()),
            },
            storage_history: self.storage.history(self.outage.toll()).into_iter().map(spell).collect(),
            connection_list,
            connections_next: next,
            silent_shards,
        }
    }

    /// Everything known about an open connection of this node.
    pub(crate) async fn connection(&self, id: Uuid) -> Option<ConnectionStory> {
        let story = self.manager.story(id).await?;
        Some(ConnectionStory { node: self.node.to_string(), ..story })
    }

    /// The state of the connection to each exchange, from its newest event, and the counters of its events
    /// here.
    async fn exchanges(&self) -> BTreeMap<String, ExchangeView> {
        let counted = self.bridge.exchanges().into_iter();
        let mut exchanges: BTreeMap<String, ExchangeView> = counted
            .map(|(exchange, events)| (exchange, ExchangeView { events, ..ExchangeView::default() }))
            .collect();
        let states = STATES.map(|(event, state)| async move {
            let channel = ChannelName::event(event);
            let read = self.channels.latest(&channel, None, EXCHANGES_MAX);
            let page = time::timeout(STATES_WITHIN, read).await;
            (state, page.ok().and_then(Result::ok).map(|page| page.entries).unwrap_or_default())
        });
        for (state, entries) in join_all(states).await {
            for entry in entries {
                let (Some(exchange), time) = (entry.draft.key, entry.draft.time) else { continue };
                let view = exchanges.entry(exchange.as_ref().to_owned()).or_default();
                if view.since.is_none_or(|since| since <= time) {
                    (view.state, view.since) = (Some(state.to_owned()), Some(time));
                }
            }
        }
        exchanges
    }

    async fn jobs(&self) -> Option<JobsView> {
        let counts = time::timeout(JOBS_WITHIN, self.orders.counts()).await.ok()?.ok()?;
        let JobCounts { waiting, delayed, claimed, done, dead } = counts;
        Some(JobsView { waiting, delayed, claimed, done, dead })
    }
}

fn spell(past: storage::StateSpell) -> StateSpell {
    StateSpell {
        state: past.state.into(),
        storage_backend: past.backend.into(),
        scope: if past.is_all { Scope::All } else { Scope::Some }.into(),
        since: past.since,
        until: past.until,
        lasted_ms: u64::try_from(past.lasted.as_millis()).unwrap_or(u64::MAX),
        reason_code: past.reason_code.to_owned(),
        reason: past.reason,
        entries_late: past.toll.replayed,
        entries_put_back: past.toll.put_back,
        entries_let_go: past.toll.let_go,
        entries_refused: past.toll.refused,
        logs_lost: past.toll.logs_lost,
    }
}
