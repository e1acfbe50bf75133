//! A subscriber like those of `connections`, without the wire: the same reader, and what it was told,
//! checked as it arrives.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task;
use tokio::time::{self, Instant};

use super::{ALL_KEYS, Kind, NodeRun, What};
use crate::channels::reader::{Wanted, WantedLatest};
use crate::channels::unborn::to_be_born;
use crate::channels::{
    Asked, EncodedPage, LiveBatch, Moved, PageSizes, Reader, Room, Start, StartingPoint, Step, Steps, Then,
    Turn, Way,
};
use crate::model::{ChannelName, EntryId, EntryKind, Epoch, Position};
use crate::storage::EpochTransition;
use crate::support::mutant::{self, Mutant};

/// Numbers of one producer are consecutive within a range of this size.
pub(super) const NUMBERS: u64 = 1_000_000;

/// Entries in one read.
const PAGE: usize = 7;

/// Keys in one page of a snapshot, and how long a client takes for a page.
const PAGE_KEYS: usize = 2;
const TAKES_MS: u64 = 15;

/// Live entries that are held, and bytes in a piece: few, so that the limits are often exceeded.
const HELD_MAX: usize = 12;
const PIECE_BYTES: usize = 200;

/// What a client has been told over all its connections.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) channel: ChannelName,
    pub(super) takes_snapshots: bool,
    pub(super) told: Mutex<Told>,
    places: Arc<Mutex<Places>>,
}

/// Which entry each position stands for: the same one for all clients.
#[derive(Debug, Default)]
pub(super) struct Places {
    entries: HashMap<(ChannelName, Epoch, u64), EntryId>,
    /// Positions that stand for two entries.
    pub(super) doubles: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    /// From this time on it must get everything, exactly once.
    pub(super) since: Option<Instant>,
    pub(super) numbers: HashSet<u64>,
    /// From `first` on it must get everything that the log has in the end, whatever it was told.
    pub(super) first: Option<Instant>,
    pub(super) ever: HashSet<u64>,
    received: HashSet<EntryId>,
    /// Whether the last message says that nothing comes again.
    is_recovered: bool,
    /// Whether something may come after what followed it.
    is_owed: bool,
    /// How many entries came again and were dropped, and how many came that were owed.
    pub(super) again: u64,
    pub(super) late: u64,
    ids: HashSet<EntryId>,
    newest: HashMap<u64, u64>,
    /// The newest offset, or the one after which entries were said to begin.
    offset: u64,
    /// Whether the last update of an order has come.
    ended: bool,
    /// Where it would resume.
    pub(super) position: Option<Position>,
    /// Each time that it was told that something may be missing.
    pub(super) gaps: Vec<String>,
    pub(super) resumed: u64,
    /// Whether it came before the log existed, and how often it resumed from there.
    pub(super) was_unborn: bool,
    pub(super) resumed_unborn: u64,
    pub(super) faults: Vec<String>,
    /// For a client with snapshots.
    heard: Vec<Heard>,
}

impl Client {
    pub(super) fn new(
        name: usize,
        channel: ChannelName,
        takes_snapshots: bool,
        places: &Arc<Mutex<Places>>,
    ) -> Arc<Self> {
        let (told, places) = (Mutex::default(), Arc::clone(places));
        Arc::new(Self { name, channel, takes_snapshots, told, places })
    }

    /// Whether the last message was about this epoch.
    pub(super) fn is_told_of(&self, log_epoch: &Epoch) -> bool {
        self.told.lock().position.as_ref().is_some_and(|position| is_about(&position.epoch, log_epoch))
    }

    /// Notes what should not have happened.
    fn fault(&self, told: &mut Told, run: &NodeRun, what: fmt::Arguments<'_>) {
        told.faults.push(format!("{} c{}: {what}", run.server.now_ms(), self.name));
    }

