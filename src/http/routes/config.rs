//! `/api/config`: the settings in effect.

use std::sync::Arc;

use hyper::StatusCode;
use warp::Filter;

use super::{App, Handler, handler, json, with};

/// `GET /api/config`
pub(in crate::http) fn show(app: &Arc<App>) -> Handler {
    handler(with(app).map(|app: Arc<App>| json(StatusCode::OK, &*app.configured)))
}
