//! Which gateway a command talks to, and as whom.

use super::config_args::Hidden;
use super::exit::UsageError;
use crate::client::BaseUrl;
use crate::config::{TOKEN_VARIABLE, URL_VARIABLE};

/// Which gateway to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Where the gateway is
    #[arg(long, value_name = "URL", env = URL_VARIABLE, default_value = "http://127.0.0.1:8080", hide_env_values = true)]
    url: BaseUrl,
    /// A token or an API key; better given as ZONEWIRE_TOKEN, since others can see flags
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env = true, hide_env_values = true, hide_short_help = true)]
    token: Option<Hidden>,
}

impl TargetArgs {
    /// The gateway, for whom one is.
    ///
    /// # Errors
    /// The token is none.
    pub(crate) fn base(&self) -> Result<BaseUrl, UsageError> {
        match self.token.as_ref().map(Hidden::text).filter(|token| !token.is_empty()) {
            None => Ok(self.url.clone()),
            Some(token) => self.url.clone().with_token(token).map_err(UsageError),
        }
    }
}
