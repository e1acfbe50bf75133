//! The credentials that clients show, each with what a gateway needs to verify it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde::Serialize;
use zonewire_access::{AuthConfig, IssuerConfig, SigningKey, make_secret};

use crate::identity::{self, api_key};

/// The issuer of the tokens of a run.
const ISSUER: &str = "zonewire-bench";

/// The role of all clients in a run.
const ROLE: &str = "trader";

/// Longer than any run.
const LIFETIME_S: i64 = 6 * 3_600;

/// A private key and its public key.
macro_rules! key_pair {
    ($name:literal) => {
        [
            include_str!(concat!("../../../access/tests/keys/", $name, ".pem")),
            include_str!(concat!("../../../access/tests/keys/", $name, ".pub.pem")),
        ]
    };
}

/// Key pairs of the tests. They protect nothing.
const RSA: [&str; 2] = key_pair!("rsa1");
const EC: [&str; 2] = key_pair!("ec");
const ED: [&str; 2] = key_pair!("ed");

/// The kinds of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// None, for a gateway without authentication.
    None,
    /// A token that is signed with a secret.
    Hs256,
    /// A token that is signed with a key of P-256.
    Es256,
    /// A token that is signed with a key of RSA, of 2048 bits.
    Rs256,
    /// A token that is signed with a key of Ed25519.
    Eddsa,
    /// An API key.
    Key,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Eddsa => "EdDSA",
            Self::Key => "API key",
        }
    }
}

/// A credential, and what a gateway verifies it with.
pub(super) struct Credential {
    /// The credential; empty for none. Not to be printed.
    pub(super) presented: String,
    /// What the gateway verifies with: the contents of the only file that its settings name.
    pub(super) verifying: String,
    issuer: Option<IssuerConfig>,
    is_secret: bool,
}

impl Credential {
    /// Makes a new one.
    pub(super) fn of(kind: Kind) -> anyhow::Result<Self> {
        let issuer = IssuerConfig { issuer: ISSUER.to_owned(), ..IssuerConfig::default() };
        let by_pair = |[private, public]: [&str; 2]| {
            let key = SigningKey::of_pem(private).map_err(|problem| anyhow!(problem))?;
            let (presented, issuer) = (token(&key)?, Some(issuer.clone()));
            anyhow::Ok(Self { presented, verifying: public.to_owned(), issuer, is_secret: false })
        };
        match kind {
            Kind::None => {
                let (presented, verifying) = (String::new(), String::new());
                Ok(Self { presented, verifying, issuer: None, is_secret: false })
            }
            Kind::Hs256 => {
                let secret = make_secret();
                let presented = token(&SigningKey::of_secret(&secret)?)?;
                Ok(Self { presented, verifying: secret, issuer: Some(issuer), is_secret: true })
            }
            Kind::Es256 => by_pair(EC),
            Kind::Rs256 => by_pair(RSA),
            Kind::Eddsa => by_pair(ED),
            Kind::Key => {
                let (presented, verifying) = api_key("alice", &[ROLE], &[]);
                Ok(Self { presented, verifying, issuer: None, is_secret: false })
            }
        }
    }

    /// The settings of a gateway that verifies with this file. It does not remember verified tokens, unless
    /// they are to be presented `again`.
    pub(super) fn settings(&self, file: &Path, again: bool) -> AuthConfig {
        let mut settings = AuthConfig::default();
        if !again {
            settings.verified_max = 0;
        }
        match &self.issuer {
            Some(issuer) => {
                let mut issuer = issuer.clone();
                match self.is_secret {
                    true => issuer.secret_files = vec![file.to_owned()],
                    false => issuer.keys = vec![file.display().to_string()],
                }
                settings.issuers = vec![issuer];
            }
            None => settings.keys_file = (!self.presented.is_empty()).then(|| file.to_owned()),
        }
        settings
    }

    /// Writes the configuration of such a gateway, and the file that it names, into a directory.
    pub(super) fn write_into(&self, directory: &Path, again: bool) -> anyhow::Result<PathBuf> {
        #[derive(Serialize)]
        struct File {
            auth: AuthConfig,
        }
        let (keys, config) = (directory.join("keys"), directory.join("zonewire.toml"));
        let auth = self.settings(&keys, again);
        let text = toml::to_string(&File { auth }).context("settings are TOML")?;
        for (path, text) in [(&keys, &self.verifying), (&config, &text)] {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(config)
    }
}

fn token(key: &SigningKey) -> anyhow::Result<String> {
    Ok(identity::token(key, ISSUER, "alice", ROLE, LIFETIME_S)?.0)
}
