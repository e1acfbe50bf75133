//! What a subscriber that begins with snapshots knows of each key, and what is wrong with that. No I/O, so
//! that it can be tested with gateways that say what is untrue.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use tokio::time::Instant;

use super::witness::{Lane, Post, key_run, wanted};
use crate::figures::{Examples, sums};

/// The node that posts to a key, and the key's number there.
pub(super) type Key = (usize, u64);

/// What one subscriber of a zone knows, over all of its connections. It does as the protocol says of clients
/// that show the latest values: a snapshot starts afresh, and a whole snapshot takes away the keys that are
/// not in it; a late entry gives way to a newer price or removal; every other entry counts, even if it comes
/// again.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    values: BTreeMap<Key, Value>,
    /// The keys that came in the current snapshot.
    came: Option<HashSet<Key>>,
    /// The ids that came since the newest snapshot began.
    ids: HashSet<String>,
    /// The newest statement was `"recovered":false`.
    may_come_again: bool,
    was_placed: bool,
    counted: Counted,
    /// Forbidden messages.
    odd: Examples,
}

/// The last entry of a key.
#[derive(Debug, Clone)]
struct Value {
    /// `None`: the key was removed.
    n: Option<u64>,
    id: String,
    time: String,
    at: Instant,
}

impl Value {
    /// Whether a late entry gives way to this one.
    fn is_newer_than(&self, late: Came<'_>) -> bool {
        let parts =
            |id: &str| id.rsplit_once('-').map(|(by, number)| (by.to_owned(), number.parse::<u64>().ok()));
        match (parts(&self.id), parts(late.id)) {
            (Some((by, number)), Some((late_by, late_number))) if by == late_by => number > late_number,
            (by, late_by) => (self.time.as_str(), by) > (late.time, late_by),
        }
    }
}

/// An entry, as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came<'a> {
    pub(super) at: Instant,
    pub(super) id: &'a str,
    pub(super) key: Key,
    /// Its number at the node that it was posted at; `None` if it removes the key.
    pub(super) n: Option<u64>,
    pub(super) time: &'a str,
    pub(super) is_late: bool,
    pub(super) is_latest: bool,
}

/// The numbers of snapshots and of odd messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    /// Snapshots that began.
    pub(super) begun: u64,
    /// Snapshots that came whole.
    pub(super) whole: u64,
    /// Snapshots of which only the reachable part came.
    pub(super) in_part: u64,
    /// Forbidden messages: repeated, out of order, or inside a snapshot.
    pub(super) odd: u64,
}

/// The findings of all subscribers that begin with snapshots.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mirrored {
    pub(super) subscribers: u64,
    #[serde(flatten)]
    pub(super) counted: Counted,
    /// Keys with an accepted entry, times subscribers.
    pub(super) keys: u64,
    /// Of these, those whose last value the subscriber does not know.
    pub(super) stale: u64,
    /// Subscribers without a whole snapshot.
    pub(super) left_in_part: u64,
    /// Stale keys or odd messages, in words.
    pub(super) examples: Examples,
}

sums!(Counted: begun, whole, in_part, odd);
sums!(Mirrored: subscribers, counted, keys, stale, left_in_part, examples);

impl Mirror {
    /// `subscribed` or `resync` came; with `snapshot`, nothing that was known before counts any more.
    pub(super) fn placed(&mut self, recovered: bool, snapshot: bool) {
        self.may_come_again = !recovered;
        self.was_placed = true;
        // A snapshot that was cut off is followed by another one, or by the entries themselves.
        self.came = None;
        if snapshot {
            self.counted.begun += 1;
            self.ids.clear();
            self.came = Some(HashSet::new());
        }
    }

    /// `snapshot_end` came.
    pub(super) fn ended(&mut self, is_whole: bool) {
        self.may_come_again = !is_whole;
        let Some(came) = self.came.take() else {
            return self.note("a snapshot ended that had not begun".to_owned());
        };
        if is_whole {
            self.counted.whole += 1;
            self.values.retain(|key, _| came.contains(key));
        } else {
            self.counted.in_part += 1;
        }
    }

