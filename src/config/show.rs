//! The effective values, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Config;

/// TOML with the origin of each value that is not a default. The config must be masked already.
pub(super) fn show(masked: &Config, origins: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    // JSON, because TOML knows neither "not set" nor the larger half of the whole numbers.
    if let Ok(Value::Object(sections)) = serde_json::to_value(masked) {
        for (name, section) in &sections {
            if let Value::Object(section) = section {
                table(&mut out, name, section, origins);
            }
        }
    }
    out
}

fn table(out: &mut String, path: &str, section: &Map<String, Value>, origins: &BTreeMap<String, String>) {
    let values = || section.iter().filter(|(_, value)| !value.is_object());
    if values().next().is_some() {
        let gap = if out.is_empty() { "" } else { "\n" };
        line(out, format_args!("{gap}[{path}]"));
    }
    for (name, value) in values() {
        let origin = origins.get(&format!("{path}.{name}"));
        let origin = origin.map(|origin| format!("  # {origin}")).unwrap_or_default();
        let name = key(name);
        match value {
            Value::Null => line(out, format_args!("#{name} is not set")),
            // JSON's escapes are TOML's, and its lists too.
            value => line(out, format_args!("{name} = {value}{origin}")),
        }
    }
    for (name, value) in section {
        if let Value::Object(inner) = value {
            table(out, &format!("{path}.{}", key(name)), inner, origins);
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let written = writeln!(out, "{text}");
    debug_assert!(written.is_ok());
}

fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { format!("{name:?}") }
}
