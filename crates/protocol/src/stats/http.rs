//! What is counted of requests, and of the TCP connections that bring them.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// Requests, and the TCP connections that bring them.
    pub struct HttpView {
        /// Open TCP connections, WebSockets among them.
        open: usize = gauge("tcp_connections"),
        /// TCP connections.
        #[serde(flatten)]
        accepts: AcceptCounts = of,
        /// What the bodies of requests hold that are being read, of all requests together, in bytes
        /// (`http.bodies_bytes_max`).
        body_bytes: usize = gauge("body_bytes"),
        /// What lists, `/latest`, `/history`, orders with their updates, and all compressed answers hold
        /// that their clients have not taken yet, in bytes (`http.answers_bytes_max`).
        answer_bytes: usize = gauge("answer_bytes"),
        /// Requests answered with a problem, by its code, such as `unknown_host` and `origin_not_allowed`,
        /// or `busy`: one of the bounds of bytes leaves no room for what they brought.
        requests_refused_by_reason: BTreeMap<String, u64> = counter("requests_refused", by reason),
        /// Requests that post prices or events.
        #[serde(flatten)]
        intake: IntakeCounts = of,
        /// Tokens and API keys that held.
        tokens_accepted: u64 = counter("tokens_accepted"),
        /// Tokens, API keys and clients' certificates that did not hold, by reason.
        tokens_refused_by_reason: BTreeMap<String, u64> = counter("tokens_refused", by reason),
        /// Revocations that are remembered.
        revocations: usize = gauge("revocations"),
        /// Places of keys (files, addresses) that at the moment give nothing that can be used; what they gave
        /// before goes on. Health says `"keys":"stale"` then, and the log which and why.
        key_places_stale: usize = gauge("key_places_stale"),
        /// TLS of the gateway's own; absent where it speaks none.
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<TlsView> = of,
    }

    /// Handshakes of TLS since the start, and the certificate.
    pub struct TlsView {
        /// Handshakes of TLS that clients and gateway completed.
        handshakes: u64 = counter("tls_handshakes"),
        /// Of these, those that went on with a session of before.
        resumed: u64 = counter("tls_resumed"),
        /// Those that came to nothing, by reason: `plain` is plain HTTP, which is told so, `alert` a client
        /// that refuses, mostly since it does not trust the certificate, `no_certificate` and `certificate` one
        /// that shows none although it must, or one that does not hold.
        failed_by_reason: BTreeMap<String, u64> = counter("tls_failed", by reason),
        /// Handshakes in which a client showed a certificate that holds, where clients are asked who they are,
        /// by `result`: `listed` in `auth.certificates`, or `unlisted`, which gives no right.
        certificates_by_result: BTreeMap<String, u64> = counter("tls_client_certificates", by result),
        /// How often certificate and key were read anew, by `result`: `good`, or `failed`, where those of
        /// before go on.
        reloads_by_result: BTreeMap<String, u64> = counter("tls_reloads", by result),
        /// How long the certificate is still valid, in seconds; below 0 once it has expired.
        certificate_left_s: i64 = gauge("tls_certificate_left_seconds"),
    }

    /// TCP connections since the start.
    pub struct AcceptCounts<N> {
        /// TCP connections accepted.
        accepted: N = counter("tcp_accepted"),
        /// Of these, those that a limit refused.
        refused: N = counter("tcp_refused"),
        /// Of the refused ones, those closed without a word, since more came than `http.refusals_per_s`
        /// are told why.
        refused_unanswered: N = counter("tcp_refused_unanswered"),
        /// Failed accepts, such as no open files left.
        accept_failures: N = counter("tcp_accept_failures"),
        /// Connections that ended without a whole request.
        bad_requests: N = counter("http_bad_requests"),
        /// Connections of trusted proxies that were closed since they did not begin with a header of the
        /// PROXY protocol (`http.proxy_protocol`), but with something else.
        proxy_garbage: N = counter("proxy_headers_refused", reason = "garbage"),
        /// The same, since the header was not whole in time.
        proxy_timeout: N = counter("proxy_headers_refused", reason = "timeout"),
        /// The same, since the proxy closed it before.
        proxy_closed: N = counter("proxy_headers_refused", reason = "closed"),
        /// Panics (bugs) that ended one request; everything else goes on.
        panics: N = counter("panics", where = "request"),
    }

    /// Requests that post prices or events, since the start.
    pub struct IntakeCounts<N> {
        /// Requests that post prices.
        price_requests: N = counter("price_requests"),
        /// Those with a fault.
        price_requests_refused: N = counter("price_requests_refused"),
        /// Prices accepted over HTTP.
        prices_accepted: N = counter("prices_accepted"),
        /// Requests that post events.
        event_requests: N = counter("event_requests"),
        /// Those with a fault.
        event_requests_refused: N = counter("event_requests_refused"),
        /// Events accepted over HTTP.
        events_accepted: N = counter("events_accepted"),
    }
}
