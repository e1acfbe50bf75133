//! HTTP: the accept loop, the routes, the upgrade to WebSocket, health and stats.

mod accept;
mod accepts;
mod arrival;
mod body;
mod body_budget;
mod caller;
mod compress;
mod config;
mod described;
mod door;
mod entering;
mod event_stream;
mod exposition;
mod forwarded;
mod handing_over;
mod listening;
mod names;
mod page;
mod prices;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod problem;
mod proxy_header;
mod refusals;
mod reserve;
mod routes;
mod safeguards;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod upgrade;

pub(crate) use accept::{AcceptParts, RESERVE_PLACES, serve};
pub(crate) use arrival::Entrance;
pub(crate) use body_budget::BodyBudget;
pub(crate) use config::ANSWERS_BYTES_LEAST;
pub use config::{ClientAuth, HttpConfig, OperatorsConfig, ProxyProtocol, TlsConfig};
pub(crate) use door::Door;
pub(crate) use exposition::Exposition;
pub(crate) use listening::{Listener, UnixFile, listen, listen_unix};
pub(crate) use routes::App;
pub(crate) use status::{Sources, metrics_of};
pub(crate) use tls::Tls;
