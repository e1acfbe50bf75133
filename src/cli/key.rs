//! `key`: makes and lists API keys.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use zonewire_access::{ApiKey, ApiKeyFile, make_api_key};

use super::exit::UsageError;
use super::holder::HolderArgs;
use super::table::Table;
use super::{print, token};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire key make --config zonewire.toml --subject feed-1 --role publisher
  zonewire key make --file keys.toml --subject desk --right subscribe:zone:pjm.* --days 90
  zonewire key list --config zonewire.toml

A key is printed once, and only its digest is stored. To revoke a key, remove it from the file: within two \
seconds it is no longer accepted. `zonewire token revoke --key NAME` revokes it on all nodes.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, add it to the file, and print it once
    Make(MakeArgs),
    /// List the keys of a file
    List(FileArgs),
}

/// The file of API keys.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// The file of keys [default: auth.keys_file of the configuration]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration that names the file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MakeArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    holder: HolderArgs,
    /// After how many days the key expires [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
}

pub(crate) fn run(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Make(args) => make(args),
        KeyCommand::List(args) => list(&args),
    }
}

impl FileArgs {
    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        token::auth(self.config.as_ref())?.keys_file.ok_or_else(|| {
            UsageError("name the file: --file, or auth.keys_file in --config".to_owned()).into()
        })
    }
}

fn make(args: MakeArgs) -> anyhow::Result<()> {
    if !args.holder.is_of_use() {
        return Err(UsageError("a key without a --role or a --right would permit nothing".to_owned()).into());
    }
    let path = args.file.path()?;
    let now = Utc::now().timestamp();
    let (key, record) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        rights: args.holder.rights(),
        subject: args.holder.subject,
        roles: args.holder.roles,
        tenant: args.holder.tenant,
        created_at: now,
        expires_at: args.days.map(|days| now + i64::from(days) * 86_400),
    });
    add(&path, &record)?;
    print::line(&key)?;
    print::say(&format!(
        "key {} of {} is in {}; the key itself is not stored, and is not shown again",
        record.name,
        print::harmless(&record.subject),
        path.display()
    ));
    Ok(())
}

/// Appends a key to a file, which is created if it does not exist. The key is written with one call, so
/// that a gateway that reads the file meanwhile finds either the whole key or none of it.
pub(super) fn add(path: &Path, record: &ApiKey) -> anyhow::Result<()> {
    let before = read(path)?;
    let begin =
        if before.is_empty() { "# API keys of a gateway; `zonewire key make` adds to it.\n" } else { "" };
    let text = format!("{begin}\n{}", ApiKeyFile { keys: vec![record.clone()] }.to_toml());
    ApiKeyFile::read(&format!("{before}{text}"))
        .map_err(|problem| UsageError(format!("{}: {problem}", path.display())))?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// The text of a file; empty if the file does not exist.
fn read(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn list(args: &FileArgs) -> anyhow::Result<()> {
    let path = args.path()?;
    let file = ApiKeyFile::read(
        &std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?,
    );
    let file = match file {
        Ok(file) => file,
        Err(problem) => bail!("{}: {problem}", path.display()),
    };
    let mut table = Table::new(&["name", "subject", "tenant", "roles", "rights", "made", "ends"]);
    for key in file.keys {
        let texts = [key.name, key.subject, key.tenant.unwrap_or_default()];
        let rights = [key.roles.join(" "), key.rights.join(" ")];
        let times = [time(key.created_at), key.expires_at.map(time).unwrap_or_default()];
        table.row(texts.into_iter().chain(rights).chain(times).map(|text| print::harmless(&text)));
    }
    table.print("there are no keys yet; `zonewire key make` makes one")?;
    // The digest of a key is of little use to others, so that the file may be readable. But whoever can
    // write the file can add keys.
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o022 != 0) {
        print::say(&format!("warning: others can write {}: chmod 600", path.display()));
    }
    Ok(())
}

fn time(seconds: i64) -> String {
    let time = DateTime::from_timestamp(seconds, 0);
    time.map(|time| print::seconds(&time.to_rfc3339())).unwrap_or_default()
}