    /// The client is told that the next entry comes after this position, whether nothing is missing, and
    /// how many entries are gone.
    fn at(&self, position: Position, recovered: bool, gap: Option<u64>, run: &NodeRun) {
        if let Some(gone @ 1..) = gap {
            let log = run.server.content(&self.channel.log());
            let kept_to = position.offset.min(log.top);
            if log.epoch.as_ref().is_some_and(|epoch| is_about(&position.epoch, epoch))
                && log.first <= kept_to
            {
                let first = log.first;
                let fault = format_args!("{gone} up to {position} are not gone: kept from {first} on");
                self.fault(&mut self.told.lock(), run, fault);
            }
        }
        let mut told = self.told.lock();
        told.offset = position.offset;
        told.position = Some(position);
        told.is_recovered = recovered;
        told.is_owed |= !recovered && gap.is_none();
    }

    /// The client is told that something may be missing or come again.
    fn gap(&self, why: String) {
        let mut told = self.told.lock();
        told.gaps.push(why);
        told.since = Some(Instant::now());
        told.numbers.clear();
        told.ids.clear();
        told.newest.clear();
        told.ended = false;
    }

    /// The client is told that a snapshot begins: what it had before no longer counts.
    fn begins_anew(&self, is_subscribed: bool) {
        let now = Instant::now();
        let mut told = self.told.lock();
        told.heard.push(Heard::Begins { is_subscribed });
        told.since = Some(now);
        told.first = Some(now);
        told.numbers.clear();
        told.ids.clear();
        told.received.clear();
        told.newest.clear();
        told.is_owed = false;
    }

    fn got_latest(&self, id: EntryId, frame: &[u8], run: &NodeRun) {
        let (name, number) = (self.name, number(frame));
        run.server.say(|| format!("  c{name} gets {number} as the latest"));
        let mut told = self.told.lock();
        if !told.is_in_snapshot() {
            self.fault(&mut told, run, format_args!("{number} is the latest, and no snapshot was told of"));
        }
        told.received.insert(id);
        if !told.ids.insert(id) || !told.numbers.insert(number) {
            self.fault(&mut told, run, format_args!("{number} came twice ({id}, as the latest)"));
        }
        told.heard.push(Heard::Latest { number, id });
    }

    /// The client is told that the snapshot has all entries that could be reached.
    fn has_snapshot(&self, at: Position, is_whole: bool, run: &NodeRun) {
        self.told.lock().heard.push(Heard::Ends { is_whole });
        self.at(at, is_whole, None, run);
    }

    fn got(&self, epoch: &Epoch, offset: u64, id: EntryId, frame: &[u8], run: &NodeRun) {
        let (name, number) = (self.name, number(frame));
        run.server.say(|| format!("  c{name} gets {number} at {epoch}:{offset}"));
        let is_told = self.is_told_of(epoch);
        let mut told = self.told.lock();
        let told = &mut *told;
        if !is_told {
            let known = told.position.clone();
            self.fault(told, run, format_args!("{number} is of {epoch}, and it was told of {known:?}"));
        }
        // If something was received before, left-out entries have offsets too.
        let is_whole = told.position.as_ref().is_some_and(|position| {
            position.epoch == *epoch || to_be_born(&position.epoch).as_ref() == Some(epoch)
        });
        let last = told.offset;
        let has_all = is_whole && !self.channel.is_view();
        if offset <= last || (has_all && offset != last + 1) {
            self.fault(told, run, format_args!("offset {offset} after {last} of {epoch}"));
        }
        told.offset = offset;
        // Left-out entries do not move a client's position; they are left out again.
        if let Some(position) = &mut told.position {
            position.offset = offset;
        }
        let place = (self.channel.clone(), epoch.clone(), offset);
        let mut places = self.places.lock();
        let held = *places.entries.entry(place).or_insert(id);
        if held != id {
            let at = run.server.now_ms();
            places.doubles.push(format!("{at} c{name}: {epoch}:{offset} is {id}, and was {held}"));
        }
        drop(places);
        if told.ended && !told.is_owed {
            self.fault(told, run, format_args!("{number} came after the last update of its order"));
        }
        told.ended = is_last_update(frame);
        let is_repeated = !told.received.insert(id);
        if told.is_recovered && is_repeated {
            let fault = format_args!("{number} came twice, behind `recovered` ({id} at {epoch}:{offset})");
            return self.fault(told, run, fault);
        }
        if !told.ids.insert(id) || !told.numbers.insert(number) {
            return self.fault(told, run, format_args!("{number} came twice ({id} at {epoch}:{offset})"));
        }
        told.ever.insert(number);
        if self.takes_snapshots {
            if told.is_in_snapshot() {
                self.fault(told, run, format_args!("{number} came in the middle of a snapshot"));
            }
            told.heard.push(Heard::Got { number, id, is_late: is_late(frame) });
        }
        if is_repeated {
            // The client drops it, unless it shows latest values.
            told.again += 1;
            return;
        }
        let is_going_back = told.position.as_ref().is_some_and(|at| at.epoch.as_str().contains(".o."));
        if told.is_owed && (is_late(frame) || is_going_back) {
            // The entry was out of reach for a while, so it may come behind entries that follow it.
            told.late += 1;
            return;
        }
        let newest = told.newest.entry(number / NUMBERS).or_insert(0);
        let before = std::mem::replace(newest, number.max(*newest));
        if before > number {
            self.fault(told, run, format_args!("{number} came after {before}, at {epoch}:{offset}"));
        }
    }
}

