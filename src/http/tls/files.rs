//! The files of the certificate and its key, and of the authorities of client certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::verifying::{Verifying, not_after};
use crate::http::config::{ClientAuth, TlsConfig};

/// The longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The content of the files.
#[derive(Hash)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_auth: ClientAuth,
}

/// The parsed content.
pub(super) struct Loaded {
    pub(super) server: ServerConfig,
    /// The configuration for operators, if it differs: their clients need not show a certificate.
    pub(super) of_operators: Option<ServerConfig>,
    /// When the certificate expires, in seconds since 1970.
    pub(super) expires_at: i64,
    /// The authorities of client certificates.
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

impl Files {
    pub(super) async fn read(config: &TlsConfig) -> Result<Self, String> {
        let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) else {
            return Err("`http.tls.cert_file` and `http.tls.key_file` are not set".to_owned());
        };
        Ok(Self {
            certificate: read("http.tls.cert_file", certificate).await?,
            key: read("http.tls.key_file", key).await?,
            client_ca: match &config.client_ca_file {
                Some(file) => Some(read("http.tls.client_ca_file", file).await?),
                None => None,
            },
            client_auth: config.client_auth,
        })
    }

    /// Parses the content.
    ///
    /// # Errors
    /// The files are not a certificate and a key, or these do not belong together; the text contains
    /// nothing of the key.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let chain = certificates("http.tls.cert_file", &self.certificate)?;
        let Some(first) = chain.first() else {
            return Err("`http.tls.cert_file` holds no certificate; expected a chain in PEM".to_owned());
        };
        let expires_at =
            not_after(first).map_err(|error| format!("`http.tls.cert_file` cannot be read: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            format!("`http.tls.key_file` holds no usable private key; expected one in PEM: {error}")
        })?;
        let authorities = self.authorities()?;
        let with = |client_auth| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?;
            let server = match authorities.is_empty() {
                true => server.with_no_client_auth(),
                false => server.with_client_cert_verifier(verifier(&authorities, client_auth, provider)?),
            };
            server.with_single_cert(chain.clone(), key.clone_key()).map_err(|error| {
                format!("`http.tls.cert_file` and `http.tls.key_file` do not belong together: {error}")
            })
        };
        let server = with(self.client_auth)?;
        let is_required = self.client_auth == ClientAuth::Required;
        let of_operators = is_required.then(|| with(ClientAuth::Optional)).transpose()?;
        Ok(Loaded { server, of_operators, expires_at, authorities })
    }

    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let Some(text) = &self.client_ca else { return Ok(Vec::new()) };
        let found = certificates("http.tls.client_ca_file", text)?;
        if found.is_empty() {
            return Err(
                "`http.tls.client_ca_file` holds no certificate; expected authorities in PEM".to_owned()
            );
        }
        Ok(found)
    }
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.map_err(|error| format!("`{setting}` is not PEM: {error}"))
}

fn verifier(
    authorities: &[CertificateDer<'static>],
    client_auth: ClientAuth,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let cannot = |error: &dyn std::fmt::Display| {
        format!(
            "`http.tls.client_ca_file` holds something that is not the certificate of an authority: {error}"
        )
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| cannot(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match client_auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    Ok(Arc::new(Verifying(builder.build().map_err(|error| cannot(&error))?)))
}

async fn read(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("`{setting}`, {}, cannot be read: {error}", path.display());
    let len = tokio::fs::metadata(path).await.map_err(cannot)?.len();
    if len > FILE_BYTES_MAX {
        return Err(format!("`{setting}`, {}, is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    tokio::fs::read(path).await.map_err(cannot)
}
