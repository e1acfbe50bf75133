//! Records that are written at every gateway, with Redis and without: the writers, and what is wrong with
//! what the gateways hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zonewire::client::header::CONTENT_TYPE;
use zonewire::client::{BaseUrl, Http, StatusCode};
use zonewire_protocol::{BackendState, RecordList};

use crate::figures::Examples;

/// How often each gateway is written to.
const WRITE_EVERY: Duration = Duration::from_millis(40);
/// How long one write may take: one that waits for the log is answered sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// Records that one gateway alone writes.
const OWN_KEYS: u64 = 8;
/// The first of those that nobody writes any more once the fault ends: they show how soon all gateways hold
/// the same.
const FIRST_AT_REST: u64 = 4;
/// Records that all gateways write.
const SHARED_KEYS: u64 = 4;
/// Every so many writes of a gateway, one is of a shared record.
const SHARED_EVERY: u64 = 3;
/// Every third write of a record that one gateway alone writes removes it, every fifth of a shared record.
const REMOVED_EVERY: [u64; 2] = [3, 5];
/// Writes at two gateways must be this far apart for the clock of the machine to tell which is later.
const APART: Duration = Duration::from_millis(20);
/// How often lists are compared.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long they are compared before the suite gives up.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Write {
    key: String,
    /// The gateway, and the write's number there.
    by: usize,
    n: u64,
    is_removal: bool,
    sent: Instant,
    /// When its answer came, or was no longer waited for; `None` while it is under way.
    ended: Option<Instant>,
    /// It was answered with 2xx.
    accepted: bool,
    /// A removal of a record that did not exist: as if it had not been sent.
    was_nothing: bool,
    /// The answer waited until the log had the write.
    waited: bool,
}

/// Writes to one gateway until it is stopped.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) node: usize,
    pub(super) base: BaseUrl,
    pub(super) http: Http,
    /// From here on, some records are not written any more.
    pub(super) rest: CancellationToken,
    pub(super) written: Arc<Mutex<Vec<Write>>>,
}

impl Writer {
    /// Writes until `stop`; the request that is under way then is finished.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut ticks = time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 1.. {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
            }
            let is_shared = n % SHARED_EVERY == 0;
            // The write's number among those of its kind, and among those of its record.
            let of_kind = if is_shared { n / SHARED_EVERY } else { n - n / SHARED_EVERY };
            let keys = if is_shared { SHARED_KEYS } else { OWN_KEYS };
            let (place, round) = (of_kind % keys, of_kind / keys);
            if !is_shared && place >= FIRST_AT_REST && self.rest.is_cancelled() {
                continue;
            }
            let every = REMOVED_EVERY[usize::from(is_shared)];
            let key = if is_shared { format!("all-{place}") } else { own_key(self.node, place) };
            let is_removal = round % every == every - 1;
            self.write(key, n, is_removal).await;
        }
    }

    async fn write(&self, key: String, n: u64, is_removal: bool) {
        let write = Write { waited: n.is_multiple_of(2), ..Write::new(key, self.node, n, is_removal) };
        let wish = if write.waited { "?written=1" } else { "" };
        let url = self.base.endpoint(&format!("api/providers/{}{wish}", write.key));
        let request = match is_removal {
            true => self.http.delete(url),
            false => {
                let record = json!({ "by": self.node, "n": n, "status": "online" }).to_string();
                self.http.put(url).header(CONTENT_TYPE, "application/json").body(record)
            }
        };
        let at = {
            let mut written = self.written.lock();
            written.push(write);
            written.len() - 1
        };
        let answered = request.timeout(ANSWER_TIMEOUT).send().await;
        let ended = Some(Instant::now());
        if let Some(write) = self.written.lock().get_mut(at) {
            write.ended = ended;
            let status = answered.map(|response| response.status).ok();
            write.accepted = status.is_some_and(|status| status.is_success());
            write.was_nothing = is_removal && status == Some(StatusCode::NOT_FOUND);
        }
    }
}

fn own_key(node: usize, place: u64) -> String {
    format!("own-{node}-{place}")
}

/// What one gateway holds: each record's version and writer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Held(BTreeMap<String, (String, (usize, u64))>);

/// The fields of a record that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    user_id: String,
    by: usize,
    n: u64,
}

impl Held {
    /// A gateway's list, if the gateway says that it knows the records of the others.
    async fn read(base: &BaseUrl, http: &Http) -> anyhow::Result<Self> {
        let url = base.endpoint("api/providers?limit=1000");
        let answer = http.get(url).timeout(LIST_TIMEOUT).send().await?;
        if answer.status != StatusCode::OK {
            bail!("{base} answered {}", answer.status);
        }
        let list: RecordList = serde_json::from_slice(&answer.bytes().await?)?;
        if !list.state.is(BackendState::Healthy) {
            bail!("{base} is {}", list.state);
        }
        let mut held = BTreeMap::new();
        for (record, version) in list.records.iter().zip(list.versions) {
            let Record { user_id, by, n } = serde_json::from_str(record.get())?;
            held.insert(user_id, (version, (by, n)));
        }
        Ok(Self(held))
    }

