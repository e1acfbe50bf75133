//! Names of channels: a kind, then what the channel belongs to.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::fmt::Hyphenated;

use crate::OrderId;
use crate::event::{EventType, is_pattern, split_type};
use crate::name::{InvalidName, Zone, is_valid_name};
use crate::text::text;

const ZONE_PREFIX: &str = "zone:";
const ORDER_PREFIX: &str = "order:";
const EVENT_PREFIX: &str = "event:";
const REGISTRY_PREFIX: &str = "registry:";

/// The names of all registries.
const REGISTRIES: [&str; 2] = ["providers", "active-orders"];

/// The forms of a channel's name, for error messages.
const FORM: &str = "`zone:` and 1 to 64 of A-Z a-z 0-9 . _ : -, `order:` and a UUID, `event:` and a type, \
                    optionally followed by a pattern, as in `event:ticker:binance:*` (`event:ticker` is all), \
                    `registry:providers` or `registry:active-orders`";

/// What a channel carries, as the part of its name before the first colon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// `zone:<zone>`: the prices of a market area.
    Zone,
    /// `order:<uuid>`: the updates of an order. Always on lane *every*.
    Order,
    /// `event:<type>`: the events of one type. With a pattern (`event:ticker:binance:*`) it is a view of
    /// that channel, which shows the entries that match.
    Event,
    /// `registry:providers` and `registry:active-orders`: records, each of which replaces the previous one
    /// of its key.
    Registry,
}

/// A named, ordered log of entries, such as `zone:pjm`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(ts_rs::TS), ts(type = "string"))]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// The channel that carries a zone's prices.
    pub fn zone(zone: &Zone) -> Self {
        Self(format!("{ZONE_PREFIX}{zone}").into())
    }

    /// The channel that carries an order's updates.
    pub fn order(order: OrderId) -> Self {
        const PREFIX_LEN: usize = ORDER_PREFIX.len();
        // Called for every update of every order, so it formats in place.
        let mut name = [0; PREFIX_LEN + Hyphenated::LENGTH];
        name[..PREFIX_LEN].copy_from_slice(ORDER_PREFIX.as_bytes());
        order.0.as_hyphenated().encode_lower(&mut name[PREFIX_LEN..]);
        Self(str::from_utf8(&name).expect("made of ASCII").into())
    }

    /// The channel that carries the events of a type.
    pub fn event(event: EventType) -> Self {
        Self(format!("{EVENT_PREFIX}{event}").into())
    }

    /// The type of the events that the channel carries, and the pattern if it is a view.
    pub fn as_event(&self) -> Option<(EventType, Option<&str>)> {
        let (event, rest) = split_type(self.0.strip_prefix(EVENT_PREFIX)?)?;
        Some((event, rest.strip_prefix(':')))
    }

    /// The channel whose log holds the entries: for a view the one that it is a view of, otherwise itself.
    pub fn log(&self) -> Self {
        match self.as_event() {
            Some((event, Some(_))) => Self::event(event),
            _ => self.clone(),
        }
    }

    /// Whether this is a view: it shows the entries of another channel that match a pattern.
    pub fn is_view(&self) -> bool {
        self.as_event().is_some_and(|(_, pattern)| pattern.is_some())
    }

    /// The order whose updates the channel carries, if it is an order's channel.
    pub fn as_order(&self) -> Option<OrderId> {
        self.0.strip_prefix(ORDER_PREFIX)?.parse().ok()
    }

    /// What the channel carries.
    pub fn kind(&self) -> ChannelKind {
        if self.0.starts_with(ORDER_PREFIX) {
            ChannelKind::Order
        } else if self.0.starts_with(EVENT_PREFIX) {
            ChannelKind::Event
        } else if self.0.starts_with(REGISTRY_PREFIX) {
            ChannelKind::Registry
        } else {
            ChannelKind::Zone
        }
    }

    /// The name without the kind: `pjm` for `zone:pjm`.
    pub fn subject(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, subject)| subject)
    }
}

