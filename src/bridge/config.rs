//! What can be configured about the bridge.

use serde::{Deserialize, Serialize};

use crate::model::{ChannelName, EventType};
use crate::support::checks::{Checks, Finding};

/// The longest prefix, in bytes.
const PREFIX_LEN_MAX: usize = 64;

/// `[bridge]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Whether events are exchanged with other gateways and processes by Redis pub/sub. Also
    /// `ENABLE_REDIS_SCALING`. Default false.
    pub enabled: bool,
    /// What the name of a pub/sub channel begins with; the type of its events follows. Also
    /// `REDIS_KEY_PREFIX`. Default `ws:`.
    pub prefix: String,
    /// What this process does: `publish`, `subscribe`, or both (`hybrid`). Also `REDIS_ENABLE_PUBLISHING` and
    /// `REDIS_ENABLE_SUBSCRIPTION`. Default `hybrid`.
    pub role: BridgeRole,
    /// The types of events that gateways exchange by the log in Redis; all others go by pub/sub alone. The
    /// same in all gateways. Default `trade`, `orderbook` and `exchange:*`.
    pub durable: Vec<BridgedType>,
    /// The types that are published. Default all.
    pub publish: Vec<BridgedType>,
    /// The types that are subscribed to, when somebody here wants them. Default all.
    pub subscribe: Vec<BridgedType>,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        use BridgedType::{Exchange, Orderbook, Trade};
        Self {
            enabled: false,
            prefix: "ws:".to_owned(),
            role: BridgeRole::Hybrid,
            durable: vec![Trade, Orderbook, Exchange],
            publish: BridgedType::ALL.to_vec(),
            subscribe: BridgedType::ALL.to_vec(),
        }
    }
}

/// What a process does with events of others, and with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeRole {
    /// Both.
    Hybrid,
    /// It tells others, and does not listen to them.
    Publish,
    /// It listens to others, and tells them nothing.
    Subscribe,
}

/// A type of events, or all that tell how an exchange is reached.
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
    /// `exchange:connected` and all others of an exchange.
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

/// Whether a text can be the prefix.
pub(crate) fn is_prefix(text: &str) -> bool {
    text.len() <= PREFIX_LEN_MAX && !text.chars().any(char::is_control)
}

impl BridgeConfig {
    /// Gateways exchange this type by the log.
    pub(crate) fn is_durable(&self, event: EventType) -> bool {
        self.durable.contains(&BridgedType::of(event))
    }

    /// This process publishes what it accepts of the type.
    pub(crate) fn publishes(&self, event: EventType) -> bool {
        self.role != BridgeRole::Subscribe && self.publish.contains(&BridgedType::of(event))
    }

    /// This process listens to others of the type.
    pub(crate) fn subscribes(&self, event: EventType) -> bool {
        self.role != BridgeRole::Publish && self.subscribe.contains(&BridgedType::of(event))
    }

    /// The log of the channel is this node's own.
    pub(crate) fn is_own_log(&self, channel: &ChannelName) -> bool {
        self.enabled && channel.as_event().is_some_and(|(event, _)| !self.is_durable(event))
    }

    /// What cannot be used.
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
    fn tickers_and_candles_are_live_unless_it_is_said_otherwise() {
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
    fn a_role_bounds_what_the_lists_say() {
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