/// What changed the newest values that a client knows.
#[derive(Debug, Clone, Copy)]
enum Heard {
    /// A snapshot begins.
    Begins { is_subscribed: bool },
    /// An entry of a snapshot.
    Latest { number: u64, id: EntryId },
    /// The snapshot ends, complete or partial.
    Ends { is_whole: bool },
    /// An ordinary entry.
    Got { number: u64, id: EntryId, is_late: bool },
}

/// The last entry of a key that a client knows.
#[derive(Debug, Clone, Copy)]
struct Last {
    number: u64,
    id: EntryId,
    time: i64,
    what: What,
}

impl Last {
    /// As the protocol defines it for late entries.
    fn is_newer_than(&self, other: &Self) -> bool {
        if self.id.producer == other.id.producer {
            return self.id.seq > other.id.seq;
        }
        let rank = |last: &Self| (last.time, last.id.producer.to_string());
        rank(self) > rank(other)
    }
}

/// The newest values that a client knows.
#[derive(Debug, Default)]
pub(super) struct State {
    /// By key, the number of its price.
    pub(super) values: HashMap<usize, u64>,
    /// By key, the number of its last entry, price or removal.
    last: HashMap<usize, u64>,
    /// Whether there may be more.
    pub(super) is_part: bool,
    pub(super) seen: BTreeSet<Kind>,
}

impl State {
    /// The number of the last entry of a key.
    pub(super) fn last_of(&self, key: usize) -> Option<u64> {
        self.last.get(&key).or_else(|| self.last.get(&ALL_KEYS)).copied()
    }
}

impl Told {
    /// Whether a snapshot has begun and not ended.
    pub(super) fn is_in_snapshot(&self) -> bool {
        let last = self.heard.iter().rev().find(|heard| !matches!(heard, Heard::Latest { .. }));
        matches!(last, Some(Heard::Begins { .. }))
    }

