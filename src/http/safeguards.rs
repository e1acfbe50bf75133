//! What browsers are told with every answer, so that what the gateway says is used as it is meant: nobody frames
//! it, takes it for a script, or learns from where somebody came.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::config::TlsConfig;
use super::names::host_and_port;
use super::way::Way;

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Of answers that are no page: where a browser shows one all the same, nothing in it does anything.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What depends on the settings.
#[derive(Debug)]
pub(super) struct Safeguards {
    /// The value of `Strict-Transport-Security`.
    transport: Option<HeaderValue>,
}

impl Safeguards {
    pub(super) fn of(config: &TlsConfig) -> Self {
        let value = || HeaderValue::try_from(format!("max-age={}", config.hsts_s)).ok();
        Self { transport: (config.hsts_s > 0).then(value).flatten() }
    }

    /// That the name which a request is for speaks TLS only, where it came by TLS of the gateway's own. All ports
    /// of this machine have `localhost`, and addresses are no names to browsers.
    pub(super) fn transport<B>(&self, way: Option<&Way>, request: &Request<B>) -> Option<HeaderValue> {
        let host = request.headers().get(HOST)?.to_str().ok()?;
        let host = host_and_port(host).0;
        let is_name = !host.eq_ignore_ascii_case("localhost")
            && !host.to_ascii_lowercase().ends_with(".localhost")
            && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        self.transport.clone().filter(|_| is_name && way.is_some_and(|way| way.is_secure))
    }
}

/// Adds what is not there. Pages of other origins that may use the gateway ask for leave to (CORS), which the
/// policy for resources does not touch.
pub(super) fn tell(headers: &mut HeaderMap, transport: Option<HeaderValue>) {
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER, HeaderValue::from_static("same-origin"));
    headers.insert(RESOURCE, HeaderValue::from_static("same-origin"));
    if let Some(transport) = transport {
        headers.insert(STRICT_TRANSPORT_SECURITY, transport);
    }
}
