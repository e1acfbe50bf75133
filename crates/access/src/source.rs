//! When each source of keys is read again, and what its failures mean. Decides only; the caller reads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::short_hash;
use crate::keys::{Key, KeyNumber};
use crate::settings::Place;

/// How often a file is read, in seconds: a key removed from it is invalid after that.
const FILE_EVERY_S: i64 = 1;

/// How long keys from an address are fresh if its answer does not say, and the limits on what it may say,
/// in seconds.
const FRESH_S: i64 = 300;
const FRESH_LEAST_S: i64 = 60;
const FRESH_MOST_S: i64 = 3_600;

/// The delay before the next try after a failure, in seconds; it doubles with each further failure.
const AGAIN_LEAST_S: i64 = 1;
const AGAIN_MOST_S: i64 = 60;

/// When a token names an unknown key, the address is read at once, but not sooner than this after the
/// previous read, in seconds: anybody can make up names of keys.
const WANTED_EVERY_S: i64 = 10;

/// How long unknown names of keys are remembered, in seconds, and how many.
const NAMES_FOR_S: i64 = 60;
const NAMES_MAX: usize = 1_024;

/// A key that an address no longer lists still counts for current clients until it has been missing for
/// this long, in seconds, and a second answer confirms it: one of several servers may lag behind the
/// others.
const GONE_FOR_S: i64 = 10;

/// What a source contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Public keys of an issuer.
    Public(usize),
    /// A secret of an issuer.
    Secret(usize),
    /// API keys.
    ApiKeys,
}

impl Contents {
    /// The issuer whose tokens its keys verify; `None` for API keys.
    pub(crate) fn issuer(self) -> Option<usize> {
        match self {
            Self::Public(issuer) | Self::Secret(issuer) => Some(issuer),
            Self::ApiKeys => None,
        }
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) list: Vec<Source>,
    /// Counts the reads of all sources.
    round: u64,
    /// Unknown keys that tokens have named, by a digest of issuer and name.
    named: HashMap<u64, Named>,
}

/// When an unknown key was named.
#[derive(Debug, Clone, Copy)]
struct Named {
    round: u64,
    at: i64,
}

impl Sources {
    pub(crate) fn new(list: Vec<Source>) -> Self {
        Self { list, ..Self::default() }
    }

    /// The indices of the sources that should be read now. Each counts as read from now on.
    pub(crate) fn begin_due(&mut self, now: i64) -> Vec<usize> {
        let mut begun = Vec::new();
        for (index, source) in self.list.iter_mut().enumerate() {
            if source.begin_if_due(now, self.round + 1) {
                self.round += 1;
                begun.push(index);
            }
        }
        begun
    }

    /// Called when a token names an unknown key, or its issuer has no keys at all. Returns after how many
    /// seconds to try again; `None` if all sources of the issuer have been read since the key was first
    /// named, and do not have it.
    ///
    /// The memory is bounded, because anybody can make up names of keys. A flood of them does not make
    /// sources be read sooner; at worst, clients with really unknown keys are told to try again.
    pub(crate) fn want(&mut self, issuer: usize, name: Option<&str>, now: i64) -> Option<u32> {
        let digest = short_hash(&[b"kid", &issuer.to_be_bytes(), name.unwrap_or_default().as_bytes()]);
        self.named.retain(|_, named| now.saturating_sub(named.at) < NAMES_FOR_S);
        if self.named.len() >= NAMES_MAX && !self.named.contains_key(&digest) {
            self.named.clear();
        }
        let named = *self.named.entry(digest).or_insert(Named { round: self.round, at: now });
        let places = self.list.iter_mut().filter(|source| source.contents == Contents::Public(issuer));
        places.filter_map(|source| source.want(named.round, now)).max()
    }
}

/// A source of keys and its condition.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) contents: Contents,
    pub(crate) place: Place,
    due: i64,
    asked: i64,
    /// The number of the latest read of it, and of the latest that succeeded.
    asked_in: u64,
    answered_in: u64,
    is_being_asked: bool,
    failures: u32,
    /// The latest usable text.
    pub(crate) text: Option<Arc<str>>,
    /// The keys in it that verify tokens.
    pub(crate) keys: Vec<Key>,
    /// Keys that are no longer in it, and since when, until their removal is confirmed.
    gone: Vec<(KeyNumber, i64)>,
    /// When the text was last confirmed.
    pub(crate) confirmed_at: Option<i64>,
    /// The latest failure, if the latest read failed.
    pub(crate) problem: Option<String>,
}

impl Source {
    pub(crate) fn new(contents: Contents, place: Place) -> Self {
        Self {
            contents,
            place,
            due: i64::MIN,
            asked: i64::MIN,
            asked_in: 0,
            answered_in: 0,
            is_being_asked: false,
            failures: 0,
            text: None,
            keys: Vec::new(),
            gone: Vec::new(),
            confirmed_at: None,
            problem: None,
        }
    }

    fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// Whether the source is due. If so, it counts as being read in this round.
    fn begin_if_due(&mut self, now: i64, round: u64) -> bool {
        let is_due = now >= self.due;
        if is_due {
            (self.asked, self.asked_in, self.is_being_asked) = (now, round, true);
            // The reader reports the outcome; if it does not, the source is due again after this time.
            self.due = now.saturating_add(AGAIN_MOST_S);
        }
        is_due
    }

    /// A key that was first named in round `round` is missing here. Schedules a read, unless the source was
    /// read since. Returns after how many seconds the answer should be known.
    fn want(&mut self, round: u64, now: i64) -> Option<u32> {
        if self.answered_in > round {
            return None;
        }
        if self.is_being_asked {
            return Some(1);
        }
        // Files are read every second anyway.
        if !self.is_file() {
            self.due = self.due.min(now.max(self.asked.saturating_add(WANTED_EVERY_S)));
        }
        let left = self.due.saturating_sub(now).clamp(0, AGAIN_MOST_S);
        Some(u32::try_from(left).unwrap_or(0) + 1)
    }

    /// Records a usable answer. `max_age` is for how many seconds it says that it may be cached.
    pub(crate) fn succeeded(&mut self, text: Arc<str>, max_age: Option<i64>, now: i64) {
        let fresh = max_age.unwrap_or(FRESH_S).clamp(FRESH_LEAST_S, FRESH_MOST_S);
        // Read again before the keys become stale, to leave time for failures.
        let again = if self.is_file() { FILE_EVERY_S } else { fresh * 4 / 5 };
        self.due = now.saturating_add(again);
        (self.answered_in, self.is_being_asked) = (self.asked_in, false);
        self.failures = 0;
        self.text = Some(text);
        self.confirmed_at = Some(now);
        self.problem = None;
    }

    /// Records the keys of an answer.
    pub(crate) fn take_keys(&mut self, keys: Vec<Key>, now: i64) {
        let is_there = |number: &KeyNumber| keys.iter().any(|key| key.number == *number);
        self.gone.retain(|(number, _)| !is_there(number));
        // A file is authoritative: its keys are removed at once.
        if !self.is_file() {
            let were_there = self.keys.iter().map(|key| key.number);
            self.gone.extend(were_there.filter(|number| !is_there(number)).map(|number| (number, now)));
        }
        self.keys = keys;
    }

    /// Drops keys whose removal is now confirmed; returns whether there were any. Schedules a read to
    /// confirm the others.
    pub(crate) fn forget_gone(&mut self, now: i64) -> bool {
        let before = self.gone.len();
        self.gone.retain(|(_, since)| now.saturating_sub(*since) < GONE_FOR_S);
        if !self.gone.is_empty() {
            self.due = self.due.min(now.saturating_add(GONE_FOR_S));
        }
        self.gone.len() < before
    }

    /// The keys that may have signed the tokens of current clients.
    pub(crate) fn held(&self) -> impl Iterator<Item = KeyNumber> {
        self.keys.iter().map(|key| key.number).chain(self.gone.iter().map(|(number, _)| *number))
    }

