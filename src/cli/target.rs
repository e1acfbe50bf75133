//! Which gateway a command talks to, and with which credentials.

use std::path::PathBuf;

use super::config_args::Hidden;
use super::exit::UsageError;
use crate::client::{BaseUrl, TlsFiles, TlsTerms};
use crate::config::{CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE};

/// Which gateway to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Address of the gateway
    #[arg(long, value_name = "URL", env = URL_VARIABLE, default_value = "http://127.0.0.1:8080", hide_env_values = true)]
    url: BaseUrl,
    /// A token or an API key; better set as ZONEWIRE_TOKEN, since other users can see flags
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env = true, hide_env_values = true, hide_short_help = true)]
    token: Option<Hidden>,
    /// Certificate authorities to trust for TLS, in PEM, instead of this machine's
    #[arg(long, value_name = "FILE", env = CA_VARIABLE, hide_env_values = true, hide_short_help = true)]
    ca_file: Option<PathBuf>,
    /// A client certificate to present to the gateway, in PEM; requires --key-file
    #[arg(long, value_name = "FILE", env = CERT_VARIABLE, hide_env_values = true, hide_short_help = true)]
    cert_file: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", env = KEY_VARIABLE, hide_env_values = true, hide_short_help = true)]
    key_file: Option<PathBuf>,
}

impl TargetArgs {
    /// The gateway's address with the credentials of this command.
    ///
    /// # Errors
    /// The token is malformed, or the files cannot be used.
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
        // The variables may be set for other gateways.
        if !base.speaks_tls() || (ca.is_none() && own.is_none()) {
            return Ok(base);
        }
        Ok(base.with_tls(TlsTerms::read(&TlsFiles { ca, own }).map_err(UsageError)?))
    }
}
