//! Clients that speak TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use zonewire::config::Config;
use zonewire_kit::certificates::Certificates;

use super::client::{LIMIT, connect_small, raw};
use super::gateway::{Answer, config, read_answer};

/// A gateway's settings with one of these certificates.
pub(crate) fn config_with(certificates: &Certificates) -> Config {
    let mut config = config();
    config.http.tls.cert_file = Some(certificates.file("server.pem"));
    config.http.tls.key_file = Some(certificates.file("server.key"));
    config
}

/// A client that trusts these authorities. Its clones resume its sessions.
pub(crate) fn trusting(certificates: &[&Certificates]) -> TlsConnector {
    Arc::new(client(certificates).with_no_client_auth()).into()
}

/// A client that trusts the authority of `trusted`, and shows `<name>.pem` of `of`.
pub(crate) fn showing(trusted: &Certificates, of: &Certificates, name: &str) -> TlsConnector {
    let chain = vec![CertificateDer::from_pem_file(of.file(&format!("{name}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(of.file(&format!("{name}.key"))).unwrap();
    Arc::new(client(&[trusted]).with_client_auth_cert(chain, key).unwrap()).into()
}

fn client(certificates: &[&Certificates]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for certificates in certificates {
        roots.add(CertificateDer::from_pem_file(certificates.file("ca.pem")).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots)
}

/// A connection after its handshake.
pub(crate) async fn connect(connector: &TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
    over(connector, TcpStream::connect(address).await.unwrap()).await.unwrap()
}

/// The same on an existing socket.
pub(crate) async fn over(
    connector: &TlsConnector,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    time::timeout(LIMIT, connector.connect(name, stream)).await.expect("a handshake in time")
}

/// A request and its answer; the connection stays open.
pub(crate) async fn ask(
    stream: &mut TlsStream<TcpStream>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    read_answer(stream).await.unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// A WebSocket over TLS.
pub(crate) struct Secure(WebSocketStream<TlsStream<TcpStream>>);

impl Secure {
    pub(crate) async fn open(connector: &TlsConnector, address: SocketAddr, path: &str) -> Self {
        Self::on(connect(connector, address).await, path).await
    }

    /// The same on an existing socket.
    pub(crate) async fn over(connector: &TlsConnector, stream: TcpStream, path: &str) -> Self {
        Self::on(over(connector, stream).await.unwrap(), path).await
    }

    /// A client whose kernel buffers hardly anything that it has not read.
    pub(crate) async fn open_small(connector: &TlsConnector, address: SocketAddr, path: &str) -> Self {
        let stream = connect_small(address).await;
        Self::on(over(connector, stream).await.unwrap(), path).await
    }

    async fn on(stream: TlsStream<TcpStream>, path: &str) -> Self {
        let url = format!("wss://localhost{path}");
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self(socket)
    }

    /// The messages before it was closed, and the close code.
    pub(crate) async fn until_close(&mut self) -> (Vec<Value>, u16) {
        let mut before = Vec::new();
        loop {
            match time::timeout(LIMIT, self.0.next()).await.expect("something arrives in time") {
                Some(Ok(Message::Text(text))) => before.push(raw(&text)),
                Some(Ok(Message::Close(frame))) => return (before, frame.expect("a code").code.into()),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?} after {before:?}"),
            }
        }
    }

    /// The next text; `None` once it is closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            match time::timeout(LIMIT, self.0.next()).await.expect("something arrives in time")? {
                Ok(Message::Text(text)) => return Some(raw(&text)),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message of a type.
    pub(crate) async fn next_of_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("closed before {kind}"));
            if message["type"] == kind {
                return message;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }
}
