//! Headers of every answer that keep browsers from misusing it: from framing it, from interpreting it as a
//! script, and from revealing where a user came from.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::arrival::Way;
use super::config::TlsConfig;
use super::names::host_and_port;

const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// For answers that are not a page: if a browser shows one anyway, nothing in it is active.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The headers that depend on the settings.
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

    /// Announces that the host of a request speaks only TLS, if the request came over the gateway's own
    /// TLS. Not for `localhost`, which all ports of the machine share, nor for addresses, to which it does
    /// not apply.
    pub(super) fn transport<B>(&self, way: Option<&Way>, request: &Request<B>) -> Option<HeaderValue> {
        let host = request.headers().get(HOST)?.to_str().ok()?;
        let host = host_and_port(host).0;
        let is_name = !host.eq_ignore_ascii_case("localhost")
            && !host.to_ascii_lowercase().ends_with(".localhost")
            && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        self.transport.clone().filter(|_| is_name && way.is_some_and(|way| way.is_secure))
    }
}

/// Adds the headers that are missing. Pages of other origins that may use the gateway get permission
/// through CORS, which the resource policy does not affect.
pub(super) fn add(headers: &mut HeaderMap, transport: Option<HeaderValue>) {
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
