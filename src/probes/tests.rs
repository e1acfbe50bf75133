//! Runs each probe on its corpus and on mutations of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::ALL;

/// How many mutations are made for each probe. They are the same in each run, so that a new failure comes
/// from a change in the code. `ZONEWIRE_PROBE_CASES=<count>` makes that many others, and `just fuzz` searches
/// guided by coverage.
const CASES: u32 = 1_000;

/// The largest mutated input; the last mutation may double its length.
const LEN_MAX: usize = 4_096;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The corpus of a probe: names of files, and their contents.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut kept: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    kept.sort();
    kept.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// The words of the fuzzer's dictionary, one per line in the form of JSON texts.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = fs::read_to_string(fuzz().join("words.dict")).unwrap();
    let words = lines.lines().filter(|line| line.starts_with('"'));
    words.map(|line| serde_json::from_str(line).unwrap()).collect()
});

/// A mutation.
#[derive(Debug, Clone)]
enum Change {
    /// Replaces a byte.
    Set(Index, u8),
    /// Removes or doubles the bytes between two offsets.
    Cut(Index, Index),
    Double(Index, Index),
    /// Inserts a word.
    Put(Index, Index),
    /// Replaces the rest by the tail of another corpus file.
    Splice(Index, Index, Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (place(), place()).prop_map(|(from, to)| Self::Cut(from, to)),
            (place(), place()).prop_map(|(from, to)| Self::Double(from, to)),
            (place(), place()).prop_map(|(at, word)| Self::Put(at, word)),
            (place(), place(), place()).prop_map(|(at, other, from)| Self::Splice(at, other, from)),
        ]
    }

    fn make(&self, bytes: &mut Vec<u8>, kept: &[(String, Vec<u8>)]) {
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        let between = |from: &Index, to: &Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Set(at, byte) => {
                let at = at.index(bytes.len().max(1));
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Self::Cut(from, to) => {
                bytes.drain(between(from, to, bytes));
            }
            Self::Double(from, to) => {
                let range = between(from, to, bytes);
                let twice = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, twice);
            }
            Self::Put(at, word) => {
                let at = place(at, bytes);
                bytes.splice(at..at, WORDS[word.index(WORDS.len())].bytes());
            }
            Self::Splice(at, other, from) => {
                bytes.truncate(place(at, bytes));
                let (_, other) = &kept[other.index(kept.len())];
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
        bytes.truncate(LEN_MAX);
    }
}

/// Runs a probe on its corpus and on mutations of it.
pub(super) fn check(name: &str, probe: fn(&[u8])) {
    let kept = kept(name);
    assert!(!kept.is_empty(), "{name} has no corpus");
    for (file, bytes) in &kept {
        let whole = std::panic::catch_unwind(|| probe(bytes));
        assert!(whole.is_ok(), "{file} makes {name} panic");
    }
    let made = (any::<Index>(), prop::collection::vec(Change::any(), 1..5));
    let made = made.prop_map(|(seed, changes)| {
        let mut bytes = kept[seed.index(kept.len())].1.clone();
        changes.iter().for_each(|change| change.make(&mut bytes, &kept));
        bytes
    });
    // What it finds belongs into the corpus, not into a file of seeds.
    let more = std::env::var("ZONEWIRE_PROBE_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config { cases: more.unwrap_or(CASES), failure_persistence: None, ..Config::default() };
    let fixed = || TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = match more {
        None => TestRunner::new_with_rng(config, fixed()),
        Some(_) => TestRunner::new(config),
    };
    let found = runner.run(&made, |bytes| {
        probe(&bytes);
        Ok(())
    });
    match found {
        Ok(()) => {}
        Err(TestError::Fail(why, bytes)) => {
            panic!("{name}: {why}; add this to fuzz/corpus/{name}: {}", bytes.escape_ascii())
        }
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

/// Without it the tests might run a probe that the fuzzer does not, or that has no corpus.
#[test]
fn each_probe_has_a_target_and_a_corpus() {
    let names: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names.len(), ALL.len());
    let manifest: toml::Table = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap().parse().unwrap();
    let targets = manifest["bin"].as_array().unwrap().iter().map(|bin| {
        let [name, path] = ["name", "path"].map(|field| bin[field].as_str().unwrap());
        assert_eq!(path, format!("targets/{name}.rs"));
        let target = fs::read_to_string(fuzz().join(path)).unwrap();
        let expected = format!(
            "#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| zonewire::probes::{name}(bytes));\n"
        );
        assert_eq!(target, expected, "{path}");
        name.to_owned()
    });
    assert_eq!(targets.collect::<BTreeSet<_>>(), names, "fuzz/Cargo.toml");
    for folder in ["corpus", "targets"] {
        let there = fs::read_dir(fuzz().join(folder)).unwrap();
        let there =
            there.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned());
        assert_eq!(there.collect::<BTreeSet<_>>(), names, "fuzz/{folder}");
    }
}
