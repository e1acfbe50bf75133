//! Counters of HTTP requests and of TCP connections.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// HTTP requests, and TCP connections.
    pub struct HttpView {
        /// Open TCP connections, including WebSockets.
        open: usize = gauge("tcp_connections"),
        /// Counters of TCP connections.
        #[serde(flatten)]
        accepts: AcceptCounts = of,
        /// Memory for request bodies that are being read, all requests together, in bytes
        /// (`http.bodies_bytes_max`).
        body_bytes: usize = gauge("body_bytes"),
        /// Memory for lists, `/latest`, `/history`, orders with their updates, and all compressed answers
        /// that clients have not read yet, in bytes (`http.answers_bytes_max`).
        answer_bytes: usize = gauge("answer_bytes"),
        /// Requests answered with a problem, by its code, such as `unknown_host`, `origin_not_allowed`, or
        /// `busy`: the request or its answer would exceed one of the bounds on bytes.
        requests_refused_by_reason: BTreeMap<String, u64> = counter("requests_refused", by reason),
        /// Requests that post prices or events.
        #[serde(flatten)]
        intake: IntakeCounts = of,
        /// Valid tokens and API keys.
        tokens_accepted: u64 = counter("tokens_accepted"),
        /// Invalid tokens, API keys and client certificates, by reason.
        tokens_refused_by_reason: BTreeMap<String, u64> = counter("tokens_refused", by reason),
        /// Revocations in effect.
        revocations: usize = gauge("revocations"),
        /// Sources of keys (files, addresses) that currently yield nothing usable; their previous contents
        /// stay in effect. Health reports `"keys":"stale"`, and the log says which source and why.
        key_places_stale: usize = gauge("key_places_stale"),
        /// The gateway's own TLS; absent if it has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<TlsView> = of,
    }

    /// TLS handshakes since the start, and the certificate.
    pub struct TlsView {
        /// Completed TLS handshakes.
        handshakes: u64 = counter("tls_handshakes"),
        /// Those that resumed an earlier session.
        resumed: u64 = counter("tls_resumed"),
        /// Failed TLS handshakes, by reason: `plain` is plain HTTP, which is answered with an explanation;
        /// `alert` is a client that refuses, mostly because it does not trust the certificate;
        /// `no_certificate` and `certificate` are clients that show no certificate although they must, or
        /// an invalid one.
        failed_by_reason: BTreeMap<String, u64> = counter("tls_failed", by reason),
        /// Handshakes in which a client showed a valid certificate, if client certificates are requested,
        /// by `result`: `listed` in `auth.certificates`, or `unlisted`, which gives no rights.
        certificates_by_result: BTreeMap<String, u64> = counter("tls_client_certificates", by result),
        /// Times that the certificate and key were reloaded, by `result`: `good`, or `failed`, after which
        /// the previous ones stay in effect.
        reloads_by_result: BTreeMap<String, u64> = counter("tls_reloads", by result),
        /// Seconds until the certificate expires; negative once it has expired.
        certificate_left_s: i64 = gauge("tls_certificate_left_seconds"),
    }

    /// TCP connections since the start.
    pub struct AcceptCounts<N> {
        /// TCP connections accepted.
        accepted: N = counter("tcp_accepted"),
        /// Accepted connections that a limit refused.
        refused: N = counter("tcp_refused"),
        /// Refused connections that were closed without an answer, because more came than the
        /// `http.refusals_per_s` that are told why.
        refused_unanswered: N = counter("tcp_refused_unanswered"),
        /// Failed accepts, for example because no file descriptors were left.
        accept_failures: N = counter("tcp_accept_failures"),
        /// Connections that ended without a complete request.
        bad_requests: N = counter("http_bad_requests"),
        /// Connections of trusted proxies that were closed because they did not begin with a valid PROXY
        /// protocol header (`http.proxy_protocol`).
        proxy_garbage: N = counter("proxy_headers_refused", reason = "garbage"),
        /// Connections of trusted proxies that were closed because the header was incomplete when time ran
        /// out.
        proxy_timeout: N = counter("proxy_headers_refused", reason = "timeout"),
        /// Connections of trusted proxies that the proxy closed before the header was complete.
        proxy_closed: N = counter("proxy_headers_refused", reason = "closed"),
        /// Panics (bugs) that ended one request; everything else continued.
        panics: N = counter("panics", where = "request"),
    }

    /// Requests that post prices or events, since the start.
    pub struct IntakeCounts<N> {
        /// Requests that post prices.
        price_requests: N = counter("price_requests"),
        /// Requests that post prices and had a fault.
        price_requests_refused: N = counter("price_requests_refused"),
        /// Prices accepted over HTTP.
        prices_accepted: N = counter("prices_accepted"),
        /// Requests that post events.
        event_requests: N = counter("event_requests"),
        /// Requests that post events and had a fault.
        event_requests_refused: N = counter("event_requests_refused"),
        /// Events accepted over HTTP.
        events_accepted: N = counter("events_accepted"),
    }
}
