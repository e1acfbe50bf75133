//! `config init`: writes a configuration with authentication, and the files that it refers to.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::Utc;
use zonewire_access::{ApiKey, make_api_key, make_secret};

use super::exit::UsageError;
use super::{key, print};

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// The directory to write to; it is created if it does not exist
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Zones that anybody may read without a token, such as public.*; may be repeated
    #[arg(long = "public", value_name = "PATTERN")]
    public: Vec<String>,
}

const CONFIG: &str = "zonewire.toml";
const SECRET: &str = "token.secret";
const KEYS: &str = "keys.toml";

/// Writes the configuration, and prints the key of an operator.
pub(crate) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let anonymous: Vec<String> = args.public.iter().map(|zones| format!("subscribe:zone:{zones}")).collect();
    for right in &anonymous {
        right.parse::<zonewire_access::Right>().map_err(|error| UsageError(error.to_string()))?;
    }
    let directory = &args.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let directory =
        directory.canonicalize().with_context(|| format!("cannot find {}", directory.display()))?;
    let there = [CONFIG, SECRET, KEYS].map(|name| directory.join(name));
    if let Some(taken) = there.iter().find(|path| path.exists()) {
        return Err(UsageError(format!("{} exists already and was not changed", taken.display())).into());
    }
    let [config, secret, keys] = there;
    write_new(&secret, &format!("{}\n", make_secret()))?;
    let (operator, record) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "operator".to_owned(),
        roles: vec!["operator".to_owned()],
        rights: Vec::new(),
        tenant: None,
        created_at: Utc::now().timestamp(),
        expires_at: None,
    });
    key::add(&keys, &record)?;
    write_new(&config, &text(args.listen, &anonymous, &secret, &keys))?;
    print::line(&operator)?;
    let config = config.display();
    print::say(&format!(
        "This is the key of an operator, who may do everything; it is not shown again. Next:\n  \
         zonewire serve --config {config}\n  \
         zonewire key make --config {config} --subject feed-1 --role publisher\n  \
         zonewire token mint --config {config} --subject alice --role trader\n  \
         ZONEWIRE_TOKEN=<key or token> zonewire stats"
    ));
    Ok(())
}

fn text(listen: SocketAddr, anonymous: &[String], secret: &Path, keys: &Path) -> String {
    // JSON strings and arrays are also valid TOML.
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let (keys, secret) = (quoted(keys), quoted(secret));
    let anonymous = serde_json::Value::from(anonymous.to_vec());
    format!(
        "# Written by `zonewire config init`; `zonewire config default` explains every setting.\n\n\
         [http]\n\
         listen = \"{listen}\"\n\n\
         [auth]\n\
         mode = \"on\"\n\
         # Of programs: publishers, workers, operators. `zonewire key make` adds to it.\n\
         keys_file = {keys}\n\
         # What may be done without showing anything, such as [\"subscribe:zone:public.*\"].\n\
         anonymous = {anonymous}\n\n\
         # Of people, whom your own service knows: it signs tokens with this secret by HS256, with `iss`, `aud`,\n\
         # `sub`, `exp`, `iat`, `jti` and `roles`. For an identity provider put its `iss` here, and in place of\n\
         # `secret_files` the address of its keys: keys = [\"https://id.example/.well-known/jwks.json\"].\n\
         [[auth.issuers]]\n\
         issuer = \"zonewire\"\n\
         audience = [\"zonewire\"]\n\
         secret_files = [{secret}]\n"
    )
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn what_it_writes_is_good_and_lets_nobody_in_without_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("a \"b\"");
        let init = |public: &[&str]| InitArgs {
            directory: at.clone(),
            listen: "0.0.0.0:8080".parse().unwrap(),
            public: public.iter().map(|zones| (*zones).to_owned()).collect(),
        };
        assert!(run(&init(&["a b"])).is_err() && !at.exists());
        run(&init(&["public.*"])).unwrap();
        let sources = Sources { file: Some(at.join(CONFIG)), ..Sources::default() };
        let config = Config::load(&sources).unwrap().config;
        assert!(config.auth.is_on());
        assert_eq!(config.auth.anonymous, ["subscribe:zone:public.*"]);
        assert_eq!(config.auth.issuers[0].secret_files, [at.canonicalize().unwrap().join(SECRET)]);
        let again = run(&init(&[])).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
        for name in [SECRET, KEYS, CONFIG] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(at.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }
}
