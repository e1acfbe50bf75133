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

    /// Runs the script by its hash, and sends the text only if the server does not know it (then it has not
    /// run yet).
    pub(super) async fn run<R: FromValue>(
        &self,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R> {
        self.run_with(Priority::Usual, commands, op, limit, keys, args).await
    }

    /// The same, with a priority.
    pub(super) async fn run_with<R: FromValue>(
        &self,
        priority: Priority,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R> {
        let mut words = Words::default();
        for key in &keys {
            words.push(key);
        }
        words.push_values(&args);
        self.send(priority, commands, op, limit, keys.len(), words).await
    }

    /// The same with words, of which the first `keys` are keys.
    pub(super) async fn send<R: FromValue>(
        &self,
        priority: Priority,
        commands: &Commands,
        op: &'static str,
        limit: Duration,
        keys: usize,
        words: Words,
    ) -> Result<R> {
        let words = words.whole();
        let of = |script: Value| {
            let mut all = Vec::with_capacity(2 + words.ends.len());
            all.extend([script, Value::from(keys.to_string())]);
            all.extend(words.values());
            all
        };
        let by_hash = of(self.called.clone());
        let answer = commands.call_with(priority, words.first(), "EVALSHA", by_hash).await;
        let answer: std::result::Result<R, Error> = match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let by_text = of(Value::from(self.text.as_str()));
                commands.call_with(priority, words.first(), "EVAL", by_text).await
            }
            answer => answer,
        };
        answer.map_err(|error| storage_error(op, limit, &error))
    }
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

    fn whole(self) -> WholeWords {
        WholeWords { bytes: self.bytes.into(), ends: self.ends }
    }
}

/// Words that can be sent repeatedly.
struct WholeWords {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl WholeWords {
    fn values(&self) -> impl Iterator<Item = Value> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| Value::Bytes(self.bytes.slice(begin..*end)))
    }

    /// The first key, which determines the server.
    fn first(&self) -> &str {
        let end = self.ends.first().copied().unwrap_or_default();
        std::str::from_utf8(&self.bytes[..end]).unwrap_or_default()
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
    to_all: LazyLock<Script>,
    to_the_shard: LazyLock<Script>,
}

impl Publishing {
    /// From two functions that pass the same text to [`to_all`] and [`to_the_shard`].
    pub(super) const fn new(to_all: fn() -> Script, to_the_shard: fn() -> Script) -> Self {
        Self { to_all: LazyLock::new(to_all), to_the_shard: LazyLock::new(to_the_shard) }
    }

    pub(super) fn script(&self, sharded: bool) -> &Script {
        if sharded { &self.to_the_shard } else { &self.to_all }
    }
}

/// A script that publishes with `PUBLISH`.
pub(super) fn to_all(parts: &[&str]) -> Script {
    Script::new(&[&["local publish = 'PUBLISH'\n"], parts].concat())
}

/// A script that publishes with `SPUBLISH`.
pub(super) fn to_the_shard(parts: &[&str]) -> Script {
    Script::new(&[&["local publish = 'SPUBLISH'\n"], parts].concat())
}

const APPEND_PARTS: &[&str] = &[CLOCK, TRIM, RULE, KEYS_OF_LATEST, include_str!("lua/log/append.lua")];
const APPEND_TOGETHER_PARTS: &[&str] = &[CLOCK, TRIM, RULE, include_str!("lua/log/append_together.lua")];

pub(super) static APPEND: Publishing =
    Publishing::new(|| to_all(APPEND_PARTS), || to_the_shard(APPEND_PARTS));

pub(super) static APPEND_TOGETHER: Publishing =
    Publishing::new(|| to_all(APPEND_TOGETHER_PARTS), || to_the_shard(APPEND_TOGETHER_PARTS));

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
