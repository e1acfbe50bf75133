//! The registries, and how they differ.

use std::fmt;
use std::time::Duration;

use crate::model::ChannelName;

/// A registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegistryKind {
    /// Online providers, by `userId`.
    Providers,
    /// Orders that are under way, by `orderId`.
    ActiveOrders,
}

impl RegistryKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Providers, Self::ActiveOrders];

    /// Its name in addresses, settings and channels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Providers => "providers",
            Self::ActiveOrders => "active-orders",
        }
    }

    /// The name of the channel of its records.
    pub const fn channel_name(self) -> &'static str {
        match self {
            Self::Providers => "registry:providers",
            Self::ActiveOrders => "registry:active-orders",
        }
    }

    /// The same as a [`ChannelName`].
    pub(crate) fn channel(self) -> ChannelName {
        self.channel_name().parse().expect("the names of registries are names of channels")
    }

    /// The field that names a record.
    pub const fn id_field(self) -> &'static str {
        match self {
            Self::Providers => "userId",
            Self::ActiveOrders => "orderId",
        }
    }

    /// Fields with an index, so that records are found by their values at once.
    pub const fn indexed(self) -> &'static [&'static str] {
        match self {
            Self::Providers => &["userId", "status", "location", "paymentMethods"],
            Self::ActiveOrders => &["orderId", "providerId", "userId", "state", "status"],
        }
    }

    /// The field that holds when a record was last written or renewed, if it has one.
    pub(super) const fn seen_field(self) -> Option<&'static str> {
        match self {
            Self::Providers => Some("lastSeen"),
            Self::ActiveOrders => None,
        }
    }

    /// How long the task that appends rests after each append, so that more writes go together: of several
    /// writes of a record, only the last is appended. An active order is written at each of its steps.
    pub(super) const fn rests(self) -> Duration {
        match self {
            Self::Providers => Duration::ZERO,
            Self::ActiveOrders => Duration::from_millis(50),
        }
    }

    /// The Redis key in which other programs keep the whole registry, as a JSON array.
    pub(super) const fn legacy_key(self) -> &'static str {
        match self {
            Self::Providers => "socket:onlineProviders",
            Self::ActiveOrders => "socket:activeOrders",
        }
    }

    /// The registry that a channel belongs to.
    pub(super) fn of_channel(channel: &ChannelName) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.channel_name() == channel.as_str())
    }
}

impl fmt::Display for RegistryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
