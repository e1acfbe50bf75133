//! Whose a key or a token is, and what its holder may do.

use zonewire_access::Right;

/// Whose it is.
#[derive(Debug, clap::Args)]
pub(crate) struct HolderArgs {
    /// Whose it is; orders that are placed with it are this one's
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: String,
    /// A role, such as viewer, trader, publisher, worker or operator; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// A right, such as subscribe:zone:pjm.*; may be repeated
    #[arg(long = "right", value_name = "RIGHT")]
    rights: Vec<Right>,
    /// Its tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
}

impl HolderArgs {
    /// Its rights, as they are written.
    pub(crate) fn rights(&self) -> Vec<String> {
        self.rights.iter().map(ToString::to_string).collect()
    }

    /// Whether it could do anything at all.
    pub(crate) fn is_of_use(&self) -> bool {
        !self.roles.is_empty() || !self.rights.is_empty()
    }
}
