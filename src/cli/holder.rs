//! Whom a key or a token is issued to, and what its holder may do.

use zonewire_access::Right;

/// The holder of a key or a token.
#[derive(Debug, clap::Args)]
pub(crate) struct HolderArgs {
    /// Whom it is issued to; orders that are placed with it belong to this subject
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: String,
    /// A role, such as viewer, trader, publisher, worker or operator; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<String>,
    /// A right, such as subscribe:zone:pjm.*; may be repeated
    #[arg(long = "right", value_name = "RIGHT")]
    rights: Vec<Right>,
    /// The tenant of the subject
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
}

impl HolderArgs {
    /// The rights in their text form.
    pub(crate) fn rights(&self) -> Vec<String> {
        self.rights.iter().map(ToString::to_string).collect()
    }

    /// Whether a key or token with these would permit anything at all.
    pub(crate) fn is_of_use(&self) -> bool {
        !self.roles.is_empty() || !self.rights.is_empty()
    }
}
