//! Identities at the gateway of a soak: one operator, whose token the suite itself presents, and guests with
//! tokens that last for seconds.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use zonewire::cli::Hidden;
use zonewire_access::{SigningKey, make_secret};
use zonewire_kit::dir::TempDir;

use crate::identity::{self, api_key};
use crate::outages::session::Access;

const ISSUER: &str = "soak";
/// The longest that a token may last, and therefore how long a revocation is remembered.
pub(super) const LIFETIME_MAX_S: i64 = 8;

/// Keys, secrets and settings, in a directory of their own.
#[derive(Debug)]
pub(super) struct Realm {
    dir: TempDir,
    key: SigningKey,
    operator: Hidden,
}

impl Realm {
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let secret = make_secret();
        let (operator, keys) = api_key("suite", &["operator"], &[]);
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("secret", &secret)?;
        write("keys.toml", &keys)?;
        write("zonewire.toml", &settings(dir.path()))?;
        let operator = operator.parse().unwrap_or_else(|never| match never {});
        Ok(Self { key: SigningKey::of_secret(&secret)?, dir, operator })
    }

    /// How a gateway that accepts all of them is started, and what the suite presents to it.
    pub(super) fn access(&self) -> Access {
        Access { config: self.dir.path().join("zonewire.toml"), token: self.operator.clone() }
    }

    /// A guest's token, and the token's id.
    pub(super) fn token(&self, subject: &str, lifetime_s: i64) -> anyhow::Result<(String, String)> {
        identity::token(&self.key, ISSUER, subject, "guest", lifetime_s.min(LIFETIME_MAX_S))
    }
}

/// Whatever expires expires soon, so that it can be observed; limits are low enough to be reached.
fn settings(dir: &Path) -> String {
    // JSON's strings are valid in TOML.
    let file = |name: &str| json!(dir.join(name).to_string_lossy()).to_string();
    let (keys, secret) = (file("keys.toml"), file("secret"));
    format!(
        r#"[auth]
mode = "on"
within_s = 1
leeway_s = 0
lifetime_max_s = {LIFETIME_MAX_S}
verified_max = 256
keys_file = {keys}

[auth.roles]
guest = [
  "subscribe:zone:soak-*", "subscribe:event:*", "subscribe:registry:*",
  "publish:zone:soak-*", "publish:event:*", "registry:registry:*", "order",
]

[[auth.issuers]]
issuer = "{ISSUER}"
secret_files = [{secret}]

[limits]
burst_s = 2

[limits.principal]
connects_per_s = 50
connections_max = 20
messages_per_s = 500
subscriptions_max = 100
publishes_per_s = 50
orders_per_s = 50
bytes_out_per_s = 1048576
behind_max = 5

[limits.roles.operator]
connects_per_s = 0
connections_max = 0
messages_per_s = 0
subscriptions_max = 0
publishes_per_s = 0
orders_per_s = 0
bytes_out_per_s = 0
behind_max = 0

[connections]
heartbeat_interval_s = 2
silence_timeout_s = 5
order_linger_ms = 500
close_grace_ms = 1000

[channels]
idle_after_s = 2

[storage.memory]
put_back_bytes = 4194304

[orders]
kept_s = 5
retry_first_ms = 100

[orders.paper]
step_ms = 20
"#
    )
}
