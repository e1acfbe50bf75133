//! A probe of the parser of settings: see [`crate::probes`].

use std::collections::BTreeMap;

use super::{Config, Loaded, Sources, layers};
use crate::support::probing::text;

/// Separates the file from the environment.
const ENVIRONMENT: &str = "\n--- environment\n";

/// The secret in the probe's inputs; no output may contain it.
const SECRET: &str = "hunter2";

/// A file of settings, and after the separator variables as `NAME=value`.
pub(crate) fn settings(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (file, variables) = text.split_once(ENVIRONMENT).unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let environment: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match load(file, environment) {
        Ok(loaded) => {
            // The settings as shown must parse to the same settings.
            let shown = loaded.show();
            assert!(!has_secret(&loaded, &shown), "a secret is shown: {shown}");
            let again = load(&shown, BTreeMap::new());
            let again = again.unwrap_or_else(|problem| panic!("{problem}\n{shown}"));
            assert_eq!(again.config.masked(), loaded.config.masked(), "{shown}");
        }
        Err(problem) => {
            assert!(!problem.chars().any(|c| c.is_control() && c != '\n'), "{problem:?}");
        }
    }
}

fn load(file: &str, environment: BTreeMap<String, String>) -> Result<Loaded, String> {
    let (mut settings, mut faults) = (Vec::new(), Vec::new());
    match layers::of_file(file, "file probe.toml") {
        Ok(said) => settings.extend(said),
        Err(fault) => faults.push(fault),
    }
    settings.extend(layers::of_environment(&environment));
    let sources = Sources { environment, ..Sources::default() };
    Config::of(&sources, None, settings, faults).map_err(|error| error.to_string())
}

/// Whether the password of Redis is shown.
fn has_secret(loaded: &Loaded, shown: &str) -> bool {
    let redis = &loaded.config.storage.redis;
    let secrets = [redis.password.as_deref(), redis.sentinel_password.as_deref()];
    secrets.into_iter().flatten().any(|secret| secret.contains(SECRET) && shown.contains(secret))
}
