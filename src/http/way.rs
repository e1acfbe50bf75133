//! The way by which a connection came in, as far as it matters to its requests.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Which listener it came in by, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entrance {
    /// What is for operators alone is there.
    pub(crate) is_for_operators: bool,
    pub(crate) speaks_tls: bool,
    /// Trusted proxies say first whom a connection is for.
    pub(crate) is_announced: bool,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Net(SocketAddr),
    /// A process of this machine, by the socket in the file system.
    Unix,
}

impl Peer {
    /// The address that it counts as.
    pub(crate) fn ip(self) -> IpAddr {
        match self {
            Self::Net(address) => address.ip(),
            Self::Unix => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// How a connection came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Whom it is for, where a proxy has said that by the PROXY protocol.
    pub(crate) peer: Peer,
    pub(crate) is_for_operators: bool,
    /// Over TLS of the gateway's own.
    pub(crate) is_secure: bool,
}
