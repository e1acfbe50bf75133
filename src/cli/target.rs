//! Which gateway a command talks to, and as whom.

use std::path::PathBuf;

use super::config_args::Hidden;
use super::exit::UsageError;
use crate::client::{BaseUrl, TlsFiles, TlsTerms};
use crate::config::{CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE};

/// Which gateway to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Where the gateway is
    #[arg(long, value_name = "URL", env = URL_VARIABLE, default_value = "http://127.0.0.1:8080", hide_env_values = true)]
    url: BaseUrl,
    /// A token or an API key; better given as ZONEWIRE_TOKEN, since others can see flags
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env = true, hide_env_values = true, hide_short_help = true)]
    token: Option<Hidden>,
    /// Authorities to trust over TLS, in PEM, in place of this machine's
    #[arg(long, value_name = "FILE", env = CA_VARIABLE, hide_env_values = true, hide_short_help = true)]
    ca_file: Option<PathBuf>,
    /// A certificate to show to the gateway, in PEM; goes with --key-file
    #[arg(long, value_name = "FILE", env = CERT_VARIABLE, hide_env_values = true, hide_short_help = true)]
    cert_file: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", env = KEY_VARIABLE, hide_env_values = true, hide_short_help = true)]
    key_file: Option<PathBuf>,
}

impl TargetArgs {
    /// The gateway, for whom one is.
    ///
    /// # Errors
    /// The token is none, or the files cannot be used.
    pub(crate) fn base(&self) -> Result<BaseUrl, UsageError> {
        let base = match self.token.as_ref().map(Hidden::text).filter(|token| !token.is_empty()) {
            None => self.url.clone(),
            Some(token) => self.url.clone().with_token(token).map_err(UsageError)?,
        };
        let set = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        let (ca, certificate, key) = (set(&self.ca_file), set(&self.cert_file), set(&self.key_file));
        let own = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                let problem =
                    "--cert-file and --key-file go together (ZONEWIRE_CERT_FILE, ZONEWIRE_KEY_FILE)";
                return Err(UsageError(problem.to_owned()));
            }
        };
        // A variable may be set for other gateways.
        if !base.speaks_tls() || (ca.is_none() && own.is_none()) {
            return Ok(base);
        }
        Ok(base.with_tls(TlsTerms::read(&TlsFiles { ca, own }).map_err(UsageError)?))
    }
}
