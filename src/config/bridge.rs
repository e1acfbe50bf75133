//! The environment variables of programs that exchange events over Redis without this gateway: which of
//! them configure the bridge, and which have no effect, which is reported. None of them prevents the
//! gateway from starting.

use std::collections::BTreeMap;

use super::Config;
use super::layers::Rank;
use super::settings::Setting;
use crate::bridge::is_prefix;

const PREFIX: &str = "REDIS_KEY_PREFIX";
const SCALING: &str = "ENABLE_REDIS_SCALING";
const PUBLISHING: &str = "REDIS_ENABLE_PUBLISHING";
const SUBSCRIPTION: &str = "REDIS_ENABLE_SUBSCRIPTION";

/// Variables without a meaning here, and why.
const MEANINGLESS: [(&str, &str); 2] = [
    ("REDIS_MAX_RETRIES", "the gateway connects to Redis again for as long as it runs"),
    (
        "REDIS_RETRY_DELAY",
        "the gateway connects to Redis again after 50 ms, and up to 800 ms after further tries",
    ),
];

type Environment = BTreeMap<String, String>;

/// Inserts the settings from these variables below those from `ZONEWIRE_*` and flags. Returns notices about
/// the variables that are ignored.
pub(super) fn take(environment: &Environment, settings: &mut Vec<Setting>) -> Vec<String> {
    let (mut found, mut notices) = (Vec::new(), Vec::new());
    let mut set = |path: &str, value: figment::value::Value, variables: &[&str]| {
        let several = if variables.len() == 1 { "variable" } else { "variables" };
        found.push(Setting {
            rank: Rank::SharedVariable,
            path: vec!["bridge".to_owned(), path.to_owned()],
            value,
            origin: format!("environment {several} {}", variables.join(", ")),
        });
    };
    if let Some(prefix) = value_of(environment, PREFIX) {
        if is_prefix(prefix) {
            set("prefix", prefix.into(), &[PREFIX]);
        } else {
            notices.push(format!("{PREFIX} is ignored: expected up to 64 bytes without control characters"));
        }
    }
    let mut read = |variable: &str| {
        let text = value_of(environment, variable)?;
        let read = boolean(text);
        if read.is_none() {
            notices.push(format!("{variable} is ignored: expected true or false"));
        }
        read
    };
    if let Some(enabled) = read(SCALING) {
        set("enabled", enabled.into(), &[SCALING]);
    }
    let (publishing, subscription) = (read(PUBLISHING), read(SUBSCRIPTION));
    let both = [(PUBLISHING, publishing), (SUBSCRIPTION, subscription)];
    let said: Vec<&str> = both.iter().filter(|(_, said)| said.is_some()).map(|(name, _)| *name).collect();
    if !said.is_empty() {
        match (publishing.unwrap_or(true), subscription.unwrap_or(true)) {
            (true, true) => set("role", "hybrid".into(), &said),
            (true, false) => set("role", "publish".into(), &said),
            (false, true) => set("role", "subscribe".into(), &said),
            (false, false) => set("enabled", false.into(), &said),
        }
    }
    for (variable, why) in MEANINGLESS {
        if value_of(environment, variable).is_some() {
            notices.push(format!("{variable} is ignored: {why}"));
        }
    }
    // They belong among the settings of the same rank.
    let place = settings.iter().position(|setting| setting.rank > Rank::SharedVariable);
    let place = place.unwrap_or(settings.len());
    settings.splice(place..place, found);
    notices
}

/// The variables that would configure the bridge, if it is off.
pub(super) fn without_effect(environment: &Environment, config: &Config) -> Option<String> {
    let is_off = value_of(environment, SCALING).and_then(boolean) == Some(false);
    if config.bridge.enabled || is_off {
        return None;
    }
    let is_yes =
        |variable: &&str| value_of(environment, variable).is_some_and(|text| boolean(text) == Some(true));
    let mut said: Vec<&str> = [PUBLISHING, SUBSCRIPTION].into_iter().filter(is_yes).collect();
    said.extend(value_of(environment, PREFIX).map(|_| PREFIX));
    let several = if said.len() == 1 { "has" } else { "have" };
    (!said.is_empty()).then(|| {
        format!(
            "{} {several} no effect, because events are not exchanged with other processes: set \
             {SCALING}=true, or bridge.enabled = true",
            said.join(", ")
        )
    })
}

