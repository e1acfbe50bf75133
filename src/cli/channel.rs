//! Channels as they are named in arguments.

use std::str::FromStr;

use super::exit::UsageError;
use crate::model::{ChannelKind, ChannelName, Zone};

/// A channel, named as such (`zone:pjm`) or by its zone (`pjm`).
#[derive(Debug, Clone)]
pub(super) struct Channel(pub(super) ChannelName);

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse::<ChannelName>(), text.parse::<Zone>()) {
            (Ok(channel), _) => Ok(Self(channel)),
            // Events are meant; a zone of such a name can be given as its channel, `zone:event:…`.
            (Err(error), _) if text.starts_with("event:") => Err(error.to_string()),
            (Err(_), Ok(zone)) => Ok(Self(ChannelName::zone(&zone))),
            (Err(error), Err(_)) => Err(error.to_string()),
        }
    }
}

/// The address of a channel's `latest` entries or of its `history`, as `what` says; fails for channels that
/// have none, with a hint to another command.
pub(super) fn path(channel: &ChannelName, what: &str) -> Result<String, UsageError> {
    let subject = channel.subject();
    match channel.kind() {
        ChannelKind::Zone => Ok(format!("api/zones/{subject}/{what}")),
        ChannelKind::Event => match channel.as_event() {
            Some((event, Some(_))) => Err(UsageError(format!(
                "{channel} is a view, and only whole channels are stored: `zonewire {what} event:{event}`"
            ))),
            _ => Ok(format!("api/events/{subject}/{what}")),
        },
        ChannelKind::Registry => Err(UsageError(format!(
            "{channel} is stored by key: `zonewire tail {channel} --snapshot` begins with all its records"
        ))),
        ChannelKind::Order => Err(UsageError(format!(
            "{channel} is an order: `zonewire order show {subject}` shows all its updates"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_may_be_named_by_its_zone() {
        for (text, expected) in [("pjm", "zone:pjm"), ("zone:pjm", "zone:pjm"), ("a:b", "zone:a:b")] {
            assert_eq!(text.parse::<Channel>().unwrap().0.as_str(), expected);
        }
        assert!("a b".parse::<Channel>().is_err() && "event:tick".parse::<Channel>().is_err());
        assert_eq!("event:ticker:*:B".parse::<Channel>().unwrap().0.as_str(), "event:ticker:*:B");
    }

    #[test]
    fn zones_and_types_of_events_are_shown_and_of_all_else_it_is_said_what_does() {
        let path_of = |text: &str| path(&text.parse::<Channel>().unwrap().0, "history");
        assert_eq!(path_of("pjm").unwrap(), "api/zones/pjm/history");
        assert_eq!(path_of("event:ticker").unwrap(), "api/events/ticker/history");
        assert_eq!(path_of("event:exchange:error").unwrap(), "api/events/exchange:error/history");
        let order = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
        for (text, hint) in [
            ("event:ticker:binance:*", "`zonewire history event:ticker`"),
            ("registry:providers", "`zonewire tail registry:providers --snapshot`"),
            (order, "`zonewire order show 6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11`"),
        ] {
            let said = path_of(text).unwrap_err().to_string();
            assert!(said.contains(hint), "{said}");
        }
    }
}
