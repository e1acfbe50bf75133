//! The page, and the documents for programs.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::{App, Handler, handler};
use crate::protocol::documents::{ASYNCAPI, OPENAPI};

const PAGE: &str = include_str!("../page.html");
const PAGE_SCRIPT: &str = include_str!("../page.js");

/// `/`: shows that it works, and how to go on.
pub(in crate::http) fn html(_app: &Arc<App>) -> Handler {
    handler(warp::any().map(|| {
        let mut response = of(PAGE.into(), "text/html; charset=utf-8", "no-cache");
        let policy = HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        );
        response.headers_mut().insert("content-security-policy", policy);
        response
    }))
}

/// `/page.js`
pub(in crate::http) fn script(_app: &Arc<App>) -> Handler {
    handler(warp::any().map(|| of(PAGE_SCRIPT.into(), "text/javascript; charset=utf-8", "no-cache")))
}

/// `/openapi.json`
pub(in crate::http) fn openapi(app: &Arc<App>) -> Handler {
    document(OPENAPI, "/servers/0/url", app)
}

/// `/asyncapi.json`
pub(in crate::http) fn asyncapi(app: &Arc<App>) -> Handler {
    document(ASYNCAPI, "/servers/gateway/pathname", app)
}

/// A document, which says at a place where it is served.
fn document(text: &'static str, place: &str, app: &Arc<App>) -> Handler {
    let mut document: Value = serde_json::from_str(text).expect("a test has read it");
    if let Some(found) = document.pointer_mut(place) {
        let path = app.config.base_path.as_str();
        *found = Value::from(if path.is_empty() { "/" } else { path });
    }
    let document = Bytes::from(document.to_string());
    handler(warp::any().map(move || of(document.clone(), "application/json", "public, max-age=300")))
}

fn of(body: Bytes, kind: &'static str, caching: &'static str) -> Response {
    let mut response = warp::http::Response::new(body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}