    /// An entry came.
    pub(super) fn entry(&mut self, entry: Came<'_>) {
        let Came { at, id, key, n, time, is_late, is_latest } = entry;
        let is_new = self.ids.insert(id.to_owned());
        if !is_new && (is_latest || !self.may_come_again) {
            self.note(format!("{id} twice"));
        }
        if is_latest {
            match &mut self.came {
                Some(came) => drop(came.insert(key)),
                None => self.note(format!("{id} as the latest without a snapshot")),
            }
        } else if self.came.is_some() {
            self.note(format!("{id} in the middle of a snapshot"));
        }
        let held = self.values.get(&key);
        if !is_latest && is_late && held.is_some_and(|held| held.is_newer_than(entry)) {
            return;
        }
        if let (Some(n), Some(held)) = (n, held.and_then(|held| held.n))
            && !is_latest
            && !is_late
            && !self.may_come_again
            && held > n
        {
            self.note(format!("{n} of gateway {} behind {held}", key.0));
        }
        self.values.insert(key, Value { n, id: id.to_owned(), time: time.to_owned(), at });
    }

    fn note(&mut self, what: String) {
        self.counted.odd += 1;
        self.odd.note(|| what);
    }

    /// Compares what it knows by now with what each node posted, and with the removals, some of which are not
    /// certain.
    pub(super) fn judge(&self, posted: &[(usize, &[Post])], removed: &BTreeMap<Key, bool>) -> Mirrored {
        let mut judged = Mirrored {
            subscribers: 1,
            counted: self.counted,
            left_in_part: u64::from(!self.was_placed || self.came.is_some()),
            examples: self.odd.clone(),
            ..Mirrored::default()
        };
        for (by, posts) in posted {
            // On either lane the newest entry of each key is its value.
            for n in wanted(Lane::Latest, posts) {
                let key = (*by, key_run(n));
                let held = self.values.get(&key);
                let price = held.and_then(|held| held.n);
                let expected = match removed.get(&key) {
                    // A price without an answer may have been accepted after the removal.
                    Some(is_certain) if !is_certain || !is_all_accepted(posts, key.1) => continue,
                    Some(_) => None,
                    None => Some(n),
                };
                judged.keys += 1;
                // A newer price without an answer may have been accepted.
                if price == expected || (expected.is_some() && price > expected) {
                    continue;
                }
                judged.stale += 1;
                judged.examples.note(|| {
                    let name = |n: Option<u64>| n.map_or("its removal".to_owned(), |n| n.to_string());
                    let known = match held {
                        Some(held) => format!("{} since {} ms", name(held.n), held.at.elapsed().as_millis()),
                        None => "nothing".to_owned(),
                    };
                    let run = key.1;
                    format!("of key {by}.{run} it knows {known}, and {} was accepted last", name(expected))
                });
            }
        }
        judged
    }
}

/// Whether every post of a key was accepted.
fn is_all_accepted(posts: &[Post], run: u64) -> bool {
    (1..).zip(posts).filter(|(n, _)| key_run(*n) == run).all(|(_, post)| post.accepted.is_some())
}

