//! Which gateway a command talks to.

use crate::client::BaseUrl;
use crate::config::URL_VARIABLE;

/// Which gateway to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// Where the gateway is
    #[arg(long, value_name = "URL", env = URL_VARIABLE, default_value = "http://127.0.0.1:8080", hide_env_values = true)]
    pub(crate) url: BaseUrl,
}
