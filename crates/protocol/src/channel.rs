//! The name of a channel: what it carries, then whose.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::fmt::Hyphenated;

use crate::OrderId;
use crate::name::{InvalidName, Zone, is_valid_name};

const ZONE_PREFIX: &str = "zone:";
const ORDER_PREFIX: &str = "order:";
const REGISTRY_PREFIX: &str = "registry:";

/// The registries that there are.
const REGISTRIES: [&str; 2] = ["providers", "active-orders"];

/// What a name is made of.
const FORM: &str = "`zone:` and 1 to 64 of A-Z a-z 0-9 . _ : -, `order:` and a UUID, `registry:providers` or \
                    `registry:active-orders`";

/// What a channel carries; decided by the part of its name before the first colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// `zone:<zone>`: the prices of a market area.
    Zone,
    /// `order:<uuid>`: the updates of an order. Always on lane *every*.
    Order,
    /// `registry:providers` and `registry:active-orders`: records, each replacing the one of its key.
    Registry,
}

/// A named, ordered log of entries, such as `zone:pjm`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// The channel that carries a zone's prices.
    pub fn zone(zone: &Zone) -> Self {
        Self(format!("{ZONE_PREFIX}{zone}").into())
    }

    /// The channel that carries an order's updates.
    pub fn order(order: OrderId) -> Self {
        const PREFIX_LEN: usize = ORDER_PREFIX.len();
        // Made for every update of every order: in place.
        let mut name = [0; PREFIX_LEN + Hyphenated::LENGTH];
        name[..PREFIX_LEN].copy_from_slice(ORDER_PREFIX.as_bytes());
        order.0.as_hyphenated().encode_lower(&mut name[PREFIX_LEN..]);
        Self(str::from_utf8(&name).expect("made of ASCII").into())
    }

    /// The order whose updates it carries, if it is such a channel.
    pub fn as_order(&self) -> Option<OrderId> {
        self.0.strip_prefix(ORDER_PREFIX)?.parse().ok()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the channel carries.
    pub fn kind(&self) -> ChannelKind {
        if self.0.starts_with(ORDER_PREFIX) {
            ChannelKind::Order
        } else if self.0.starts_with(REGISTRY_PREFIX) {
            ChannelKind::Registry
        } else {
            ChannelKind::Zone
        }
    }

    /// The name without its kind: the zone in `zone:pjm`.
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
        if name.strip_prefix(REGISTRY_PREFIX).is_some_and(|registry| REGISTRIES.contains(&registry)) {
            return Ok(Self(name.into()));
        }
        match name.strip_prefix(ZONE_PREFIX) {
            Some(zone) if is_valid_name(zone) => Ok(Self(name.into())),
            _ => Err(InvalidName::new("channel name", FORM, name)),
        }
    }
}

impl TryFrom<String> for ChannelName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        name.parse()
    }
}

impl From<ChannelName> for String {
    fn from(name: ChannelName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelName({})", self.0)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ChannelName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ChannelName".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "The name of a channel: `zone:<zone>`, `order:<uuid>`, `registry:providers` or `registry:active-orders`.",
            "pattern": "^(zone:[A-Za-z0-9._:-]{1,64}|order:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|registry:(providers|active-orders))$",
        })
    }
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
            "registry:",
            "registry:x",
        ] {
            assert!(name.parse::<ChannelName>().is_err(), "{name:?} must be refused");
        }
    }
}
