//! `/api/bridge`: the exchange of events with other processes.

use std::sync::Arc;

use hyper::StatusCode;
use warp::Filter;

use super::{App, Handler, Text, handler, json, json_body, parse, with};
use crate::http::problem::Problem;
use crate::model::EventType;
use crate::protocol::{ProblemCode, SetSubscription};

/// `GET /api/bridge/subscriptions`
pub(in crate::http) fn subscriptions(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| json(StatusCode::OK, &app.sources.bridge.subscriptions())))
}

/// `POST /api/bridge/subscriptions`
pub(in crate::http) fn set(app: &Arc<App>) -> Handler {
    handler(with(app).and(json_body(app)).then(|app: Arc<App>, text: Text| async move {
        let bridge = &app.sources.bridge;
        if !bridge.is_on() {
            let detail = "this gateway exchanges no events with other processes: bridge.enabled is false, or no \
                          Redis is used";
            return Err(Problem::new(ProblemCode::NotFound, detail));
        }
        let invalid = |detail: String| Problem::new(ProblemCode::InvalidRequest, detail);
        let SetSubscription { event, mode } = parse(&text)?;
        let event: EventType = event.parse().map_err(|error| invalid(format!("`type`: {error}")))?;
        if !bridge.set_mode(event, mode) {
            let detail = format!(
                "this gateway is not configured to subscribe to `{event}`: see bridge.role and bridge.subscribe in its settings"
            );
            return Err(invalid(detail));
        }
        Ok(json(StatusCode::OK, &bridge.subscriptions()))
    }))
}
