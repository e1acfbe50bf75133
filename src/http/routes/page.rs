//! The page, and the machine-readable documents.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use serde_json::Value;
use warp::Filter;
use warp::reply::Response;

use super::{App, Handler, handler, of_json, segments};
use crate::http::page;
use crate::http::problem::Problem;
use crate::protocol::ProblemCode;
use crate::protocol::documents::{ASYNCAPI, OPENAPI};

/// `/`
pub(in crate::http) fn index(_app: &Arc<App>) -> Handler {
    handler(warp::header::headers_cloned().map(|headers| file(page::INDEX, &headers)))
}

/// `/mark.svg`
pub(in crate::http) fn mark(_app: &Arc<App>) -> Handler {
    handler(warp::header::headers_cloned().map(|headers| file("mark.svg", &headers)))
}

/// `/assets/{file}`
pub(in crate::http) fn asset(_app: &Arc<App>) -> Handler {
    let asked = segments().and(warp::header::headers_cloned());
    handler(asked.map(|[name]: [String; 1], headers| file(&format!("{}{name}", page::ASSETS), &headers)))
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let problem = || Problem::new(ProblemCode::NotFound, "there is nothing at this address");
    page::file(path, headers).ok_or_else(problem)
}

/// `/openapi.json`
pub(in crate::http) fn openapi(app: &Arc<App>) -> Handler {
    document(OPENAPI, "/servers/0/url", app)
}

/// `/asyncapi.json`
pub(in crate::http) fn asyncapi(app: &Arc<App>) -> Handler {
    document(ASYNCAPI, "/servers/gateway/pathname", app)
}

/// A document, with the address under which it is served inserted at `place`.
fn document(text: &'static str, place: &str, app: &Arc<App>) -> Handler {
    let mut document: Value = serde_json::from_str(text).expect("a test has read it");
    if let Some(found) = document.pointer_mut(place) {
        let path = app.config.base_path.as_str();
        *found = Value::from(if path.is_empty() { "/" } else { path });
    }
    let document = Bytes::from(document.to_string());
    handler(warp::any().map(move || {
        let mut response = of_json(document.clone());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        response
    }))
}
