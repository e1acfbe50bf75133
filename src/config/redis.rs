//! Decides which of the many ways to name a Redis counts, by rank: a URL's own parts are never overridden
//! by something of lower rank, such as an old `REDIS_PASSWORD`.

use std::collections::BTreeMap;

use url::Url;

use super::fault::Fault;
use super::layers::Rank;
use super::settings::Setting;
use crate::storage::RedisConfig;

const MASK: &str = "***";

/// The settings that the scheme of a URL, and its nodes, determine.
const KINDS: [&str; 4] = ["cluster", "nodes", "sentinel_service", "tls"];
const OF_SENTINELS: [&str; 2] = ["sentinel_username", "sentinel_password"];
const TLS_FILES: [&str; 3] = ["tls_ca_file", "tls_cert_file", "tls_key_file"];

/// Removes settings that one of higher rank replaces: a URL replaces host and port, determines the kind of
/// Redis and whether TLS is used, and replaces user, password and database if it contains them.
pub(super) fn settle(settings: &mut Vec<Setting>, faults: &mut Vec<Fault>) {
    let Some(url) = last(settings, "url") else { return };
    let (url_rank, parts) = (url.rank, Parts::of(url));
    if let Some(host) = last(settings, "host") {
        if host.rank == url_rank && url_rank != Rank::SharedVariable {
            let problem = "storage.redis.url is set as well, and names a host: set one of the two";
            faults.push(Fault::new(host.key(), &host.origin, problem));
        }
        if host.rank > url_rank {
            settings.retain(|setting| !is(setting, "url"));
            return;
        }
    }
    if let Some(port) = last(settings, "port").filter(|port| port.rank > url_rank) {
        let problem = "belongs to storage.redis.host, but storage.redis.url is set: put the port there";
        faults.push(Fault::new(port.key(), &port.origin, problem));
    }
    settings.retain(|setting| {
        let is_one_of = |names: &[&str]| names.iter().any(|name| is(setting, name));
        let is_replaced_below = (parts.username && is(setting, "username"))
            || (parts.password && is(setting, "password"))
            || (parts.db && is(setting, "db"))
            || is_one_of(&KINDS)
            || (!parts.sentinel && is_one_of(&OF_SENTINELS))
            || (!parts.tls && is_one_of(&TLS_FILES));
        let is_replaced = is_one_of(&["host", "port"]) || (setting.rank < url_rank && is_replaced_below);
        !is_replaced
    });
}

/// A port without a host means a Redis on this machine.
pub(super) fn complete(redis: &mut RedisConfig, origins: &mut BTreeMap<String, String>) {
    if redis.url.is_none() && redis.host.is_none() && redis.port.is_some() {
        redis.host = Some("127.0.0.1".to_owned());
        origins.insert("storage.redis.host".to_owned(), "because storage.redis.port is set".to_owned());
    }
}

/// Replaces secrets by `***`.
pub(super) fn mask(redis: &mut RedisConfig) {
    redis.url = redis.url.take().map(|url| masked_url(&url));
    redis.password = redis.password.take().map(|_| MASK.to_owned());
    redis.sentinel_password = redis.sentinel_password.take().map(|_| MASK.to_owned());
}

fn masked_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.cannot_be_a_base() {
        return MASK.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if let Some(query) = url.query() {
        let shown: Vec<String> = query.split('&').map(masked_parameter).collect();
        let shown = shown.join("&");
        url.set_query(Some(&shown));
    }
    url.set_fragment(None);
    url.to_string()
}

/// Nodes and the service are not secret; anything else may be.
fn masked_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some(("node" | "sentinelServiceName" | "sentinelUsername", _)) => pair.to_owned(),
        Some(("sentinelPassword", _)) => format!("sentinelPassword={MASK}"),
        _ => MASK.to_owned(),
    }
}

/// What a URL contains besides host and port; nothing if it is not valid.
#[derive(Default)]
struct Parts {
    username: bool,
    password: bool,
    db: bool,
    tls: bool,
    sentinel: bool,
}

impl Parts {
    fn of(url: &Setting) -> Self {
        let Some(Ok(url)) = url.value.as_str().map(Url::parse) else { return Self::default() };
        Self {
            username: !url.username().is_empty(),
            password: url.password().is_some(),
            db: url.path().len() > 1,
            tls: url.scheme().starts_with("rediss"),
            sentinel: url.scheme().ends_with("-sentinel"),
        }
    }
}

fn is(setting: &Setting, name: &str) -> bool {
    matches!(setting.path.as_slice(), [storage, redis, key] if storage == "storage" && redis == "redis" && key == name)
}

/// The setting of this name that counts.
fn last<'a>(settings: &'a [Setting], name: &str) -> Option<&'a Setting> {
    settings.iter().rfind(|setting| is(setting, name))
}
