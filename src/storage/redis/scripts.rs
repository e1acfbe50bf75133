//! Runs Lua scripts, and defines those of the log, of records and of outside updates. They are in `lua/`,
//! each with its arguments and answers in its head comment, and are assembled from parts: "follows" names the
//! parts that come before. Each script declares every key that it touches, so that it also runs in a cluster
//! and on relatives of Redis.
//!
//! Lua's numbers are doubles: offsets, sequences and byte counts are exact up to 2^53. They are written with
//! `%.0f`, because Lua's default conversion is not exact.

use std::fmt;
use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use fred::error::Error;
use fred::types::{FromValue, Value};

use super::EXACT_MAX;
use super::commands::{Commands, Priority};
use super::errors::storage_error;
use crate::storage::Result;

/// A script and its hash.
pub(super) struct Script {
    text: String,
    hash: String,
    /// The hash as a call's argument; cloning it does not copy the text.
    called: Value,
}

impl Script {
    pub(super) fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = fred::util::sha1_hash(&text);
        let called = Value::from(hash.as_str());
        Self { text, hash, called }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Runs the script.
    pub(super) async fn run<R: FromValue>(
        &self,
        commands: &Commands,
        op: &'static str,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R> {
        self.send(Priority::Usual, commands, op, keys.len(), Words::of(&keys, &args)).await
    }

    /// Runs the script with words, of which the first `keys` are keys. It is called by its hash, and its text is
    /// sent only if the server does not know it (then it has not run yet).
    pub(super) async fn send<R: FromValue>(
        &self,
        priority: Priority,
        commands: &Commands,
        op: &'static str,
        keys: usize,
        Words { bytes, ends }: Words,
    ) -> Result<R> {
        let bytes = Bytes::from(bytes);
        let of = |script: Value| -> Vec<Value> {
            let begins = std::iter::once(0).chain(ends.iter().copied());
            let words = begins.zip(&ends).map(|(begin, end)| Value::Bytes(bytes.slice(begin..*end)));
            [script, text(keys)].into_iter().chain(words).collect()
        };
        // The first key determines the server.
        let first = ends.first().and_then(|end| std::str::from_utf8(&bytes[..*end]).ok()).unwrap_or_default();
        let answer = commands.call(priority, first, "EVALSHA", of(self.called.clone())).await;
        let answer: std::result::Result<R, Error> = match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                commands.call(priority, first, "EVAL", of(Value::from(self.text.as_str()))).await
            }
            answer => answer,
        };
        answer.map_err(|error| storage_error(op, commands.limit(), &error))
    }
}

/// Numbers are sent as text, because fred would send large ones as floats.
pub(super) fn text(value: impl ToString) -> Value {
    Value::from(value.to_string())
}

/// A duration as the scripts of logs and records expect it.
pub(super) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(EXACT_MAX / 4)
}

/// The arguments of a call in one piece of memory: there are dozens of them, most of them short.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    bytes: Vec<u8>,
    /// The end of each word.
    ends: Vec<usize>,
}

impl Words {
    pub(super) fn with_capacity(words: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(words) }
    }

    pub(super) fn of(keys: &[String], args: &[Value]) -> Self {
        let mut words = Self::default();
        keys.iter().for_each(|key| words.push(key));
        words.push_values(args);
        words
    }

    pub(super) fn push(&mut self, word: impl fmt::Display) {
        write!(self.bytes, "{word}").expect("memory takes what is written");
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push_bytes(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push_values(&mut self, values: &[Value]) {
        for value in values {
            match value.as_bytes() {
                Some(bytes) => self.push_bytes(bytes),
                None => self.push(value.as_string().unwrap_or_default()),
            }
        }
    }
}

const CLOCK: &str = include_str!("lua/clock.lua");
const TRIM: &str = include_str!("lua/log/trim.lua");
const RULE: &str = include_str!("lua/log/rule.lua");
const TOGETHER: &str = include_str!("lua/log/together.lua");
const KEYS_OF_LATEST: &str = include_str!("lua/log/keys_of_latest.lua");
const PRUNE: &str = include_str!("lua/records/prune.lua");

/// A script that publishes: on all nodes of a cluster, or on those with the channel's slot.
pub(super) struct Publishing {
    to_all: Script,
    sharded: Script,
}

impl Publishing {
    pub(super) fn new(parts: &[&str]) -> Self {
        let with = |command| Script::new(&[&[command], parts].concat());
        Self { to_all: with("local publish = 'PUBLISH'\n"), sharded: with("local publish = 'SPUBLISH'\n") }
    }

    pub(super) fn script(&self, sharded: bool) -> &Script {
        if sharded { &self.sharded } else { &self.to_all }
    }
}

pub(super) static APPEND: LazyLock<Publishing> = LazyLock::new(|| {
    Publishing::new(&[CLOCK, TRIM, RULE, KEYS_OF_LATEST, include_str!("lua/log/append.lua")])
});

pub(super) static APPEND_TOGETHER: LazyLock<Publishing> =
    LazyLock::new(|| Publishing::new(&[CLOCK, TRIM, RULE, include_str!("lua/log/append_together.lua")]));

pub(super) static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("lua/log/renew.lua")]));

pub(super) static OPEN: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[CLOCK, include_str!("lua/log/open.lua")]));

pub(super) static READ: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[CLOCK, TRIM, TOGETHER, include_str!("lua/log/read.lua")]));

pub(super) static KEYS: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[CLOCK, KEYS_OF_LATEST, include_str!("lua/log/keys.lua")]));

pub(super) static LATEST: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("lua/log/latest.lua")]));

/// A script of records and leases.
fn of_records(text: &str) -> Script {
    Script::new(&[CLOCK, PRUNE, text])
}

pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| of_records(include_str!("lua/records/put.lua")));
pub(super) static HOLD: LazyLock<Script> = LazyLock::new(|| of_records(include_str!("lua/records/hold.lua")));
pub(super) static LET_GO: LazyLock<Script> =
    LazyLock::new(|| of_records(include_str!("lua/records/let_go.lua")));
pub(super) static GET: LazyLock<Script> = LazyLock::new(|| of_records(include_str!("lua/records/get.lua")));
pub(super) static DELETE: LazyLock<Script> =
    LazyLock::new(|| of_records(include_str!("lua/records/delete.lua")));
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| of_records(include_str!("lua/records/list.lua")));

pub(super) static WRITE_OUTSIDE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("lua/outside/write.lua")]));

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_script_states_its_arguments_and_answers() {
        let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage/redis/lua"));
        assert!(files.len() > 20);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
            let has = |word: &str| head.iter().any(|line| *line == format!("-- {word}"));
            let is_part =
                head.iter().any(|line| line.starts_with("-- Part of ") || line.contains("Begins each"));
            assert!(!head.is_empty(), "{}", file.display());
            assert!(is_part || ["KEYS", "ARGV", "Answers"].into_iter().all(has), "{}", file.display());
        }
    }
}
