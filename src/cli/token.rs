//! `token`: makes, shows and revokes tokens.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::Utc;
use serde_json::json;
use zonewire_access::{Access, Claims, Given, Place, Principal, SigningKey, make_token_id, unverified};

use super::config_args::ConfigArgs;
use super::exit::UsageError;
use super::holder::HolderArgs;
use super::print;
use super::target::TargetArgs;
use crate::client::{self, ANSWER_TIMEOUT};
use crate::config::AuthConfig;
use crate::protocol::{Revoke, RevokedOn};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire token mint --config zonewire.toml --subject alice --role trader
  zonewire token mint --private-key key.pem --key-id 2026-11 --issuer https://id.example/ --subject alice \
--role viewer
  zonewire token mint --config zonewire.toml --subject alice --role viewer | zonewire token inspect
  zonewire token revoke --subject alice";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it
    Mint(MintArgs),
    /// Show the claims of a token, which is read from standard input
    Inspect(InspectArgs),
    /// Revoke a token, a key, or everything issued to a subject
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct MintArgs {
    #[command(flatten)]
    holder: HolderArgs,
    /// For how long the token is valid, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..))]
    lifetime_s: u32,
    /// The gateway's configuration: the token is made for its first issuer that has a secret
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file with the secret to sign with, using HS256
    #[arg(long, value_name = "FILE", conflicts_with = "private_key")]
    secret_file: Option<PathBuf>,
    /// A file with the private key to sign with, in PEM
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The name of the key as configured at the gateway (`kid`)
    #[arg(long, value_name = "NAME")]
    key_id: Option<String>,
    /// The issuer of the token (`iss`)
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The audience of the token (`aud`) [default: the issuer's first, or zonewire]
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The configuration of a gateway: also reports whether that gateway would accept the token, using only
    /// keys from files
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub(crate) struct RevokeArgs {
    /// A token, by its `jti`
    #[arg(long, value_name = "ID", group = "what")]
    jti: Option<String>,
    /// An API key, by its name
    #[arg(long, value_name = "NAME", group = "what")]
    key: Option<String>,
    /// Everything that was issued to a subject until now
    #[arg(long, value_name = "NAME", group = "what")]
    subject: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Mint(args) => mint(args),
        TokenCommand::Inspect(args) => inspect(&args),
        TokenCommand::Revoke(args) => client::block_on(revoke(args)),
    }
}

fn usage(problem: impl Into<String>) -> anyhow::Error {
    UsageError(problem.into()).into()
}

/// The `[auth]` settings of a configuration.
pub(super) fn auth(config: Option<&PathBuf>) -> anyhow::Result<AuthConfig> {
    let args = ConfigArgs { config: config.cloned(), ..ConfigArgs::default() };
    Ok(args.load(Vec::new())?.config.auth)
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn mint(args: MintArgs) -> anyhow::Result<()> {
    let issuers = if args.config.is_some() { auth(args.config.as_ref())?.issuers } else { Vec::new() };
    let wanted = |name: &String| args.issuer.as_ref().is_none_or(|issuer| issuer == name);
    let mut fitting = issuers.iter().filter(|issuer| wanted(&issuer.issuer));
    let has_key = args.secret_file.is_some() || args.private_key.is_some();
    let configured = fitting.find(|issuer| has_key || !issuer.secret_files.is_empty());
    let named = || configured.and_then(|issuer| issuer.secret_files.first());
    let at = |path: &PathBuf, problem: String| usage(format!("{}: {problem}", path.display()));
    let key = match (&args.private_key, args.secret_file.as_ref().or_else(named)) {
        (Some(path), _) => SigningKey::of_pem(&read(path)?).map_err(|problem| at(path, problem))?,
        (None, Some(path)) => {
            SigningKey::of_secret(&read(path)?).map_err(|problem| at(path, problem.to_string()))?
        }
        (None, None) => {
            let problem = "nothing to sign with: --config with an issuer that has secret_files, --secret-file or \
                           --private-key";
            return Err(usage(problem));
        }
    };
    let issuer = args.issuer.clone().or_else(|| configured.map(|issuer| issuer.issuer.clone()));
    let issuer = issuer.ok_or_else(|| usage("the token needs an issuer: --issuer, or --config"))?;
    let audience = configured.and_then(|issuer| issuer.audience.first().cloned());
    let now = Utc::now().timestamp();
    let claims = Claims {
        iss: issuer,
        aud: args.audience.or(audience).unwrap_or_else(|| "zonewire".to_owned()),
        rights: args.holder.rights(),
        sub: args.holder.subject,
        iat: now,
        exp: now + i64::from(args.lifetime_s),
        jti: make_token_id(),
        tenant: args.holder.tenant,
        roles: args.holder.roles,
    };
    let token = key.sign(&claims, args.key_id.as_deref()).map_err(usage)?;
    print::line(&token)?;
    Ok(())
}

fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().lock().take(64 << 10).read_to_string(&mut text).context("cannot read standard input")?;
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    let (header, claims) = unverified(token).map_err(usage)?;
    let mut said = json!({ "header": header, "claims": claims });
    if args.config.is_some() {
        said["here"] = match holds(auth(args.config.as_ref())?, token) {
            Ok(who) => json!({ "holds": true, "subject": who.subject(), "rights": rights(&who) }),
            Err(problem) => json!({ "holds": false, "problem": problem }),
        };
    }
    print::line(&serde_json::to_string_pretty(&said)?)?;
    Ok(())
}

/// The holder of a token, if a gateway with these settings would accept it.
fn holds(config: AuthConfig, token: &str) -> Result<Arc<Principal>, String> {
    let access = Access::new(config).map_err(|wrong| format!("{wrong:?}"))?;
    let now = Utc::now().timestamp();
    for due in access.due(now) {
        let gave = match &due.place {
            Place::File(path) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
            Place::Url(_) => Err("keys are not fetched from addresses here".to_owned()),
        };
        if let Given::Problem { problem, .. } = access.given(&due, gave.map(|text| (text, None)), now) {
            print::say(&format!("warning: {}: {problem}", due.place));
        }
    }
    access.authenticate(token).map_err(|refused| refused.to_string())
}

fn rights(who: &Principal) -> Vec<String> {
    who.rights().iter().map(ToString::to_string).collect()
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    let RevokeArgs { jti, key, subject, target } = args;
    let (base, body) = (&target.base()?, Revoke { jti, key, subject });
    let request = base.http()?.post(base.endpoint("api/auth/revoke"));
    let request = request.header("content-type", "application/json").timeout(ANSWER_TIMEOUT);
    let text = client::text_of(request.body(serde_json::to_vec(&body)?).send().await, base).await?;
    let on: RevokedOn = client::read(&text, "where a revocation holds")?;
    print::line(&format!("revoked on {}", on.holds_on.join(", ")))?;
    if on.degraded {
        anyhow::bail!(
            "Redis is unavailable: other nodes learn of the revocation when it is back; until then, revoke on each of them"
        );
    }
    if !on.unconfirmed_on.is_empty() {
        anyhow::bail!("not confirmed by {}", on.unconfirmed_on.join(", "));
    }
    Ok(())
}
