//! `/api/events`: publishing and reading events.

use std::sync::Arc;

use super::entries::{self, decoded};
use super::{App, Handler};
use crate::http::prices::Posted;
use crate::http::problem::Problem;
use crate::model::{ChannelName, EventType};
use crate::protocol::ProblemCode;

/// The type in the address.
fn named(segment: &str) -> Result<EventType, Problem> {
    decoded(segment).map_err(|detail| Problem::new(ProblemCode::UnknownEventType, detail))
}

fn channel(segment: &str) -> Result<ChannelName, Problem> {
    named(segment).map(ChannelName::event)
}

/// `POST /api/events/{type}`
pub(in crate::http) fn publish(app: &Arc<App>) -> Handler {
    entries::publish(app, channel, |segment| Posted::Event(named(segment).unwrap_or(EventType::Ticker)))
}

/// `GET /api/events/{type}/latest?limit=&after=`
pub(in crate::http) fn latest(app: &Arc<App>) -> Handler {
    entries::latest(app, channel)
}

/// `GET /api/events/{type}/history?limit=&after=`
pub(in crate::http) fn history(app: &Arc<App>) -> Handler {
    entries::history(app, channel)
}