    /// The state of a client that follows the protocol. `about` gives the key, the time and the kind of a
    /// number.
    pub(super) fn state(&self, about: impl Fn(u64) -> (usize, i64, What)) -> State {
        let mut state = State::default();
        let mut came = HashSet::new();
        // Prices and removals; a removal of all keys has a key of its own.
        let mut table: HashMap<usize, Last> = HashMap::new();
        for heard in &self.heard {
            match *heard {
                Heard::Begins { is_subscribed } => {
                    came.clear();
                    state.is_part = true;
                    state.seen.extend((!is_subscribed).then_some(Kind::SnapshotAnew));
                }
                Heard::Latest { number, id } => {
                    let (key, time, what) = about(number);
                    came.insert(key);
                    table.insert(key, Last { number, id, time, what });
                    state.seen.extend((what != What::Price).then_some(Kind::SnapshotOfRemoval));
                }
                Heard::Ends { is_whole } => {
                    state.is_part = !is_whole;
                    if is_whole {
                        table.retain(|key, _| came.contains(key));
                    }
                    state.seen.insert(if is_whole { Kind::Snapshot } else { Kind::SnapshotInPart });
                }
                Heard::Got { number, id, is_late } => {
                    let (key, time, what) = about(number);
                    let last = Last { number, id, time, what };
                    let stays = |held: &Last| is_late && !last.is_newer_than(held);
                    if what == What::ZoneRemoval {
                        table.retain(|_, held| stays(held));
                    }
                    let held = table.get(&key).or_else(|| table.get(&ALL_KEYS)).copied();
                    if !held.is_some_and(|held| stays(&held)) {
                        table.insert(key, last);
                    } else if held.is_some_and(|held| held.what != What::Price) && what == What::Price {
                        state.seen.insert(Kind::LateBehindRemoval);
                    }
                }
            }
        }
        let prices = table.iter().filter(|(_, last)| last.what == What::Price);
        state.values = prices.map(|(key, last)| (*key, last.number)).collect();
        state.last = table.iter().map(|(key, last)| (*key, last.number)).collect();
        state
    }
}

/// Whether an epoch for clients stands for this epoch of the log, perhaps with a version vector.
fn is_about(told: &Epoch, log_epoch: &Epoch) -> bool {
    let (told, log_epoch) = (told.as_str(), log_epoch.as_str());
    let rest = told.strip_prefix("v.").unwrap_or(told);
    let rest = rest.strip_prefix("u.").unwrap_or(rest).strip_prefix(log_epoch);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// One connection's subscription to a channel.
pub(super) struct Subscriber {
    pub(super) client: Arc<Client>,
    node: Arc<NodeRun>,
    reader: Mutex<Reader>,
}

/// The number at the end of a frame, or of an entry's content.
pub(super) fn number(frame: &[u8]) -> u64 {
    let text = frame.strip_suffix(b"}").expect("an object");
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&text[text.len() - digits..]).expect("digits");
    digits.parse().expect("each entry has a number")
}

/// Whether an entry is marked late.
fn is_late(frame: &[u8]) -> bool {
    let late = b"\"late\":true";
    frame.windows(late.len()).any(|part| part == late)
}

/// Whether a frame is the last update of an order.
fn is_last_update(frame: &[u8]) -> bool {
    let kind = format!("\"{}\"", EntryKind::Confirmed.as_str());
    // The kind is near the beginning.
    frame.windows(kind.len()).take(32).any(|part| part == kind.as_bytes())
}

impl Subscriber {
    pub(super) fn new(client: Arc<Client>, node: Arc<NodeRun>) -> Arc<Self> {
        Arc::new(Self { client, node, reader: Mutex::default() })
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.client.channel
    }

    pub(super) fn end(&self) {
        self.reader.lock().end();
    }

    fn is_over(&self) -> bool {
        self.reader.lock().has_ended()
    }

    /// If it is live: its position. `Some(None)`: before the log exists.
    pub(super) fn live_at(&self) -> Option<Option<Position>> {
        let reader = self.reader.lock();
        reader.is_live().then(|| reader.position().filter(|_| !reader.is_unborn()))
    }

    /// Whether it is live, in this epoch of the log, and not beyond this position.
    pub(super) fn is_live_before(&self, end: &Position) -> bool {
        let reader = self.reader.lock();
        let is_before = |at: Position| at.epoch == end.epoch && at.offset <= end.offset;
        reader.is_live() && reader.position().is_some_and(is_before)
    }

    pub(super) fn describe(&self) -> String {
        format!("c{} {:?}", self.client.name, self.reader.lock())
    }

    // Live messages

    pub(super) fn on_batch(self: &Arc<Self>, batch: &Arc<LiveBatch>) {
        let mut reader = self.reader.lock();
        let (name, first, last) = (self.client.name, batch.first, batch.last());
        self.node.server.say(|| {
            let (len, late) = (batch.len(), batch.is_late);
            format!("  c{name} at {:?} hears of {first} to {last}: {len}, late {late}", reader.position())
        });
        if !batch.is_late && reader.is_next(std::slice::from_ref(batch)) {
            reader.took(batch.last());
            return self.get(batch, 0..batch.len());
        }
        // Some clients have not read what was sent before.
        let is_behind = batch.first.is_multiple_of(3);
        let room = Room { hold_entries_max: HELD_MAX, piece_bytes: PIECE_BYTES, is_behind };
        let steps = reader.on_batch(batch, room);
        self.act(steps);
    }

