//! The effective values, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use zonewire_protocol::SettingView;

use super::{Config, Loaded};

/// JSON, because TOML has neither null nor the larger half of the unsigned integers.
fn sections(config: &Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(sections)) => sections,
        _ => Map::new(),
    }
}

/// All settings, with secrets masked.
pub(super) fn settings(loaded: &Loaded) -> Vec<SettingView> {
    let (mut found, mut defaults) = (Vec::new(), BTreeMap::new());
    each_setting(&Config::default(), &mut |key, value| {
        defaults.insert(key.to_owned(), value.clone());
    });
    each_setting(&loaded.config.masked(), &mut |key, value| {
        if !value.is_object() {
            let is_default = defaults.get(key) == Some(value);
            let origin = loaded.origins.get(key).cloned();
            let origin = origin.or_else(|| is_default.then(|| "default".to_owned()));
            found.push(SettingView { key: key.to_owned(), value: value.clone(), origin });
        }
    });
    found
}

/// Calls `to` with the key and the value of each setting. For a table, it does so with each setting in it,
/// and for an empty one, whose keys users choose, with the table itself.
pub(super) fn each_setting(config: &Config, to: &mut dyn FnMut(&str, &Value)) {
    fn walk(key: &str, value: &Value, to: &mut dyn FnMut(&str, &Value)) {
        match value {
            Value::Object(table) if !table.is_empty() => {
                for (name, value) in table {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(&key, value, to);
                }
            }
            value => to(key, value),
        }
    }
    walk("", &Value::Object(sections(config)), to);
}

/// TOML with the origin of each value that is not a default. The configuration must already be masked.
pub(super) fn show(masked: &Config, origins: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (name, section) in &sections(masked) {
        if let Value::Object(section) = section {
            table(&mut out, name, section, origins);
        }
    }
    out
}

fn table(out: &mut String, path: &str, section: &Map<String, Value>, origins: &BTreeMap<String, String>) {
    let values = || section.iter().filter(|(_, value)| !value.is_object() && tables_of(value).is_none());
    if values().next().is_some() {
        head(out, format_args!("[{path}]"));
    }
    fields(out, path, values(), origins);
    for (name, value) in section {
        let inner = format!("{path}.{}", key(name));
        if let Value::Object(section) = value {
            table(out, &inner, section, origins);
        }
        for section in tables_of(value).into_iter().flatten() {
            let origin = origin_of(origins, &format!("{path}.{name}"));
            head(out, format_args!("[[{inner}]]{origin}"));
            fields(out, &inner, section, origins);
        }
    }
}

fn fields<'a>(
    out: &mut String,
    path: &str,
    values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    origins: &BTreeMap<String, String>,
) {
    for (name, value) in values {
        let origin = origin_of(origins, &format!("{path}.{name}"));
        let name = key(name);
        match value {
            Value::Null => line(out, format_args!("#{name} is not set")),
            value => line(out, format_args!("{name} = {}{origin}", inline(value))),
        }
    }
}

/// A value on one line. JSON's escapes and lists are valid TOML; in a table, unset fields are left out.
fn inline(value: &Value) -> String {
    let Value::Object(table) = value else { return value.to_string() };
    let fields = table.iter().filter(|(_, value)| !value.is_null());
    let fields: Vec<String> =
        fields.map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// The tables of a list of tables, which cannot be a TOML value.
fn tables_of(value: &Value) -> Option<impl Iterator<Item = &Map<String, Value>>> {
    let list = value.as_array().filter(|list| !list.is_empty() && list.iter().all(Value::is_object))?;
    Some(list.iter().filter_map(Value::as_object))
}

fn origin_of(origins: &BTreeMap<String, String>, key: &str) -> String {
    origins.get(key).map(|origin| format!("  # {origin}")).unwrap_or_default()
}

fn head(out: &mut String, text: std::fmt::Arguments<'_>) {
    let gap = if out.is_empty() { "" } else { "\n" };
    line(out, format_args!("{gap}{text}"));
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
