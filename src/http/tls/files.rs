//! The files of a certificate and its key.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::http::config::TlsConfig;

/// The longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is in the files.
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What they are good for.
pub(super) struct Loaded {
    pub(super) server: ServerConfig,
    /// When the certificate ceases to be valid, in seconds since 1970.
    pub(super) expires_at: i64,
}

impl Files {
    pub(super) async fn read(config: &TlsConfig) -> Result<Self, String> {
        let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) else {
            return Err("`http.tls.cert_file` and `http.tls.key_file` are not set".to_owned());
        };
        Ok(Self {
            certificate: read("http.tls.cert_file", certificate).await?,
            key: read("http.tls.key_file", key).await?,
        })
    }

    /// Tells whether what is in them is the same as before.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.certificate.hash(&mut hasher);
        self.key.hash(&mut hasher);
        hasher.finish()
    }

    /// Reads what is in them.
    ///
    /// # Errors
    /// They are no certificate and key, or do not go together; nothing of the key is in the words.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`http.tls.cert_file` is not PEM: {error}"))?;
        let Some(first) = chain.first() else {
            return Err("`http.tls.cert_file` holds no certificate; expected a chain in PEM".to_owned());
        };
        let expires_at = expires_at(first)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            format!("`http.tls.key_file` holds no private key that can be used; expected one in PEM: {error}")
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                format!("`http.tls.cert_file` and `http.tls.key_file` do not go together: {error}")
            })?;
        Ok(Loaded { server, expires_at })
    }
}

async fn read(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("`{setting}`, {}, cannot be read: {error}", path.display());
    let len = tokio::fs::metadata(path).await.map_err(cannot)?.len();
    if len > FILE_BYTES_MAX {
        return Err(format!("`{setting}`, {}, is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    tokio::fs::read(path).await.map_err(cannot)
}

fn expires_at(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    let read = Certificate::from_der(certificate)
        .map_err(|error| format!("`http.tls.cert_file` cannot be read: {error}"))?;
    let at = read.tbs_certificate().validity().not_after.to_unix_duration();
    Ok(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
}
