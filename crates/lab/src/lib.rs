//! What measures a gateway, and what harms it: the programs `zonewire-bench` and `zonewire-outages`; and `zonewire-exchange`, that
//! it feeds on.
//!
//! They talk to gateways over the network, as anybody would, and no gateway needs them. What they start to
//! do that with is the kit's, which the tests of the gateway share.

pub mod bench;
pub mod exchange;
mod node;
pub mod outages;
