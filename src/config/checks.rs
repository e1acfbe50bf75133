//! Whether values are valid, each by itself and together. Rooms check their own settings; the rest is checked
//! here.

use std::path::Path;

use super::show::each_setting;
use super::{AuthConfig, AuthMode, Config};
use crate::storage::{StorageChoice, StorageConfig};
use crate::support::checks::{Checks, Finding};

/// All invalid settings.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let rooms = [
        config.node.check(config.storage.backend),
        check_listen(config),
        config.http.check(),
        config.connections.check(),
        config.limits.check(),
        config.channels.check(),
        check_storage(&config.storage),
        config.orders.check(),
        config.registry.check(),
        config.feeds.check(),
        config.bridge.check(),
        config.log.check(),
        check_auth(&config.auth),
        check_times(config),
        check_together(config),
    ];
    rooms.concat()
}

fn check_storage(storage: &StorageConfig) -> Vec<Finding> {
    let StorageConfig { memory, redis, retention, journal, .. } = storage;
    let mut checks = Checks::of("storage");
    checks.add(memory.check_ranges());
    checks.add(retention.check_ranges());
    checks.add(retention.orders.check_ranges());
    checks.add(journal.check_ranges());
    checks.add(journal.spool.check_ranges());
    checks.add(redis.check_ranges());
    checks.require("required", !storage.required || storage.backend == StorageChoice::Redis, || {
        "goes only with storage.backend = \"redis\": set that, or leave this out".to_owned()
    });
    checks.require("retention.bytes", retention.bytes <= memory.total_bytes, || {
        format!(
            "expected at most storage.memory.total_bytes ({}), found {}",
            memory.total_bytes, retention.bytes
        )
    });
    if let Some(dir) = &memory.data_dir {
        check_directory(&mut checks, "memory.data_dir", dir, "to keep nothing");
        // Memory that replaces Redis in an outage is reconciled with it, and Redis has what has to survive.
        checks.require("memory.data_dir", storage.backend == StorageChoice::Memory, || {
            "goes only with storage.backend = \"memory\" (--storage memory): set that, or leave this out; \
             where Redis may serve, storage.journal.spool.data_dir keeps what Redis does not have yet"
                .to_owned()
        });
    }
    if let Some(dir) = &journal.spool.data_dir {
        check_directory(&mut checks, "journal.spool.data_dir", dir, "for no spool");
    }
    let has_host =
        redis.host.as_ref().is_none_or(|host| !host.trim().is_empty() && !host.contains(['/', '@', ' ']));
    checks.require("redis.host", has_host, || {
        "expected a host name or an address; a URL goes into storage.redis.url".to_owned()
    });
    checks.require("redis.port", redis.port != Some(0), || "expected 1 to 65535, found 0".to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    checks.require("redis.prefix", !redis.prefix.is_empty() && redis.prefix.chars().all(is_plain), || {
        format!("expected at least one of A-Z a-z 0-9 . _ : -, found {:?}", redis.prefix)
    });
    let mut found = checks.finish();
    if found.iter().all(|found| !found.key.starts_with("storage.redis.")) {
        let mut together = Checks::of("storage");
        let problem = redis.check().err();
        let key = if redis.url.is_some() { "redis.url" } else { "redis" };
        together.require(key, problem.is_none(), || problem.unwrap_or_default());
        found.extend(together.finish());
    }
    found
}

fn check_directory(checks: &mut Checks, key: &str, dir: &Path, without: &str) {
    checks.require(key, !dir.as_os_str().is_empty(), || {
        format!("expected a directory, found nothing; leave it out {without}")
    });
    let taken = taken_by_a_file(dir);
    checks.require(key, taken.is_none(), || {
        format!("expected a directory; {} is not one", taken.unwrap_or_default())
    });
}

fn check_auth(auth: &AuthConfig) -> Vec<Finding> {
    let wrong = auth.check().into_iter();
    wrong.map(|(key, problem)| Finding { key: format!("auth.{key}"), problem }).collect()
}

/// Other machines must not reach a gateway without authentication, unless that is configured explicitly.
fn check_listen(config: &Config) -> Vec<Finding> {
    let mut checks = Checks::of("http");
    let is_settled = config.auth.is_on() || config.auth.mode == Some(AuthMode::Off);
    let of_operators = config.http.operators.listen.map(|listen| ("operators.listen", listen));
    for (key, listen) in [("listen", config.http.listen)].into_iter().chain(of_operators) {
        let is_guarded = is_settled || listen.ip().to_canonical().is_loopback();
        checks.require(key, is_guarded, || {
            format!(
                "{listen} can be reached from other machines, and authentication is off: set up \
             authentication (`zonewire config init` writes a configuration that works), listen on a loopback \
             address such as 127.0.0.1, or set auth.mode = \"off\""
            )
        });
    }
    checks.finish()
}

/// What prevents the creation of a directory.
fn taken_by_a_file(dir: &Path) -> Option<String> {
    let nearest = dir.ancestors().find(|ancestor| ancestor.exists())?;
    (!nearest.is_dir()).then(|| nearest.display().to_string())
}

/// No time may be longer than a year, because adding it to an instant must not overflow the clock.
fn check_times(config: &Config) -> Vec<Finding> {
    const YEAR_S: u64 = 366 * 24 * 3600;
    let mut found = Vec::new();
    each_setting(config, &mut |key, value| {
        let max = if key.ends_with("_ms") { YEAR_S * 1_000 } else { YEAR_S };
        let is_time = key.ends_with("_ms") || (key.ends_with("_s") && !key.ends_with("_per_s"));
        if let Some(time) = value.as_u64().filter(|time| is_time && *time > max) {
            let problem = format!("expected at most {max} (a year), found {time}");
            found.push(Finding { key: key.to_owned(), problem });
        }
    });
    found
}

/// Checks that concern more than one room.
fn check_together(config: &Config) -> Vec<Finding> {
    let mut checks = Checks::of("connections");
    let (held, line) = (config.connections.outbox_bytes_max, config.http.line_bytes_max);
    checks.require("outbox_bytes_max", held >= line, || {
        format!(
            "expected at least http.line_bytes_max ({line}), so that every entry can be sent; found {held}"
        )
    });
    // Client certificates concern TLS, authentication, and the pages that may use the gateway.
    let mut auth = Checks::of("auth");
    let (is_any, http) = (!config.auth.certificates.is_empty(), &config.http);
    auth.require("certificates", !is_any || http.tls.client_ca_file.is_some(), || {
        "no client could show a certificate: name the authorities that sign them in http.tls.client_ca_file"
            .to_owned()
    });
    // A browser sends its certificate with the requests of any page, as it does with cookies.
    let is_open = http.origins.iter().any(|origin| origin == "*" || origin == "null");
    auth.require("certificates", !is_any || !is_open, || {
        "cannot be combined with \"*\" or \"null\" in http.origins: any page could act with the certificate of whoever \
         looks at it; list the origins of your own pages"
            .to_owned()
    });
    checks.add(auth);
    checks.finish()
}