    pub(super) fn on_skipped(self: &Arc<Self>, epoch: &Epoch, offset: u64) {
        let mut reader = self.reader.lock();
        let steps = reader.on_skipped(epoch, offset);
        self.act(steps);
    }

    pub(super) fn on_moved(self: &Arc<Self>, moved: &Moved) {
        let mut reader = self.reader.lock();
        let name = self.client.name;
        self.node.server.say(|| format!("  c{name} at {:?} hears {moved:?}", reader.position()));
        let (channel, from) = (moved.channel.clone(), moved.from.clone());
        let moved = Moved { channel, from, transition: self.transition(&moved.transition) };
        let steps = reader.on_moved(&moved);
        self.act(steps);
    }

    fn transition(&self, transition: &EpochTransition) -> EpochTransition {
        let mut transition = transition.clone();
        if mutant::is(Mutant::OneHighWaterMark) {
            transition.had.merge(&self.node.sent.lock());
        }
        transition
    }

    // The reader's decisions. It stays locked, because all of this is one step.

    fn act(self: &Arc<Self>, steps: Steps) {
        for step in steps {
            match step {
                Step::Send { batch, runs, way: Way::Latest } => {
                    for index in runs.into_iter().flatten() {
                        let id = batch.id(index).expect("each entry has an id");
                        self.client.got_latest(id, &batch.frame(index), &self.node);
                    }
                }
                Step::Send { batch, runs, .. } => runs.into_iter().for_each(|run| self.get(&batch, run)),
                Step::Resync { to, .. }
                    if mutant::is(Mutant::ForksNotTold) && to.epoch.as_str().starts_with("f.") => {}
                Step::Resync { old, to, recovered, gap, snapshot } => {
                    let name = self.client.name;
                    self.node.server.say(|| {
                        format!("  c{name} resync {old} -> {to} {recovered} {gap:?} snapshot {snapshot}")
                    });
                    if snapshot {
                        self.client.begins_anew(false);
                    } else if !recovered {
                        self.client.gap(format!("{old} -> {to}: {gap:?} are gone"));
                    }
                    self.client.at(to, recovered, gap, &self.node);
                }
                Step::SnapshotEnd { at, is_whole } => {
                    let name = self.client.name;
                    self.node.server.say(|| format!("  c{name} has a snapshot at {at}, whole {is_whole}"));
                    self.client.has_snapshot(at, is_whole, &self.node);
                }
                Step::CatchUp => {
                    let subscriber = Arc::clone(self);
                    tokio::spawn(async move { subscriber.catch_up().await });
                }
                Step::Suspect => self.node.channels.suspect(self.channel()),
                Step::Finished => {}
            }
        }
    }

    fn get(&self, batch: &LiveBatch, run: Range<usize>) {
        for index in run {
            let id = batch.id(index).expect("each entry has an id");
            let offset = batch.offset(index);
            self.client.got(&batch.epoch, offset, id, &batch.frame(index), &self.node);
            self.node.sent.lock().add(id.producer, id.seq);
        }
    }

    // Joining

    pub(super) async fn bring_up(self: Arc<Self>, asked: Asked) {
        if self.answer(&asked).await {
            self.catch_up().await;
        }
    }

    async fn answer(&self, asked: &Asked) -> bool {
        loop {
            if self.is_over() {
                return false;
            }
            if let Ok(joined) = self.node.channels.join(self.channel(), 0).await
                && let Some(found) = self.starting_point(joined, asked).await
            {
                return self.begin(&asked.start, &found);
            }
            time::sleep(Duration::from_millis(60)).await;
        }
    }

    async fn starting_point(&self, joined: Position, asked: &Asked) -> Option<StartingPoint> {
        let sizes = PageSizes { entries: PAGE, keys: PAGE_KEYS };
        self.node.channels.starting_point(self.channel(), joined, asked, sizes).await.ok()
    }