    /// The records that are not written any more.
    fn at_rest(mut self) -> Self {
        self.0.retain(|key, _| {
            let place = key.strip_prefix("own-").and_then(|key| key.rsplit_once('-')?.1.parse::<u64>().ok());
            place.is_some_and(|place| place >= FIRST_AT_REST)
        });
        self
    }
}

/// What all gateways hold; fails if one of them cannot be asked, or does not know the records of the others.
async fn read_all(bases: &[BaseUrl]) -> anyhow::Result<Vec<Held>> {
    let mut all = Vec::new();
    for base in bases {
        all.push(Held::read(base, &base.http()?).await?);
    }
    Ok(all)
}

/// Waits until all gateways hold the same records at rest; returns when they did, or `None` if they never do.
pub(super) async fn until_equal(bases: Vec<BaseUrl>) -> Option<Instant> {
    let deadline = Instant::now() + EQUAL_WITHIN;
    while Instant::now() < deadline {
        if let Ok(all) = read_all(&bases).await {
            let rested: Vec<Held> = all.into_iter().map(Held::at_rest).collect();
            if rested.windows(2).all(|two| two[0] == two[1]) {
                return Some(Instant::now());
            }
        }
        time::sleep(LOOK_EVERY).await;
    }
    None
}

/// Waits until all gateways hold the same, after the last write; returns what they hold by then, or when time
/// is up.
pub(super) async fn settled(bases: &[BaseUrl], within: Duration) -> anyhow::Result<Vec<Held>> {
    let deadline = Instant::now() + within;
    loop {
        let all = read_all(bases).await;
        let is_over = Instant::now() > deadline;
        match all {
            Ok(all) if is_over || all.windows(2).all(|two| two[0] == two[1]) => return Ok(all),
            Err(error) if is_over => return Err(error),
            _ => time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What is wrong with records.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct JudgedRecords {
    /// Writes that were accepted.
    pub(super) written: u64,
    /// Writes that were refused or not answered.
    pub(super) refused: u64,
    /// Records that some gateway holds in the end.
    pub(super) records: u64,
    /// Of these, those that another gateway does not hold, or holds differently.
    pub(super) unequal: u64,
    /// Records whose last write some gateway does not hold.
    pub(super) lost: u64,
    /// Records that some gateway holds though they were removed last.
    pub(super) came_back: u64,
    /// Records that are unequal or lost, or came back, in words.
    pub(super) examples: Examples,
}

/// What happened to the gateways and their clocks.
#[derive(Debug, Default, Clone)]
pub(super) struct Course {
    /// The gateways' clocks differed: which of two writes at two of them counts is unknown.
    pub(super) clocks_apart: bool,
    /// Gateways that were killed: of their writes only those that had waited for the log are certain.
    pub(super) killed: BTreeSet<usize>,
}

impl Write {
    /// A write that is sent now.
    fn new(key: String, by: usize, n: u64, is_removal: bool) -> Self {
        let (sent, ended, accepted, was_nothing, waited) = (Instant::now(), None, false, false, false);
        Self { key, by, n, is_removal, sent, ended, accepted, was_nothing, waited }
    }

    /// Whether it is certain that all must have this write, unless a later one counts.
    fn is_certain(&self, course: &Course) -> bool {
        self.accepted && (self.waited || !course.killed.contains(&self.by))
    }

    /// Whether it is certain that `other` counts more.
    fn gives_way_to(&self, other: &Self, course: &Course) -> bool {
        let Some(ended) = self.ended else { return false };
        let is_later = match self.by == other.by {
            true => other.n > self.n,
            false => !course.clocks_apart && other.sent > ended + APART,
        };
        is_later && other.is_certain(course)
    }

    fn describe(&self) -> String {
        let what = if self.is_removal { "its removal" } else { "what was written" };
        format!("{what} as number {} at gateway {}", self.n, self.by)
    }
}

/// What is wrong with what the gateways hold in the end, after these writes.
pub(super) fn judge(writes: &[Write], held: &[Held], course: &Course) -> JudgedRecords {
    let writes: Vec<&Write> = writes.iter().filter(|write| !write.was_nothing).collect();
    let accepted = writes.iter().filter(|write| write.accepted).count() as u64;
    let mut judged = JudgedRecords {
        written: accepted,
        refused: writes.len() as u64 - accepted,
        ..JudgedRecords::default()
    };
    let mut by_key: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
    for write in writes {
        by_key.entry(&write.key).or_default().push(write);
    }
    for (key, writes) in by_key {
        let each: Vec<_> = held.iter().map(|held| held.0.get(key)).collect();
        judged.records += u64::from(each.iter().any(Option::is_some));
        if each.windows(2).any(|two| two[0] != two[1]) {
            judged.unequal += 1;
            judged.examples.note(|| format!("{key} is not the same everywhere: {each:?}"));
        }
        let may_count = |write: &&&Write| !writes.iter().any(|other| write.gives_way_to(other, course));
        let last: Vec<&&Write> = writes.iter().filter(may_count).collect();
        let may_be_absent =
            last.iter().any(|write| write.is_removal) || !last.iter().any(|write| write.is_certain(course));
        let may_be = |by_n| last.iter().any(|write| !write.is_removal && (write.by, write.n) == by_n);
        let (mut is_lost, mut is_back) = (false, false);
        for held in &each {
            match held {
                None => is_lost |= !may_be_absent,
                Some((_, by_n)) if may_be(*by_n) => {}
                Some(_) if last.iter().all(|write| write.is_removal) => is_back = true,
                Some(_) => is_lost = true,
            }
        }
        judged.lost += u64::from(is_lost);
        judged.came_back += u64::from(is_back);
        if is_lost || is_back {
            let expected: Vec<String> = last.iter().map(|write| write.describe()).collect();
            judged.examples.note(|| format!("{key} is {each:?}, and should be {}", expected.join(" or ")));
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Story(Instant, Vec<Write>);

    impl Story {
        fn write(&mut self, by: usize, n: u64, at_ms: u64, is_removal: bool) -> &mut Write {
            let sent = self.0 + Duration::from_millis(at_ms);
            let ended = Some(sent + Duration::from_millis(1));
            let write = Write::new("own-0-1".to_owned(), by, n, is_removal);
            let write = Write { sent, ended, accepted: true, ..write };
            self.1.push(write);
            self.1.last_mut().unwrap()
        }

        /// The findings if two gateways hold these: unequal, lost, came back.
        fn judge(
            &self,
            first: Option<(usize, u64)>,
            second: Option<(usize, u64)>,
            course: &Course,
        ) -> [u64; 3] {
            let held = [first, second].map(|held| {
                let record = |by_n: (usize, u64)| ("own-0-1".to_owned(), (format!("{}", by_n.1), by_n));
                Held(held.map(record).into_iter().collect())
            });
            let judged = judge(&self.1, &held, course);
            [judged.unequal, judged.lost, judged.came_back]
        }
    }

    fn story() -> Story {
        Story(Instant::now(), Vec::new())
    }

    #[test]
    fn the_last_writing_must_be_everywhere() {
        let mut story = story();
        story.write(0, 1, 0, false);
        story.write(1, 1, 100, false);
        let course = Course::default();
        assert_eq!(story.judge(Some((1, 1)), Some((1, 1)), &course), [0, 0, 0]);
        assert_eq!(story.judge(Some((1, 1)), None, &course), [1, 1, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &course), [0, 1, 0], "an older one");
        // With such clocks nobody knows.
        let apart = Course { clocks_apart: true, ..Course::default() };
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &apart), [0, 0, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((1, 1)), &apart), [1, 0, 0]);
    }

    #[test]
    fn what_is_at_the_same_time_may_count_either_way() {
        let mut story = story();
        story.write(0, 1, 0, false);
        story.write(1, 1, 5, true);
        let course = Course::default();
        assert_eq!(story.judge(None, None, &course), [0, 0, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &course), [0, 0, 0]);
    }

    #[test]
    fn what_was_removed_must_not_come_back() {
        let mut story = story();
        story.write(0, 1, 0, false);
        story.write(1, 1, 100, true);
        let course = Course::default();
        assert_eq!(story.judge(None, None, &course), [0, 0, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &course), [0, 0, 1]);
        // A removal without an answer may have happened or not.
        story.1[1].accepted = false;
        assert_eq!(story.judge(None, None, &course), [0, 0, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &course), [0, 0, 0]);
    }

    #[test]
    fn of_a_gateway_that_was_killed_only_what_waited_for_the_log_is_certain() {
        let mut story = story();
        story.write(0, 1, 0, false).waited = true;
        story.write(0, 2, 100, false);
        let killed = Course { killed: [0].into(), ..Course::default() };
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &killed), [0, 0, 0]);
        assert_eq!(story.judge(Some((0, 2)), Some((0, 2)), &killed), [0, 0, 0]);
        assert_eq!(story.judge(None, None, &killed), [0, 1, 0]);
        assert_eq!(story.judge(Some((0, 1)), Some((0, 1)), &Course::default()), [0, 1, 0]);
    }
}
