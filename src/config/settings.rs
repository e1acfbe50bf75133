//! Single settings: turns what was read into a value of the right type, or a fault that says what would be
//! right.

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use super::fault::Fault;
use super::layers::Rank;
use super::show::each_setting;

/// figment's errors are large.
type BoxedError = Box<figment::Error>;

/// Tables whose keys are chosen by users.
pub(super) const OPEN_TABLES: [&[&str]; 4] = [
    &["channels", "lanes"],
    &["channels", "zone_ahead_max_s"],
    &["feeds", "replay", "rename"],
    &["auth", "roles"],
];

/// Removed keys, and removed values of keys, with what to set instead.
const GONE: [(&str, &str); 3] = [
    ("http.allow_unauthenticated", "set auth.mode = \"off\" instead"),
    (
        "storage.journal.spool.fsync = interval",
        "set \"always\", or \"never\" if a crash of the machine may cost the copy on disk",
    ),
    (
        "storage.journal.spool.fsync_interval_ms",
        "leave it out: storage.journal.spool.fsync is \"always\" or \"never\"",
    ),
];

/// What to set instead of a removed key, or of a removed value of a key.
fn instead_of(gone: &str) -> Option<String> {
    GONE.iter().find(|(known, _)| *known == gone).map(|(_, instead)| (*instead).to_owned())
}

/// Keys whose values are never shown.
pub(super) const SECRETS: [&str; 3] =
    ["storage.redis.url", "storage.redis.password", "storage.redis.sentinel_password"];

/// One setting as it was read.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) rank: Rank,
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    /// Which file, variable or flag, for people.
    pub(super) origin: String,
}

impl Setting {
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }

    /// A tree with only this setting.
    fn tree(&self, value: &Value) -> Dict {
        let mut inner = value.clone();
        for name in self.path.iter().skip(1).rev() {
            inner = Dict::from([(name.clone(), inner)]).into();
        }
        self.path.first().map(|name| Dict::from([(name.clone(), inner)])).unwrap_or_default()
    }

    /// Whether the value fits its key.
    fn fits(&self, value: &Value) -> Result<(), BoxedError> {
        Value::from(self.tree(value)).deserialize::<Config>().map(drop).map_err(Box::new)
    }

    /// The value in the type of its key. Variables and flags are text: the same digits may be a number or a
    /// password, depending on the key.
    fn typed(&self) -> Result<Value, BoxedError> {
        let as_text = match self.fits(&self.value) {
            Ok(()) => return Ok(self.value.clone()),
            Err(error) => error,
        };
        let Some(text) = self.value.as_str().filter(|_| self.rank > Rank::File) else { return Err(as_text) };
        let wants_list = matches!(&as_text.kind, Kind::InvalidType(_, expected) if expected == "a sequence");
        let parsed = match text.trim().parse::<Value>() {
            Ok(parsed) if !wants_list || parsed.as_array().is_some() => parsed,
            _ => text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<String>>().into(),
        };
        match self.fits(&parsed) {
            Ok(()) => Ok(parsed),
            // The fault is about what was parsed: `-9` is a number out of range, but `9o` is a text.
            Err(error) if parsed.as_str().is_none() => Err(error),
            Err(_) => Err(as_text),
        }
    }

    fn fault(&self, error: BoxedError) -> Fault {
        let key = self.key();
        let is_secret = SECRETS.contains(&key.as_str());
        let (key, problem, hint) = match error.kind {
            Kind::UnknownField(name, siblings) => {
                let depth =
                    self.path.iter().position(|part| *part == name).map_or(self.path.len(), |at| at + 1);
                let key = self.path[..depth].join(".");
                let hint = instead_of(&key).or_else(|| {
                    nearest(&self.path, depth, siblings).map(|near| format!("did you mean {near}?"))
                });
                (key, "there is no such key".to_owned(), hint)
            }
            Kind::UnknownVariant(found, variants) => {
                let hint = instead_of(&format!("{key} = {found}"));
                (key, format!("expected one of {}; found {found:?}", variants.join(", ")), hint)
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                let expected = in_words(&expected);
                let found = if is_secret { "something else".to_owned() } else { shown(&found) };
                (key, format!("expected {expected}; found {found}"), None)
            }
            Kind::Message(message) if message.contains("socket address") => {
                let expected = in_words("socket address");
                let found = self.value.as_str().map(|text| format!("; found {text:?}")).unwrap_or_default();
                (key, format!("expected {expected}{found}"), None)
            }
            _ if is_secret => (key, "expected text".to_owned(), None),
            Kind::Message(message) => (key, message, None),
            kind => (key, kind.to_string(), None),
        };
        Fault { key, origin: self.origin.clone(), problem, hint }
    }
}