fn value_of<'a>(environment: &'a Environment, variable: &str) -> Option<&'a str> {
    environment.get(variable).map(String::as_str).filter(|value| !value.is_empty())
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::environment as variables;
    use crate::config::{BridgeRole, Config, Loaded, Sources};

    fn load(environment: &[(&str, &str)]) -> Loaded {
        Config::load(&Sources { environment: variables(environment), ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_environment_of_other_processes_sets_the_bridge_up() {
        let loaded = load(&[
            ("ENABLE_REDIS_SCALING", "TRUE"),
            ("REDIS_KEY_PREFIX", "market:"),
            ("REDIS_ENABLE_SUBSCRIPTION", "0"),
        ]);
        let bridge = &loaded.config.bridge;
        assert_eq!(
            (bridge.enabled, bridge.prefix.as_str(), bridge.role),
            (true, "market:", BridgeRole::Publish)
        );
        assert_eq!(loaded.config.storage.redis.prefix, "zw", "the log has its own");
        assert_eq!(loaded.origins["bridge.role"], "environment variable REDIS_ENABLE_SUBSCRIPTION");
        assert_eq!(loaded.notices, [""; 0]);
    }

    #[test]
    fn both_roles_off_is_off_and_what_is_ours_comes_before() {
        let off = [
            ("ENABLE_REDIS_SCALING", "true"),
            ("REDIS_ENABLE_PUBLISHING", "false"),
            ("REDIS_ENABLE_SUBSCRIPTION", "no"),
        ];
        assert!(!load(&off).config.bridge.enabled);
        let ours = [
            off[0],
            off[1],
            off[2],
            ("ZONEWIRE_BRIDGE__ENABLED", "true"),
            ("ZONEWIRE_BRIDGE__ROLE", "subscribe"),
        ];
        let bridge = load(&ours).config.bridge;
        assert_eq!((bridge.enabled, bridge.role), (true, BridgeRole::Subscribe));
        let ours = [
            off[0],
            ("REDIS_KEY_PREFIX", "a:"),
            ("ZONEWIRE_BRIDGE__PREFIX", "b:"),
            ("ZONEWIRE_BRIDGE__DURABLE", "trade,exchange:*"),
        ];
        let bridge = load(&ours).config.bridge;
        assert_eq!((bridge.prefix.as_str(), bridge.durable.len()), ("b:", 2));
    }

    #[test]
    fn what_is_not_obeyed_is_said_and_nothing_keeps_the_gateway_from_starting() {
        for (variable, value, said) in [
            ("REDIS_MAX_RETRIES", "3", "is ignored: the gateway connects"),
            ("REDIS_RETRY_DELAY", "100", "is ignored: the gateway connects"),
            ("ENABLE_REDIS_SCALING", "maybe", "expected true or false"),
            ("REDIS_ENABLE_PUBLISHING", "2", "expected true or false"),
            ("REDIS_KEY_PREFIX", "a\nb", "control characters"),
            ("REDIS_KEY_PREFIX", "app:", "no effect"),
            ("REDIS_ENABLE_SUBSCRIPTION", "true", "no effect"),
        ] {
            let loaded = load(&[(variable, value)]);
            assert_eq!(loaded.config.bridge.enabled, Config::default().bridge.enabled);
            assert!(
                loaded.notices.iter().any(|notice| notice.contains(variable) && notice.contains(said)),
                "{variable}: {:?}",
                loaded.notices
            );
        }
        let silent = load(&[
            ("ENABLE_REDIS_SCALING", "false"),
            ("REDIS_KEY_PREFIX", "app:"),
            ("REDIS_MAX_RETRIES", ""),
        ]);
        assert_eq!(silent.notices, [""; 0], "it is off because it is said so");
    }
}