    fn begin(&self, start: &Start, at: &StartingPoint) -> bool {
        let mut reader = self.reader.lock();
        if reader.has_ended() {
            return false;
        }
        let (name, node, node_name) = (self.client.name, &self.node, self.node.name);
        node.server.say(|| format!("  c{name} subscribed on n{node_name} at {at:?}, from {start:?}"));
        let position = Position { epoch: at.epoch.clone(), offset: at.offset };
        let is_unborn = to_be_born(&at.epoch).is_some() && at.offset == 0;
        {
            let mut told = self.client.told.lock();
            let was_unborn = told.position.as_ref().is_some_and(|at| to_be_born(&at.epoch).is_some());
            told.resumed_unborn += u64::from(was_unborn && matches!(start, Start::Oldest));
            told.was_unborn |= is_unborn;
            if is_unborn && told.since.is_none() {
                // It must get everything that the log ever has.
                told.since = Some(node.began);
            }
            if told.first.is_none() {
                let is_all = is_unborn || matches!(start, Start::Oldest);
                told.first = Some(if is_all { node.began } else { Instant::now() });
            }
        }
        match start {
            _ if at.snapshot => self.client.begins_anew(true),
            Start::Oldest if !at.is_recovered() => {
                self.client.gap(format!("begun on n{node_name} as {position}"))
            }
            Start::After(_) if at.is_recovered() => self.client.told.lock().resumed += 1,
            Start::After(had) => self.client.gap(format!("resumed {had} on n{node_name} as {position}")),
            Start::Now | Start::Oldest => {
                self.client.told.lock().since.get_or_insert_with(Instant::now);
            }
        }
        self.client.at(position, at.is_recovered(), at.gap, node);
        reader.begin(at);
        true
    }

    // Catching up

    async fn catch_up(self: &Arc<Self>) {
        loop {
            let wanted = {
                let mut reader = self.reader.lock();
                match reader.turn() {
                    Turn::Done(steps) => return self.act(steps),
                    Turn::Send(steps) => {
                        self.act(steps);
                        None
                    }
                    Turn::Read(wanted) => Some(Ok(wanted)),
                    Turn::ReadLatest(wanted) => Some(Err(wanted)),
                }
            };
            let is_on = match wanted {
                None => {
                    task::yield_now().await;
                    continue;
                }
                Some(Ok(wanted)) => self.read_on(&wanted).await,
                Some(Err(wanted)) => self.read_latest(&wanted).await,
            };
            if !is_on {
                time::sleep(Duration::from_millis(60)).await;
            }
        }
    }

    async fn read_latest(self: &Arc<Self>, wanted: &WantedLatest) -> bool {
        let Ok(page) = self.node.channels.latest_page(self.channel(), wanted, PAGE_KEYS).await else {
            self.reader.lock().on_no_page();
            return false;
        };
        let then = {
            let mut reader = self.reader.lock();
            let (steps, then) = reader.on_latest(&page);
            self.act(steps);
            then
        };
        // It reads slowly.
        time::sleep(Duration::from_millis(wanted.after.as_ref().map_or(0, |_| TAKES_MS))).await;
        then != Then::Pause
    }

    async fn read_on(self: &Arc<Self>, wanted: &Wanted) -> bool {
        let Ok(page) = self.node.channels.page(self.channel(), wanted, PAGE).await else {
            self.reader.lock().on_no_page();
            return false;
        };
        let mut page = EncodedPage::clone(&page);
        let name = self.client.name;
        self.node.server.say(|| format!("  c{name} reads after {:?}: {:?}", wanted.after, page.batches));
        page.head.next = page.head.next.as_ref().map(|transition| self.transition(transition));
        loop {
            let then = {
                let mut reader = self.reader.lock();
                let (steps, then) = reader.on_page(&page);
                self.act(steps);
                then
            };
            match then {
                Then::Page => task::yield_now().await,
                Then::Turn => return true,
                Then::Pause => return false,
            }
        }
    }
}
