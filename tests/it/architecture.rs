//! Which room and which crate may import which: imports point downwards only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may import. A new arrow gets its own commit.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("support", ""),
    ("model", "support"),
    ("protocol", "model support"),
    ("storage", "model support"),
    ("client", "protocol model support"),
    // It fetches keys from addresses.
    ("access", "client storage protocol model support"),
    ("channels", "storage protocol model support"),
    ("fleet", "storage protocol model support"),
    ("connections", "access channels storage protocol model support"),
    ("registry", "fleet channels storage protocol model support"),
    ("bridge", "channels storage protocol model support"),
    // They make requests to exchanges.
    ("feeds", "client channels storage protocol model support"),
    ("orders", "access channels storage protocol model support"),
    ("http", "access connections orders registry bridge feeds fleet channels storage protocol model support"),
    // Each room owns its part of the config; the zones of a feed are names.
    ("config", "access http connections orders feeds registry bridge channels storage model support"),
    (
        "gateway",
        "config access http connections orders feeds fleet registry bridge channels storage protocol model support",
    ),
    // It serves metrics as gateways do, and carries messages in the bridge's format.
    ("relay", "config http bridge storage protocol model support"),
    // It replays files with the readers of `feeds`.
    ("cli", "gateway relay config client feeds protocol model support"),
    // It lists the probes of parsers in all rooms.
    ("probes", "config http connections orders feeds registry bridge storage protocol model support"),
];

/// What the laboratory may use of the gateway: only what clients use, except where it measures a program that
/// embeds gateways, or the storage alone.
const LAB_MAY_IMPORT: &[&str] = &["cli", "client", "config", "gateway", "model", "registry", "storage"];

/// A room and what it imports, with a file that shows each.
type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// The imports that the map forbids.
fn faults(imports: &Imports) -> Vec<String> {
    let rooms: BTreeMap<&str, &str> = MAY_IMPORT.iter().copied().collect();
    let mut faults = Vec::new();
    for (room, targets) in imports {
        let Some(allowed) = rooms.get(room.as_str()) else {
            faults.push(format!("src/{room} is not in the map"));
            continue;
        };
        for (target, file) in targets {
            if target != room && !allowed.split_whitespace().any(|name| name == target) {
                faults.push(format!("{file}: `{room}` must not import `{target}`"));
            }
        }
    }
    faults
}

fn code_of(source: &str) -> String {
    source.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|l| [l, "\n"]).collect()
}

/// Names that follow `crate::`, or `super::super::` (which may reach up to the crate), in code.
fn imported(source: &str) -> BTreeSet<String> {
    let code = code_of(source);
    let mut names = BTreeSet::new();
    for (prefix, is_certain) in [("crate::", true), ("super::super::", false)] {
        let is_room = |name: &str| MAY_IMPORT.iter().any(|(room, _)| *room == name);
        names.extend(named_after(&code, prefix).into_iter().filter(|name| is_certain || is_room(name)));
    }
    names
}

/// The first names after a prefix in code, outside of string literals.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || "$\",".contains(c)) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let found = if rest.starts_with('{') { first_names(rest) } else { vec![first_name(rest)] };
        names.extend(found.into_iter().map(str::to_owned));
    }
    names.remove("");
    names
}

fn first_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of a group such as `{a, b::{c, d}}`: `a` and `b`.
fn first_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(c, '{' | ',') {
            names.push(first_name(group[at + 1..].trim_start()));
        }
    }
    names
}

