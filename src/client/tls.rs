//! TLS with the user's own settings: authorities to trust, and a certificate to show.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities to trust, in place of the machine's.
    pub ca: Option<PathBuf>,
    /// A certificate, followed by its intermediate certificates, and its private key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// A TLS configuration.
#[derive(Debug, Clone)]
pub struct TlsTerms(pub(super) Arc<ClientConfig>);

impl PartialEq for TlsTerms {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsTerms {}

impl TlsTerms {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used; the text contains nothing of a key.
    pub fn read(files: &TlsFiles) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        match &files.ca {
            Some(file) => {
                for authority in certificates(file)? {
                    roots.add(authority).map_err(|error| wrong(file, &error))?;
                }
            }
            // Some of the machine's certificates may be unreadable; the others are used.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = config.with_root_certificates(roots);
        let config = match &files.own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|error| format!("{} holds no private key in PEM: {error}", key.display()))?;
                config.with_client_auth_cert(certificates(certificate)?, secret).map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    format!("{certificate} and {key} do not belong together: {error}")
                })?
            }
        };
        Ok(Self(Arc::new(config)))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(file, &error))?;
    match found.is_empty() {
        true => Err(format!("{} holds no certificate; expected certificates in PEM", file.display())),
        false => Ok(found),
    }
}

fn wrong(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used; expected certificates in PEM: {error}", file.display())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}
