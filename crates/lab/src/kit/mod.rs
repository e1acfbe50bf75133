//! What is started to try a gateway on: a Redis of any kind, gateways, proxies between them, and clocks
//! of their own.

pub mod clock;
pub mod process;
pub mod proxy;
pub mod resp;
pub mod servers;
