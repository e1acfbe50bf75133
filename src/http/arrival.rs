//! How a connection came in, as far as its requests need to know.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The listener through which a connection came, and what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entrance {
    /// Whether addresses for operators exist there.
    pub(crate) is_for_operators: bool,
    pub(crate) speaks_tls: bool,
    /// Whether trusted proxies announce the client first.
    pub(crate) is_announced: bool,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Net(SocketAddr),
    /// A process on this machine, through the Unix socket.
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
    /// The other end, or the client that it announced by the PROXY protocol.
    pub(crate) peer: Peer,
    pub(crate) is_for_operators: bool,
    /// Whether it uses the gateway's own TLS.
    pub(crate) is_secure: bool,
}