    /// Records a failure; the previous content stays in effect. Returns whether the failure is new.
    pub(crate) fn failed(&mut self, problem: String, now: i64) -> bool {
        let again = (AGAIN_LEAST_S << self.failures.min(6)).min(AGAIN_MOST_S);
        let again = if self.is_file() { FILE_EVERY_S } else { again };
        self.due = now.saturating_add(again);
        self.is_being_asked = false;
        self.failures = self.failures.saturating_add(1);
        self.problem.replace(problem.clone()) != Some(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_url() -> Source {
        Source::new(Contents::Public(0), Place::of("https://id.example/keys").unwrap())
    }

    impl Source {
        fn begins(&mut self, now: i64) -> bool {
            self.begin_if_due(now, self.asked_in + 1)
        }
    }

    #[test]
    fn keys_are_fetched_ahead_of_their_end() {
        let mut source = of_url();
        assert!(source.begins(1_000));
        assert!(!source.begins(1_000), "it is being asked");
        source.succeeded("a".into(), Some(100), 1_000);
        assert!(!source.begins(1_079));
        assert!(source.begins(1_080));
        for (said, after) in [(None, 240), (Some(0), 48), (Some(-5), 48), (Some(i64::MAX), 2_880)] {
            source.succeeded("a".into(), said, 2_000);
            assert!(!source.begins(2_000 + after - 1), "{said:?}");
            assert!(source.begins(2_000 + after), "{said:?}");
        }
    }

    #[test]
    fn what_fails_is_asked_less_and_less_and_its_keys_stay() {
        let mut source = of_url();
        source.succeeded("a".into(), None, 0);
        let mut now = 1_000;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(source.begins(now), "{wait}");
            source.failed("away".to_owned(), now);
            assert!(!source.begins(now + wait - 1), "{wait}");
            now += wait;
        }
        assert_eq!(source.text.as_deref(), Some("a"));
        assert_eq!(source.confirmed_at, Some(0));
        source.succeeded("b".into(), None, now);
        assert!(source.failed("away".to_owned(), now) && !source.failed("away".to_owned(), now));
    }

    #[test]
    fn a_key_that_an_address_no_longer_gives_is_gone_when_it_says_so_again() {
        let [one, two, other] = [
            include_str!("../tests/keys/rsa1.pub.pem"),
            include_str!("../tests/keys/ec.pub.pem"),
            include_str!("../tests/keys/rsa2.pub.pem"),
        ];
        let keys = |texts: &[&str]| crate::keys::read_public(&texts.concat()).unwrap();
        let held = |source: &Source| source.held().count();
        let mut source = of_url();
        let given = |source: &mut Source, texts: &[&str], now: i64| {
            source.begins(now);
            source.succeeded(texts.concat().into(), Some(3_600), now);
            source.take_keys(keys(texts), now);
            source.forget_gone(now)
        };
        assert!(!given(&mut source, &[one, two], 0));
        assert!(!given(&mut source, &[one], 1_000));
        assert_eq!((source.keys.len(), held(&source)), (1, 2), "no new token, but those that are in");
        assert!(!source.begins(1_009) && source.begins(1_010), "it is asked again soon");
        // The second answer is from a server that lags behind.
        assert!(!given(&mut source, &[one, two], 1_010));
        assert!(!given(&mut source, &[one], 2_000) && !given(&mut source, &[one], 2_009));
        assert!(given(&mut source, &[one], 2_010));
        assert_eq!(held(&source), 1);
        assert!(!given(&mut source, &[one, two, other], 3_000) && !given(&mut source, &[one, two], 3_001));
        assert!(!given(&mut source, &[one], 3_002));
        assert_eq!(held(&source), 3, "each that went waits by itself");
        assert!(given(&mut source, &[one], 3_011) && given(&mut source, &[one], 3_012));
        assert_eq!(held(&source), 1);
        assert!(!source.begins(4_000), "fresh for long");

        let mut file = Source::new(Contents::Public(0), Place::of("keys.pem").unwrap());
        given(&mut file, &[one, two], 0);
        given(&mut file, &[two], 1);
        assert_eq!(held(&file), 1);
    }

    #[test]
    fn a_key_that_is_not_known_is_asked_for_and_then_decided() {
        let mut sources = Sources::new(vec![of_url()]);
        assert_eq!(sources.begin_due(0), [0]);
        assert_eq!(sources.want(0, None, 0), Some(1), "the first keys are on their way");
        sources.list[0].succeeded("a".into(), None, 1);
        // Requested at once, unless it was read a moment ago.
        assert_eq!(sources.want(0, Some("new"), 4), Some(7));
        assert_eq!(sources.begin_due(9), [0; 0]);
        assert_eq!(sources.begin_due(10), [0]);
        assert_eq!(sources.want(0, Some("newer"), 10), Some(1), "and named too late for this answer");
        sources.list[0].succeeded("a".into(), None, 11);
        assert_eq!(sources.want(0, Some("new"), 11), None, "it does not have it");
        assert_eq!(sources.want(0, Some("newer"), 11), Some(10));
        assert_eq!(sources.begin_due(20), [0]);
        // While the source fails, nobody can tell.
        sources.list[0].failed("away".to_owned(), 21);
        assert_eq!(sources.want(0, Some("newer"), 21), Some(2));
        assert_eq!(sources.begin_due(22), [0]);
        sources.list[0].succeeded("a".into(), None, 22);
        assert_eq!(sources.want(0, Some("newer"), 23), None);
        // The key may exist by now.
        assert_eq!(sources.want(0, Some("new"), 100), Some(1));
        assert_eq!(sources.want(1, Some("of another issuer"), 100), None);
    }

    #[test]
    fn who_names_many_keys_has_none_asked_for_sooner_and_keeps_nobody_out() {
        let mut sources = Sources::new(vec![of_url()]);
        let mut asked = 0;
        for now in 0..200 {
            for n in 0..1_000 {
                sources.want(0, Some(&format!("{now} {n}")), now);
            }
            assert!(sources.named.len() <= NAMES_MAX);
            // The first token with the key arrives right after an answer without that key.
            if now == 101 {
                assert!(sources.want(0, Some("new"), now).is_some(), "come again");
            }
            for index in sources.begin_due(now) {
                asked += 1;
                sources.list[index].succeeded("a".into(), None, now);
            }
        }
        assert!(asked <= 20, "{asked}");
        let mut files = Sources::new(vec![Source::new(Contents::Public(0), Place::of("keys.pem").unwrap())]);
        files.begin_due(0);
        files.list[0].succeeded("a".into(), None, 0);
        assert_eq!(files.want(0, Some("x"), 0), Some(2));
        assert_eq!(files.begin_due(1), [0]);
        files.list[0].succeeded("a".into(), None, 1);
        assert_eq!(files.want(0, Some("x"), 1), None);
    }
}
