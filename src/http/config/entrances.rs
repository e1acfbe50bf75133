//! The settings of entrances other than `http.listen`, and of TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HttpConfig;
use crate::support::checks::Checks;
use crate::support::settings;

/// The entry of `http.trusted_proxies` that stands for the Unix socket.
pub(in crate::http) const UNIX: &str = "unix";

settings! {
    /// `[http.tls]`
    #[derive(Debug)]
    pub struct TlsConfig {
        /// The certificate in PEM, followed by the intermediate certificates up to an authority that clients
        /// trust. With it and `key_file`, the gateway speaks TLS. Reloaded when it changes. Default none.
        pub cert_file: Option<PathBuf>,
        /// The certificate's private key, in PEM. Reloaded when it changes. Default none.
        pub key_file: Option<PathBuf>,
        /// For how long browsers remember that the gateway's name speaks only TLS, in seconds
        /// (`Strict-Transport-Security`, only in answers over TLS, and not for `localhost`). 0 = the header
        /// is not sent. Default 15,552,000 (180 days).
        pub hsts_s: u64 = 15_552_000,
        /// The authorities of client certificates, in PEM. With it, clients are asked for a certificate.
        /// Reloaded when it changes. Default none.
        pub client_ca_file: Option<PathBuf>,
        /// Whether clients without a certificate are served: `optional` or `required`. On the operators'
        /// listener it is always `optional`. Default `optional`.
        pub client_auth: ClientAuth = ClientAuth::Optional,
    }
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// They may show one.
    #[default]
    Optional,
    /// The handshake fails without one.
    Required,
}

impl TlsConfig {
    /// Whether the gateway speaks TLS.
    pub(crate) fn is_on(&self) -> bool {
        self.cert_file.is_some() && self.key_file.is_some()
    }
}

settings! {
    /// `[http.operators]`
    #[derive(Debug)]
    pub struct OperatorsConfig {
        /// Address and port of a listener for operators. If it is set, addresses for operators (`/metrics`,
        /// `/ws/stats`, `/api/config` and others) exist only there. Anything but loopback needs
        /// authentication, as for `http.listen`. Default none.
        pub listen: Option<SocketAddr>,
        /// Whether this listener speaks TLS if `http.tls` is set. Default true.
        pub tls: bool = true,
    }
}

/// Whether trusted proxies announce the client at the beginning of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// Each of their connections begins with a header of the PROXY protocol, version 1 or 2.
    Required,
}

impl HttpConfig {
    pub(super) fn check_entrances(&self, checks: &mut Checks) {
        let tls = &self.tls;
        let go_together = tls.cert_file.is_some() == tls.key_file.is_some();
        checks.require("tls", go_together, || {
            "`cert_file` and `key_file` go together: set both, or none".to_owned()
        });
        checks.require("tls.client_ca_file", tls.client_ca_file.is_none() || tls.is_on(), || {
            "requires `cert_file` and `key_file`: clients show certificates only over TLS".to_owned()
        });
        let is_required = tls.client_auth == ClientAuth::Required;
        checks.require("tls.client_auth", !is_required || tls.client_ca_file.is_some(), || {
            "goes only with `client_ca_file`: name the authorities whose certificates are accepted".to_owned()
        });
        let is_announced = self.proxy_protocol == ProxyProtocol::Required;
        checks.require("proxy_protocol", !is_announced || !self.trusted_proxies.is_empty(), || {
            "goes only with http.trusted_proxies: name the proxies that send the header".to_owned()
        });
        checks.require("unix_socket_mode", self.unix_socket_mode().is_some(), || {
            format!("expected three or four octal digits such as 0660; found {:?}", self.unix_socket_mode)
        });
        if let Some(path) = &self.unix_socket {
            /// What fits into a kernel address, without its final zero.
            const LEN_MAX: usize = 107;
            let len = path.as_os_str().len();
            checks.require("unix_socket", (1..=LEN_MAX).contains(&len), || {
                format!("expected a path of 1 to {LEN_MAX} bytes; found one of {len}")
            });
        }
        if let Some(listen) = self.operators.listen {
            let is_another = listen.port() == 0 || listen != self.listen;
            checks.require("operators.listen", is_another, || {
                "expected another address or port than http.listen".to_owned()
            });
        }
    }

    /// `unix_socket_mode`, parsed.
    pub(crate) fn unix_socket_mode(&self) -> Option<u32> {
        let text = &self.unix_socket_mode;
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        is_octal.then(|| u32::from_str_radix(text, 8).ok())?.filter(|mode| *mode <= 0o777)
    }

    /// Whether clients of the Unix socket count as trusted proxies.
    pub(in crate::http) fn trusts_unix(&self) -> bool {
        self.trusted_proxies.iter().any(|proxy| proxy == UNIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut HttpConfig)) -> Vec<String> {
        let mut config = HttpConfig::default();
        change(&mut config);
        config.check().into_iter().map(|finding| finding.key).collect()
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        assert_eq!(keys(|http| http.tls.cert_file = Some("a.pem".into())), ["http.tls"]);
        assert_eq!(keys(|http| http.tls.key_file = Some("a.key".into())), ["http.tls"]);
        assert_eq!(keys(|http| http.tls.client_ca_file = Some("ca.pem".into())), ["http.tls.client_ca_file"]);
        assert_eq!(keys(|http| http.tls.client_auth = ClientAuth::Required), ["http.tls.client_auth"]);
        assert_eq!(keys(|http| http.proxy_protocol = ProxyProtocol::Required), ["http.proxy_protocol"]);
        assert_eq!(keys(|http| http.operators.listen = Some(http.listen)), ["http.operators.listen"]);
        assert_eq!(keys(|http| http.unix_socket = Some("x".repeat(108).into())), ["http.unix_socket"]);
        let trusted = |http: &mut HttpConfig| {
            http.trusted_proxies = vec![UNIX.to_owned(), "10.0.0.0/8".to_owned()];
            http.proxy_protocol = ProxyProtocol::Required;
        };
        assert_eq!(keys(trusted), [""; 0]);
    }

    #[test]
    fn the_bits_of_a_mode_are_octal() {
        for (mode, expected) in [
            ("0660", Some(0o660)),
            ("600", Some(0o600)),
            ("0777", Some(0o777)),
            ("1777", None),
            ("0o660", None),
            ("8", None),
            ("0680", None),
            ("", None),
        ] {
            let config = HttpConfig { unix_socket_mode: mode.to_owned(), ..HttpConfig::default() };
            assert_eq!(config.unix_socket_mode(), expected, "{mode}");
            assert_eq!(config.check().is_empty(), expected.is_some(), "{mode}");
        }
    }
}
