//! Zonewire: a WebSocket gateway that keeps market data and order status flowing.
//!
//! `docs/ARCHITECTURE.md` maps the rooms; `tests/it/architecture.rs` enforces their boundaries.

mod access;
mod bridge;
pub mod channels;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
mod feeds;
mod fleet;
pub mod gateway;
mod http;
pub mod model;
pub mod orders;
#[cfg(any(test, feature = "probes"))]
#[doc(hidden)]
pub mod probes;
pub mod protocol;
pub mod registry;
mod relay;
pub mod storage;
mod support;
