//! Each probe, on what is kept in `fuzz/corpus` and on what is nearly that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::ALL;

/// How many inputs are made for each probe: the same ones each time, so that what fails here is what was changed.
/// `ZONEWIRE_PROBE_CASES=<count>` makes so many others, and `just fuzz` looks for them by what they reach.
const CASES: u32 = 1_000;

/// The longest one; a change may double what it changes.
const LEN_MAX: usize = 4_096;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What is kept for a probe, by the names of files.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut kept: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    kept.sort();
    kept.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Words that parsers look for, as the fuzzer is given them: each is a line, and JSON.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = fs::read_to_string(fuzz().join("words.dict")).unwrap();
    let words = lines.lines().filter(|line| line.starts_with('"'));
    words.map(|line| serde_json::from_str(line).unwrap()).collect()
});

/// Something that is done to bytes.
#[derive(Debug, Clone)]
enum Change {
    /// A byte is another one.
    Set(Index, u8),
    /// What lies between two places is gone, or there twice.
    Cut(Index, Index),
    Double(Index, Index),
    /// A word is put in.
    Put(Index, Index),
    /// From a place on it is another one of what is kept, from a place on.
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

/// Has a probe look at all that is kept for it, and at what is made of that.
pub(super) fn check(name: &str, probe: fn(&[u8])) {
    let kept = kept(name);
    assert!(!kept.is_empty(), "nothing is kept for {name}");
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
    // What it finds goes into the corpus, and not into a file of seeds.
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
            panic!("{name}: {why}; keep this in fuzz/corpus/{name}: {}", bytes.escape_ascii())
        }
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

/// Else a parser would be tried by the tests and not by the fuzzer, or nothing would be kept for it.
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