/// The room that a file belongs to; `None` for `main.rs` and `lib.rs`.
fn room(file: &Path) -> Option<String> {
    let mut parts = file.iter();
    let first = parts.next()?.to_str()?;
    if parts.next().is_none() {
        let room = first.strip_suffix(".rs")?;
        return (!matches!(room, "main" | "lib")).then(|| room.to_owned());
    }
    Some(first.to_owned())
}

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn imports() -> Imports {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&src, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut imports = Imports::new();
    for path in files {
        let file = path.strip_prefix(&src).unwrap();
        let Some(room) = room(file) else { continue };
        let targets = imports.entry(room).or_default();
        for target in imported(&fs::read_to_string(&path).unwrap()) {
            targets.entry(target).or_insert_with(|| format!("src/{}", file.display()));
        }
    }
    imports
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let faults = faults(&imports());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_laboratory_uses_only_the_gateways_client_parts() {
    let mut files = Vec::new();
    source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/lab/src"), &mut files);
    assert!(files.len() > 30, "the sources were not found");
    for path in files {
        // Log targets are not imports.
        let code = code_of(&fs::read_to_string(&path).unwrap());
        let code: String = code.lines().filter(|line| !line.contains("log.level=")).collect();
        for name in named_after(&code, "zonewire::") {
            assert!(LAB_MAY_IMPORT.contains(&name.as_str()), "{} uses zonewire::{name}", path.display());
        }
    }
}

/// The manifest of the crate in this folder.
fn manifest(folder: &str) -> toml::Table {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
    fs::read_to_string(file).unwrap().parse().unwrap()
}

#[test]
fn the_gateway_does_not_depend_on_the_kit_or_the_laboratory() {
    let gateway = manifest("");
    for of_others in ["zonewire-kit", "zonewire-lab", "mio", "hdrhistogram"] {
        assert!(gateway["dependencies"].get(of_others).is_none(), "{of_others}");
    }
    assert_eq!(gateway["workspace"]["default-members"].as_array().unwrap(), &[".".into()]);
}

/// Otherwise the gateway could not be tested with the kit, nor a gateway of another version.
#[test]
fn the_kit_knows_nothing_of_the_gateways_library() {
    let kit = manifest("crates/kit");
    for needed in ["dependencies", "dev-dependencies"] {
        let needed = kit.get(needed).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        for name in needed {
            assert!(!name.starts_with("zonewire"), "{name}");
        }
    }
}

/// Third-party clients may use the protocol crate with any runtime.
#[test]
fn the_protocol_needs_no_runtime_and_no_server() {
    /// What it may depend on, including the optional generators of schemas.
    const MAY_NEED: [&str; 8] =
        ["chrono", "memchr", "schemars", "serde", "serde_json", "thiserror", "ts-rs", "uuid"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/protocol");
    for needed in manifest("crates/protocol")["dependencies"].as_table().unwrap().keys() {
        assert!(MAY_NEED.contains(&needed.as_str()), "{needed}");
    }
    let mut files = Vec::new();
    source_files(&folder.join("src"), &mut files);
    for path in files {
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for does_io in ["std::fs", "std::net", "std::thread", "std::env", "std::process"] {
            assert!(!code.contains(does_io), "{} uses {does_io}", path.display());
        }
    }
}

#[test]
fn every_room_of_the_map_exists() {
    let imports = imports();
    for (room, _) in MAY_IMPORT {
        assert!(imports.contains_key(*room), "there is no src/{room}");
    }
}

#[test]
fn arrows_go_down_only() {
    // The map lists each room after everything that it imports, so there can be no cycle.
    for (place, (room, allowed)) in MAY_IMPORT.iter().enumerate() {
        for target in allowed.split_whitespace() {
            assert!(MAY_IMPORT[..place].iter().any(|(lower, _)| *lower == target), "{room} -> {target}");
        }
    }
}

#[test]
fn a_forbidden_import_is_noticed() {
    for (source, expected) in [
        ("use crate::http::HttpConfig;", &["http"][..]),
        ("use crate::{http::X, model::{Zone, crate_name}, storage};", &["http", "model", "storage"]),
        ("fn f() { let x = crate::connections::y(); }", &["connections"]),
        ("use super::super::channels::Z; use super::super::neighbour;", &["channels"]),
        ("// use crate::http;\n/// [`crate::http`]\nuse other_crate::http;", &[]),
    ] {
        let names = imported(source);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{source}");
    }
    let example = |room: &str, target: &str| {
        Imports::from([(room.to_owned(), BTreeMap::from([(target.to_owned(), "src/x.rs".to_owned())]))])
    };
    assert_eq!(faults(&example("model", "storage")), ["src/x.rs: `model` must not import `storage`"]);
    assert_eq!(faults(&example("connections", "http")).len(), 1, "up");
    assert_eq!(faults(&example("connections", "feeds")).len(), 1, "beside");
    assert_eq!(faults(&example("http", "gateway")).len(), 1, "the root");
    assert_eq!(faults(&example("channels", "model")), [""; 0], "down");
    assert_eq!(faults(&example("cellar", "model")), ["src/cellar is not in the map"]);
}