impl Mirrored {
    /// Whether every key is up to date.
    pub(super) fn is_complete(&self) -> bool {
        self.stale == 0 && self.left_in_part == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outages::witness::KEY_RUN;

    /// Three keys of gateway 0; the last price of the last key was not accepted.
    fn posts(start: Instant) -> Vec<Post> {
        let count = 3 * KEY_RUN;
        let accepted = |n: u64| (n < count).then_some(start + Duration::from_millis(n));
        (1..=count).map(|n| Post { sent: start, accepted: accepted(n) }).collect()
    }

    fn entry(n: u64, time: &str) -> (String, u64, String) {
        (format!("a-{n}"), n, time.to_owned())
    }

    struct Seen(Mirror, Instant);

    impl Seen {
        fn new() -> Self {
            let mut mirror = Mirror::default();
            mirror.placed(true, true);
            Self(mirror, Instant::now())
        }

        fn get(&mut self, (id, n, time): (String, u64, String), is_late: bool, is_latest: bool) {
            let (id, time) = (id.as_str(), time.as_str());
            self.0.entry(Came { at: self.1, id, key: (0, key_run(n)), n: Some(n), time, is_late, is_latest });
        }

        fn get_removal(&mut self, id: &str, run: u64, time: &str, is_late: bool) {
            self.0.entry(Came { at: self.1, id, key: (0, run), n: None, time, is_late, is_latest: false });
        }

        /// A snapshot of the three keys.
        fn whole() -> Self {
            let mut seen = Self::new();
            [5, 10, 12].into_iter().for_each(|n| seen.get(entry(n, "2"), false, true));
            seen.0.ended(true);
            seen
        }

        fn judge(&self) -> Mirrored {
            self.0.judge(&[(0, &posts(self.1))], &BTreeMap::new())
        }
    }

    #[test]
    fn a_snapshot_and_what_follows_are_the_last_values() {
        let mut seen = Seen::whole();
        assert_eq!((seen.judge().keys, seen.judge().stale), (3, 1), "14 was accepted");
        seen.get(entry(14, "3"), false, false);
        assert!(seen.judge().is_complete() && seen.judge().counted.odd == 0);
        // A price that was not answered also counts.
        seen.get(entry(15, "3"), false, false);
        assert!(seen.judge().is_complete());
    }

    #[test]
    fn what_is_lost_from_a_snapshot_or_behind_it_is_found() {
        let mut seen = Seen::new();
        [5, 14].into_iter().for_each(|n| seen.get(entry(n, "2"), false, true));
        assert_eq!(seen.judge().left_in_part, 1, "it has not ended");
        seen.0.ended(true);
        let judged = seen.judge();
        assert_eq!((judged.stale, judged.left_in_part), (1, 0));
        assert!(judged.examples[0].contains("of key 0.1 it knows nothing, and 10 was accepted last"));
        // A known key that is not in the new snapshot is gone.
        let mut seen = Seen::whole();
        seen.0.placed(false, true);
        seen.get(entry(14, "3"), false, true);
        seen.0.ended(true);
        assert_eq!(seen.judge().stale, 2);
        // After a partial snapshot nothing else comes.
        let mut seen = Seen::whole();
        seen.0.placed(false, true);
        seen.get(entry(14, "3"), false, true);
        seen.0.ended(false);
        assert_eq!((seen.judge().stale, seen.judge().counted.in_part), (0, 1));
    }

    #[test]
    fn what_is_late_gives_way_to_what_is_newer() {
        let mut seen = Seen::whole();
        seen.get(entry(14, "3"), false, false);
        seen.get(entry(13, "2"), true, false);
        assert!(seen.judge().is_complete());
        let (_, n, time) = entry(13, "4");
        seen.get(("b-1".to_owned(), n, time), true, false);
        assert_eq!(seen.judge().stale, 1);
    }

    #[test]
    fn a_removal_is_the_last_of_its_key_until_something_newer_comes() {
        let removed = [((0, 1), true), ((0, 2), false)].into();
        let judge = |seen: &Seen| seen.0.judge(&[(0, &posts(seen.1))], &removed);
        let mut seen = Seen::whole();
        assert_eq!((judge(&seen).keys, judge(&seen).stale), (2, 1), "one of them is not certain");
        seen.get_removal("b-1", 1, "4", false);
        assert_eq!(judge(&seen).stale, 0);
        let late = |n: u64, id: &str, time: &str| (id.to_owned(), n, time.to_owned());
        seen.get(late(10, "a-11", "3"), true, false);
        assert_eq!(judge(&seen).stale, 0, "what is older does not bring it back");
        seen.get(late(10, "c-2", "5"), true, false);
        assert_eq!(judge(&seen).stale, 1);
    }

    #[test]
    fn what_must_not_come_is_counted() {
        let mut seen = Seen::whole();
        seen.get(entry(12, "2"), false, false);
        assert_eq!(seen.judge().counted.odd, 1, "twice");
        seen.get(entry(14, "3"), false, false);
        seen.get(entry(13, "3"), false, false);
        assert_eq!(seen.judge().counted.odd, 2, "out of order");
        seen.get(entry(11, "3"), false, true);
        assert_eq!(seen.judge().counted.odd, 3, "no snapshot is under way");
        seen.0.placed(false, true);
        seen.get(entry(15, "3"), false, false);
        assert_eq!(seen.judge().counted.odd, 4, "in the middle of one");
        seen.0.ended(true);
        seen.0.ended(true);
        assert_eq!((seen.judge().counted.odd, seen.judge().examples.len()), (5, 5));
    }
}
