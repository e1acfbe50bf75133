//! The name of a channel: what it carries, then whose.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::{InvalidName, Zone, is_valid_name};

const ZONE_PREFIX: &str = "zone:";

/// What a channel carries; decided by the part of its name before the first colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelKind {
    /// `zone:<zone>`: the prices of a market area.
    Zone,
}

/// A named, ordered log of entries, such as `zone:pjm`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// The channel that carries a zone's prices.
    pub fn zone(zone: &Zone) -> Self {
        Self(format!("{ZONE_PREFIX}{zone}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the channel carries.
    pub fn kind(&self) -> ChannelKind {
        ChannelKind::Zone
    }

    /// The name without its kind: the zone in `zone:pjm`.
    pub fn subject(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, subject)| subject)
    }
}

impl FromStr for ChannelName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        match name.strip_prefix(ZONE_PREFIX) {
            Some(zone) if is_valid_name(zone) => Ok(Self(name.into())),
            _ => Err(InvalidName::new("channel name (`zone:<zone>`)", name)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_name_says_its_kind_and_subject() {
        let channel: ChannelName = "zone:a:b".parse().unwrap();
        assert_eq!((channel.kind(), channel.subject()), (ChannelKind::Zone, "a:b"));
        assert_eq!(ChannelName::zone(&"a:b".parse().unwrap()), channel);
    }

    #[test]
    fn other_forms_are_refused() {
        for name in ["", "pjm", "zone:", "zone:a b", "zone", "topic:x"] {
            assert!(name.parse::<ChannelName>().is_err(), "{name:?} must be refused");
        }
    }
}
