//! The default configuration as a file: the one place where settings are explained to users. Tests check
//! that it has every key with its default, and that `docs/CONFIG.md` repeats it.

/// A commented TOML file with every key and its default.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use crate::config::settings::known_keys;
    use crate::config::{Config, DEFAULT_TOML};

    /// Tables whose keys are chosen by users.
    const OPEN: [&str; 5] =
        ["channels.lanes", "channels.zone_ahead_max_s", "feeds.replay.rename", "auth.roles", "limits.roles"];

    /// A key as the file explains it.
    #[derive(Debug, PartialEq)]
    struct Entry {
        section: String,
        key: String,
        value: String,
        doc: String,
    }

    /// Comments above `key = value` explain the key; `#key = value` is a key without a default.
    fn entries() -> Vec<Entry> {
        let (mut entries, mut section, mut doc) = (Vec::new(), String::new(), Vec::new());
        for line in DEFAULT_TOML.lines() {
            if let Some(text) = line.strip_prefix("# ") {
                doc.push(text);
            } else if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
                doc.clear();
            } else if let Some((key, value)) = line.split_once(" = ") {
                let (key, unset) = key.strip_prefix('#').map_or((key, false), |key| (key, true));
                let value = if unset { "unset".to_owned() } else { value.to_owned() };
                let doc = std::mem::take(&mut doc).join(" ");
                entries.push(Entry { section: section.clone(), key: key.to_owned(), value, doc });
            } else {
                doc.clear();
            }
        }
        entries
    }

    #[test]
    fn the_file_is_the_default() {
        assert_eq!(toml::from_str::<Config>(DEFAULT_TOML).unwrap(), Config::default());
    }

    #[test]
    fn the_file_mentions_every_key_and_explains_it() {
        let entries = entries();
        let mentioned: Vec<String> =
            entries.iter().map(|entry| format!("{}.{}", entry.section, entry.key)).collect();
        for key in known_keys() {
            let is_there = if OPEN.contains(&key.as_str()) {
                mentioned.iter().any(|mentioned| mentioned.starts_with(&format!("{key}.")))
            } else {
                mentioned.contains(&key)
            };
            assert!(is_there, "`{key}` is not in default.toml");
        }
        for entry in entries {
            assert!(!entry.doc.is_empty(), "`{}.{}` is not explained", entry.section, entry.key);
        }
    }

    #[test]
    fn the_file_holds_with_everything_uncommented() {
        let all: String = DEFAULT_TOML
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        toml::from_str::<Config>(&all).unwrap();
    }

    fn reference() -> String {
        let mut out = String::new();
        let mut section = None;
        for entry in entries() {
            if section.as_ref() != Some(&entry.section) {
                write!(out, "\n### `[{}]`\n\n", entry.section).unwrap();
                out.push_str(
                    "| key | default | environment variable | meaning |\n| --- | --- | --- | --- |\n",
                );
                section = Some(entry.section.clone());
            }
            let Entry { section, key, value, doc } = entry;
            let is_open = OPEN.contains(&section.as_str());
            let (key, value) =
                if is_open { ("*name*".to_owned(), "none".to_owned()) } else { (format!("`{key}`"), value) };
            let value = if matches!(value.as_str(), "unset" | "none") { value } else { format!("`{value}`") };
            let name = if is_open { "<name>" } else { key.trim_matches('`') };
            let variable = format!("ZONEWIRE_{}__{name}", section.replace('.', "__")).to_uppercase();
            let variable = variable.replace("<NAME>", "<name>");
            writeln!(out, "| {key} | {value} | `{variable}` | {} |", doc.replace('|', "\\|")).unwrap();
        }
        out
    }

    /// `ZONEWIRE_UPDATE_DOCS=1 cargo test` rewrites the section.
    #[test]
    fn the_documentation_repeats_the_file() {
        const BEGIN: &str = "<!-- begin: written from src/config/default.toml by its tests -->\n";
        const END: &str = "<!-- end -->\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
        let found = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = found.split_once(BEGIN).unwrap();
        let (_, tail) = rest.split_once(END).unwrap();
        let expected = format!("{head}{BEGIN}{}\n{END}{tail}", reference());
        if std::env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        } else {
            assert_eq!(found, expected, "run with ZONEWIRE_UPDATE_DOCS=1 to write docs/CONFIG.md anew");
        }
    }
}
