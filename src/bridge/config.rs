//! The `[bridge]` settings.

use serde::{Deserialize, Serialize};

use crate::model::{ChannelName, EventType};
use crate::support::checks::{Checks, Finding};
use crate::support::settings;

/// The longest prefix, in bytes.
const PREFIX_LEN_MAX: usize = 64;

settings! {
    /// `[bridge]`
    #[derive(Debug)]
    pub struct BridgeConfig {
        /// Whether to exchange events with other gateways and programs over Redis pub/sub. Also
        /// `ENABLE_REDIS_SCALING`. Default false.
        pub enabled: bool = false,
        /// The prefix of pub/sub channel names; the event type follows it. Also `REDIS_KEY_PREFIX`. Default
        /// `ws:`.
        pub prefix: String = "ws:".to_owned(),
        /// What this process does: `publish`, `subscribe`, or both (`hybrid`). Also `REDIS_ENABLE_PUBLISHING`
        /// and `REDIS_ENABLE_SUBSCRIPTION`. Default `hybrid`.
        pub role: BridgeRole = BridgeRole::Hybrid,
        /// The event types that gateways exchange through the log in Redis; all others go over pub/sub alone.
        /// Must be the same on all gateways. Default `trade`, `orderbook` and `exchange:*`.
        pub durable: Vec<BridgedType> = vec![BridgedType::Trade, BridgedType::Orderbook, BridgedType::Exchange],
        /// The types that are published. Default all.
        pub publish: Vec<BridgedType> = BridgedType::ALL.to_vec(),
        /// The types that this process subscribes to when somebody here follows them. Default all.
        pub subscribe: Vec<BridgedType> = BridgedType::ALL.to_vec(),
    }
}

/// Whether a process sends its own events, receives those of others, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeRole {
    /// Both.
    Hybrid,
    /// Publishes its own events, and does not listen to others.
    Publish,
    /// Listens to others, and publishes nothing.
    Subscribe,
}

/// A type of events, or all the types that report the state of the connection to an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgedType {
    /// `ticker`
    Ticker,
    /// `trade`
    Trade,
    /// `orderbook`
    Orderbook,
    /// `candle`
    Candle,
    /// `exchange:connected` and the other `exchange:` types.
    #[serde(rename = "exchange:*")]
    Exchange,
}

impl BridgedType {
    const ALL: [Self; 5] = [Self::Ticker, Self::Trade, Self::Orderbook, Self::Candle, Self::Exchange];

    fn of(event: EventType) -> Self {
        match event {
            EventType::Ticker => Self::Ticker,
            EventType::Trade => Self::Trade,
            EventType::Orderbook => Self::Orderbook,
            EventType::Candle => Self::Candle,
            EventType::ExchangeConnected
            | EventType::ExchangeDisconnected
            | EventType::ExchangeReconnecting
            | EventType::ExchangeError => Self::Exchange,
        }
    }
}

/// Whether a text is usable as the prefix.
pub(crate) fn is_prefix(text: &str) -> bool {
    text.len() <= PREFIX_LEN_MAX && !text.chars().any(char::is_control)
}

impl BridgeConfig {
    /// Whether gateways exchange this type through the shared log.
    pub(crate) fn is_durable(&self, event: EventType) -> bool {
        self.durable.contains(&BridgedType::of(event))
    }

    /// Whether this process publishes the events of this type that it accepts.
    pub(crate) fn publishes(&self, event: EventType) -> bool {
        self.role != BridgeRole::Subscribe && self.publish.contains(&BridgedType::of(event))
    }

    /// Whether this process listens to other processes' events of this type.
    pub(crate) fn subscribes(&self, event: EventType) -> bool {
        self.role != BridgeRole::Publish && self.subscribe.contains(&BridgedType::of(event))
    }

    /// Whether the channel's log belongs to this node alone.
    pub(crate) fn is_own_log(&self, channel: &ChannelName) -> bool {
        self.enabled && channel.as_event().is_some_and(|(event, _)| !self.is_durable(event))
    }

    /// The settings that cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("bridge");
        checks.require("prefix", is_prefix(&self.prefix), || {
            format!("expected up to {PREFIX_LEN_MAX} bytes without control characters")
        });
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickers_and_candles_are_live_by_default() {
        let mut config = BridgeConfig { enabled: true, ..BridgeConfig::default() };
        let live = |config: &BridgeConfig| -> Vec<&str> {
            let live = EventType::ALL.into_iter().filter(|event| !config.is_durable(*event));
            live.map(EventType::as_str).collect()
        };
        assert_eq!(live(&config), ["ticker", "candle"]);
        assert!(config.is_own_log(&ChannelName::event(EventType::Ticker)));
        assert!(!config.is_own_log(&ChannelName::event(EventType::Trade)));
        assert!(!config.is_own_log(&"zone:pjm".parse().unwrap()));
        config.durable = vec![BridgedType::Ticker];
        assert_eq!(live(&config).len(), 7);
        config.enabled = false;
        assert!(!config.is_own_log(&ChannelName::event(EventType::Candle)), "then all are in the one log");
    }

    #[test]
    fn a_role_overrides_the_lists_of_types() {
        let of =
            |role| BridgeConfig { role, publish: vec![BridgedType::Exchange], ..BridgeConfig::default() };
        let does = |config: &BridgeConfig, event| (config.publishes(event), config.subscribes(event));
        let error = EventType::ExchangeError;
        assert_eq!(does(&of(BridgeRole::Hybrid), error), (true, true));
        assert_eq!(does(&of(BridgeRole::Hybrid), EventType::Trade), (false, true));
        assert_eq!(does(&of(BridgeRole::Publish), error), (true, false));
        assert_eq!(does(&of(BridgeRole::Subscribe), error), (false, true));
    }
}
