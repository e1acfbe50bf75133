//! TLS to Redis: the authorities to trust, and the certificate to present.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// PEM files. They are read whenever a client is built, so that a renewed certificate is used without a
/// restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TlsFiles {
    /// Authorities to trust instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// Presented to a server that requires a certificate; requires `key`.
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether the files can be used now. The system's authorities are not checked.
    pub(super) fn check(&self) -> Result<(), String> {
        let roots = self.roots()?.unwrap_or_else(RootCertStore::empty);
        self.with(roots).map(|_| ())
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let roots = match self.roots()? {
            Some(roots) => roots,
            None => of_the_system()?,
        };
        self.with(roots)
    }

    fn roots(&self) -> Result<Option<RootCertStore>, String> {
        let Some(file) = &self.ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls_ca_file", file)? {
            roots.add(certificate).map_err(|error| wrong("tls_ca_file", file, &error))?;
        }
        Ok(Some(roots))
    }

    fn with(&self, roots: RootCertStore) -> Result<ClientConfig, String> {
        // Fails if a provider is installed already, which serves as well.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig::builder().with_root_certificates(roots);
        match (&self.certificate, &self.key) {
            (None, None) => Ok(config.with_no_client_auth()),
            (Some(certificate), Some(key)) => {
                let chain = certificates("tls_cert_file", certificate)?;
                let secret =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls_key_file", key, &error))?;
                config.with_client_auth_cert(chain, secret).map_err(|error| {
                    format!("`tls_cert_file` and `tls_key_file` do not go together ({error})")
                })
            }
            _ => Err("`tls_cert_file` and `tls_key_file` go together: set both, or none".to_owned()),
        }
    }
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(setting, file, &error));
    match found {
        Ok(found) if found.is_empty() => Err(format!(
            "`{setting}`, {}, holds no certificate; expected certificates in PEM",
            file.display()
        )),
        found => found,
    }
}

fn wrong(setting: &str, file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("`{setting}`, {}, cannot be used ({error}); expected a readable file in PEM", file.display())
}

/// A system may have some unreadable certificates; the others are used.
fn of_the_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let expected = "set `tls_ca_file`, or install the system's (`ca-certificates`)";
        return Err(format!("there is no authority to trust for TLS to Redis: {expected}"));
    }
    Ok(roots)
}
