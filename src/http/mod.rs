//! HTTP: the accept loop, the routes, the upgrade to WebSocket, health and stats.

mod accept;
mod accepts;
mod body;
mod compress;
mod config;
#[cfg(test)]
mod described;
mod door;
mod exposition;
mod forwarded;
mod handing_over;
mod jobs;
mod names;
mod order_sockets;
mod orders;
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
pub(crate) use prices::IntakeStats;
pub(crate) use room::BodyRoom;
pub(crate) use routes::{App, door};
pub(crate) use status::Sources;
