//! HTTP: the accept loop, the routes, the upgrade to WebSocket, health and stats.

mod accept;
mod accepts;
mod body;
mod caller;
mod compress;
mod config;
mod described;
mod door;
mod event_stream;
mod exposition;
mod forwarded;
mod handing_over;
mod names;
mod page;
mod prices;
mod problem;
mod refusals;
mod reserve;
mod room;
mod routes;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod upgrade;

pub(crate) use accept::{AcceptParts, AcceptStats, RESERVE_PLACES, listen, serve};
pub(crate) use config::ANSWERS_BYTES_LEAST;
pub use config::HttpConfig;
pub(crate) use door::Door;
pub(crate) use exposition::Exposition;
pub(crate) use prices::IntakeStats;
pub(crate) use room::BodyRoom;
pub(crate) use routes::App;
pub(crate) use status::{Sources, metrics_of};