/// The settings that fit, in the types of their keys; faults for the others.
pub(super) fn accept(settings: Vec<Setting>, faults: &mut Vec<Fault>) -> Vec<Setting> {
    let mut good = Vec::with_capacity(settings.len());
    for mut setting in settings {
        match setting.typed() {
            Ok(value) => {
                setting.value = value;
                good.push(setting);
            }
            Err(error) => {
                let fault = setting.fault(error);
                // An unknown table would cause a fault for each key in it.
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
    }
    good
}

/// One setting as a source for figment, which merges them by rank.
impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.tree(&self.value))]))
    }
}

/// Applies settings in ascending rank to the defaults.
pub(super) fn extract(settings: Vec<Setting>) -> Result<Config, BoxedError> {
    settings.into_iter().fold(Figment::new(), Figment::merge).extract().map_err(Box::new)
}

/// All keys. A table with free keys is one key.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    each_setting(&Config::default(), &mut |key, _| keys.push(key.to_owned()));
    keys
}

/// The key that was probably meant by an unknown one: one with a similar name in the same table, or
/// otherwise one with the same or a similar name elsewhere.
fn nearest(path: &[String], depth: usize, siblings: &[&str]) -> Option<String> {
    let unknown = &path[depth - 1];
    let beside = siblings.iter().map(|name| (distance(unknown, name), *name)).min();
    if let Some((_, name)) = beside.filter(|(distance, name)| *distance <= (name.len() / 3).max(1)) {
        let parents = path[..depth - 1].iter().map(String::as_str);
        return Some(parents.chain([name]).collect::<Vec<_>>().join("."));
    }
    let last = path.last()?;
    let full = path.join(".");
    let elsewhere = known_keys().into_iter().map(|key| {
        let name = key.rsplit('.').next().unwrap_or(&key);
        // The most common mistake is a single underscore instead of two between the parts.
        let flat = if key.replace('.', "_") == full.replace('.', "_") { 0 } else { usize::MAX };
        (flat.min(distance(last, name)), key)
    });
    let (distance, key) = elsewhere.min()?;
    let name_len = key.rsplit('.').next().map_or(0, str::len);
    (distance <= name_len / 4).then_some(key)
}

/// How many letters must be changed, added, removed or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let is_other = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j - 1] + is_other).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// A type's name for people who do not write Rust.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "string" | "path string" => "text",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        "socket address" => "an address and a port such as 127.0.0.1:8080",
        "a map" => "a table",
        table if table.starts_with("struct ") => "a table",
        choice if choice.starts_with("enum ") || choice == "string or map" => "one of the words for this key",
        other => other,
    };
    words.to_owned()
}

fn shown(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Str(text) => format!("{text:?}"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips_of_the_finger() {
        for (a, b, expected) in [("", "ab", 2), ("listen", "lisetn", 1), ("url", "uri", 1), ("max", "max", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn every_key_is_known_also_those_without_a_default() {
        let keys = known_keys();
        for key in ["http.listen", "storage.redis.url", "channels.lanes", "feeds.replay.file", "log.level"] {
            assert!(keys.iter().any(|known| known == key), "{key} is not in {keys:?}");
        }
    }
}
