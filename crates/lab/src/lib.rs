//! What measures a gateway, and what harms it: the programs `zonewire-bench` and `zonewire-outages`.
//!
//! They talk to gateways over the network, as anybody would, and no gateway needs them.

pub mod bench;
pub mod kit;
pub mod outages;
