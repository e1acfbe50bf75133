//! The programs that measure and stress a gateway: `zonewire-bench`, `zonewire-outages`, and
//! `zonewire-exchange`, a stand-in for exchanges.
//!
//! They talk to gateways over the network, like any client, and no gateway needs them. The environments they
//! start are in the kit, which the gateway's tests share.

pub mod bench;
pub mod exchange;
mod figures;
mod identity;
mod node;
pub mod outages;