impl FromStr for ChannelName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if let Some(order) = name.strip_prefix(ORDER_PREFIX)
            && let Ok(order) = order.parse()
        {
            return Ok(Self::order(order));
        }
        if let Some((event, rest)) = name.strip_prefix(EVENT_PREFIX).and_then(split_type)
            && rest.strip_prefix(':').is_none_or(|pattern| is_pattern(event, pattern))
        {
            return Ok(Self(name.into()));
        }
        if name.strip_prefix(REGISTRY_PREFIX).is_some_and(|registry| REGISTRIES.contains(&registry)) {
            return Ok(Self(name.into()));
        }
        match name.strip_prefix(ZONE_PREFIX) {
            Some(zone) if is_valid_name(zone) => Ok(Self(name.into())),
            _ => Err(InvalidName::new("channel name", FORM, name)),
        }
    }
}

text! {
    ChannelName,
    InvalidName,
    "The name of a channel: `zone:<zone>`, `order:<uuid>`, `registry:providers`, `registry:active-orders`, or `event:<type>`, optionally followed by a pattern that selects some of its events.",
    "^(zone:[A-Za-z0-9._:-]{1,64}|order:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|registry:(providers|active-orders)|event:(ticker|trade|orderbook|candle|exchange:(connected|disconnected|reconnecting|error))(:[A-Za-z0-9._/*-]{1,64}){0,3})$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_name_says_its_kind_and_subject() {
        let channel: ChannelName = "zone:a:b".parse().unwrap();
        assert_eq!((channel.kind(), channel.subject()), (ChannelKind::Zone, "a:b"));
        assert_eq!(ChannelName::zone(&"a:b".parse().unwrap()), channel);
        let registry: ChannelName = "registry:active-orders".parse().unwrap();
        assert_eq!((registry.kind(), registry.subject()), (ChannelKind::Registry, "active-orders"));
    }

    #[test]
    fn an_order_has_one_channel_however_its_id_is_written() {
        let channel: ChannelName = "order:6F1C1C1E-0B5E-4B1E-9D3E-0A6F4B6F2A11".parse().unwrap();
        assert_eq!(channel.kind(), ChannelKind::Order);
        assert_eq!(channel.as_str(), "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11");
        assert_eq!(ChannelName::order(channel.as_order().unwrap()), channel);
    }

    #[test]
    fn a_view_names_the_channel_that_it_shows_a_part_of() {
        for (name, event, pattern, log) in [
            ("event:ticker", EventType::Ticker, None, "event:ticker"),
            ("event:ticker:binance:BTC-USDT", EventType::Ticker, Some("binance:BTC-USDT"), "event:ticker"),
            ("event:trade:*:BTC/USDT", EventType::Trade, Some("*:BTC/USDT"), "event:trade"),
            ("event:candle:kraken:*:1m", EventType::Candle, Some("kraken:*:1m"), "event:candle"),
            ("event:exchange:error:x", EventType::ExchangeError, Some("x"), "event:exchange:error"),
        ] {
            let channel: ChannelName = name.parse().unwrap();
            assert_eq!((channel.as_str(), channel.kind()), (name, ChannelKind::Event));
            assert_eq!(channel.as_event(), Some((event, pattern)));
            assert_eq!((channel.log().as_str(), channel.is_view()), (log, pattern.is_some()));
        }
        let zone: ChannelName = "zone:event:ticker".parse().unwrap();
        assert_eq!((zone.as_event(), zone.log()), (None, zone.clone()));
    }

    #[test]
    fn other_forms_are_refused() {
        for name in [
            "",
            "pjm",
            "zone:",
            "zone:a b",
            "zone",
            "topic:x",
            "order:",
            "order:1",
            "event:",
            "event:tick",
            "event:ticker:",
            "event:ticker:binance",
            "event:ticker:*:*",
            "event:ticker:bin*:BTC",
            "event:ticker:Binance:BTC",
            "event:ticker:a:B:c",
            "event:candle:a:B",
            "event:exchange:error:*",
            "event:exchange:error:a:B",
            "registry:",
            "registry:x",
        ] {
            assert!(name.parse::<ChannelName>().is_err(), "{name:?} must be refused");
        }
    }
}
