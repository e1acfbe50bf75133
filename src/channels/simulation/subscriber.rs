//! A subscriber as `connections` has them, without the wire: hold what comes live, replay from the
//! log, merge by offset, go live; and what it was told, checked as it comes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{self, Instant};

use super::NodeRun;
use crate::channels::{LiveBatch, Moved};
use crate::model::{ChannelName, EntryId, EntryKind, Epoch, Lane, Position};
use crate::storage::{Had, Page, Seam, told_epoch};
use crate::support::mutant::{self, Mutant};

/// Numbers of one producer have this many in common below them.
pub(super) const NUMBERS: u64 = 1_000_000;

/// Entries in one read.
const PAGE: usize = 7;

/// What a client has been told, over all its connections.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) channel: ChannelName,
    pub(super) told: Mutex<Told>,
    places: Arc<Mutex<Places>>,
}

/// Which entry each position stands for: the same one, whoever is told of it.
#[derive(Debug, Default)]
pub(super) struct Places {
    entries: HashMap<(ChannelName, Epoch, u64), EntryId>,
    /// Positions that stand for two entries.
    pub(super) doubles: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    /// From here on it must get everything, exactly once.
    pub(super) since: Option<Instant>,
    pub(super) numbers: HashSet<u64>,
    ids: HashSet<EntryId>,
    newest: HashMap<u64, u64>,
    offset: Option<(Epoch, u64)>,
    /// The last update of an order has come.
    ended: bool,
    /// Where it would go on after another connect.
    pub(super) position: Option<Position>,
    /// How often it was told that something may be missing, and when last.
    pub(super) gaps: Vec<String>,
    pub(super) resumed: u64,
    pub(super) faults: Vec<String>,
}

impl Client {
    pub(super) fn new(name: usize, channel: ChannelName, places: &Arc<Mutex<Places>>) -> Arc<Self> {
        Arc::new(Self { name, channel, told: Mutex::default(), places: Arc::clone(places) })
    }

    /// Whether what it was told last is about this life.
    pub(super) fn is_told_of(&self, life: &Epoch) -> bool {
        self.told.lock().position.as_ref().is_some_and(|position| is_about(&position.epoch, life))
    }

    /// The next entry comes after this position.
    fn at(&self, position: &Position) {
        self.told.lock().offset = Some((position.epoch.clone(), position.offset));
    }

    /// Told that something may be missing or come again.
    fn gap(&self, why: String) {
        let mut told = self.told.lock();
        told.gaps.push(why);
        told.since = Some(Instant::now());
        told.numbers.clear();
        told.ids.clear();
        told.newest.clear();
        told.offset = None;
        told.ended = false;
    }

    /// The next entry comes, or would come if it had not been had before.
    fn came(&self, epoch: &Epoch, offset: u64, id: EntryId, run: &NodeRun) {
        let (name, at) = (self.name, run.server.now_ms());
        let mut told = self.told.lock();
        if let Some((held, last)) = &told.offset
            && held == epoch
            && *last + 1 != offset
        {
            let text = format!("{at} c{name}: offset {offset} after {last} of {epoch}");
            told.faults.push(text);
        }
        told.offset = Some((epoch.clone(), offset));
        let place = (self.channel.clone(), epoch.clone(), offset);
        let mut places = self.places.lock();
        let held = *places.entries.entry(place).or_insert(id);
        if held != id {
            let text = format!("{at} c{name}: {epoch}:{offset} is {id}, and was {held}");
            places.doubles.push(text);
        }
    }

    fn got(&self, epoch: &Epoch, offset: u64, id: EntryId, frame: &[u8], run: &NodeRun) {
        let (name, number) = (self.name, number(frame));
        run.server.say(|| format!("  c{name} gets {number} at {epoch}:{offset}"));
        let is_told = self.is_told_of(epoch);
        let mut told = self.told.lock();
        let at = run.server.now_ms();
        if !is_told {
            let text =
                format!("{at} c{name}: {number} is of {epoch}, and it was told of {:?}", told.position);
            told.faults.push(text);
        }
        if told.ended {
            let text = format!("{at} c{name}: {number} came after the last update of its order");
            told.faults.push(text);
        }
        told.ended = is_last_update(frame);
        if !told.ids.insert(id) || !told.numbers.insert(number) {
            told.faults.push(format!("{at} c{name}: {number} came twice ({id} at {epoch}:{offset})"));
            return;
        }
        let newest = told.newest.entry(number / NUMBERS).or_insert(0);
        if *newest > number {
            let text = format!("{at} c{name}: {number} came after {newest}, at {epoch}:{offset}");
            told.faults.push(text);
        } else {
            *newest = number;
        }
    }
}

/// Whether an epoch that clients are told is that of this life, perhaps with what was had besides.
fn is_about(told: &Epoch, life: &Epoch) -> bool {
    let (told, life) = (told.as_str(), life.as_str());
    let rest = told.strip_prefix("v.").unwrap_or(told).strip_prefix(life);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// One connection's interest in a channel.
pub(super) struct Subscriber {
    pub(super) client: Arc<Client>,
    node: Arc<NodeRun>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cursor: u64,
    epoch: Option<Epoch>,
    had: Had,
    told: Option<Epoch>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Joining(Joining),
    Live,
    Ended,
}

#[derive(Debug, Default)]
struct Joining {
    held: VecDeque<Arc<LiveBatch>>,
    seen: Option<Position>,
    look_again: bool,
}

/// Where a client wants to start.
#[derive(Debug, Clone)]
pub(super) enum Start {
    Now,
    Oldest,
    After(Position),
}

impl State {
    fn is_in(&self, epoch: &Epoch) -> bool {
        self.epoch.as_ref() == Some(epoch)
    }

    fn position(&self) -> Option<Position> {
        Some(Position { epoch: self.epoch.clone()?, offset: self.cursor })
    }

    fn joining<R: Default>(&mut self, act: impl FnOnce(&mut Joining) -> R) -> R {
        match &mut self.phase {
            Phase::Joining(joining) => act(joining),
            Phase::Live | Phase::Ended => R::default(),
        }
    }
}

impl Joining {
    fn see(&mut self, position: &Position) {
        match &mut self.seen {
            Some(seen) if seen.epoch == position.epoch => seen.offset = seen.offset.max(position.offset),
            Some(_) => {}
            none => *none = Some(position.clone()),
        }
    }

    fn move_to(&mut self, to: &Position) {
        self.held.clear();
        self.seen = Some(to.clone());
        self.look_again = true;
    }

    fn hold(&mut self, batch: &Arc<LiveBatch>) {
        if self.seen.as_ref().is_some_and(|seen| seen.epoch != batch.epoch) {
            return;
        }
        self.seen = Some(Position { epoch: batch.epoch.clone(), offset: batch.last() });
        self.held.push_back(Arc::clone(batch));
    }

    fn can_merge(&self, epoch: &Epoch, cursor: u64) -> bool {
        self.held
            .iter()
            .any(|batch| batch.epoch == *epoch && batch.last() > cursor && batch.first <= cursor + 1)
    }
}

/// The number that a frame, or an entry's content, ends with.
pub(super) fn number(frame: &[u8]) -> u64 {
    let text = frame.strip_suffix(b"}").expect("an object");
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&text[text.len() - digits..]).expect("digits");
    digits.parse().expect("each entry has a number")
}

/// Whether a frame is the last update of an order.
fn is_last_update(frame: &[u8]) -> bool {
    let kind = format!("\"{}\"", EntryKind::Confirmed.as_str());
    // What kind it is stands near the beginning.
    frame.windows(kind.len()).take(32).any(|part| part == kind.as_bytes())
}

impl Subscriber {
    pub(super) fn new(client: Arc<Client>, node: Arc<NodeRun>) -> Arc<Self> {
        let state = State {
            cursor: 0,
            epoch: None,
            had: Had::default(),
            told: None,
            phase: Phase::Joining(Joining::default()),
        };
        Arc::new(Self { client, node, state: Mutex::new(state) })
    }

    pub(super) fn channel(&self) -> &ChannelName {
        &self.client.channel
    }

    pub(super) fn end(&self) {
        self.state.lock().phase = Phase::Ended;
    }

    fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Ended)
    }

    /// Live, and where: for the end.
    pub(super) fn live_at(&self) -> Option<Position> {
        let state = self.state.lock();
        matches!(state.phase, Phase::Live).then(|| state.position()).flatten()
    }

    pub(super) fn describe(&self) -> String {
        format!("c{} {:?}", self.client.name, self.state.lock())
    }

    fn send(&self, state: &mut State, batch: &LiveBatch, index: usize) {
        let epoch = state.epoch.clone().expect("it was joined");
        let id = batch.id(index).expect("each entry has an id");
        self.client.got(&epoch, batch.first + index as u64, id, &batch.frame(index), &self.node);
        self.node.sent.lock().add(id.producer, id.seq);
    }

    /// Sends what was not had before of a batch, from this index on.
    fn send_new(&self, state: &mut State, batch: &LiveBatch, before: usize) {
        for index in before..batch.len() {
            let was_empty = state.had.is_empty();
            let id = batch.id(index).expect("each entry has an id");
            let was_had = state.had.came(id);
            state.cursor = batch.first + index as u64;
            self.client.came(&batch.epoch, state.cursor, id, &self.node);
            if !was_had {
                self.send(state, batch, index);
                // What was filtered moves no client's position: it is filtered again.
                self.client.told.lock().position =
                    state.told.clone().map(|epoch| Position { epoch, offset: state.cursor });
            }
            if !was_empty && state.had.is_empty() {
                self.tell_epoch(state, true, Some(0));
            }
        }
    }

    fn cross(&self, state: &mut State, seam: &Seam) {
        let Seam { to, had, whole, .. } = seam;
        let from = state.position();
        state.cursor = to.offset;
        state.epoch = Some(to.epoch.clone());
        if !mutant::is(Mutant::NothingWasHad) {
            state.had.merge(had);
        }
        if mutant::is(Mutant::OneHighWaterMark) {
            state.had.merge(&self.node.sent.lock());
        }
        self.client.at(to);
        let name = self.client.name;
        self.node.server.say(|| format!("  c{name} crosses {from:?} -> {seam:?}, had {:?}", state.had));
        if !whole {
            self.client.gap(format!("crossed {from:?} -> {to:?}"));
        }
        if mutant::is(Mutant::ForksNotTold) && to.epoch.as_str().starts_with("f.") {
            return;
        }
        self.tell_epoch(state, *whole, whole.then_some(0));
    }

    fn tell_epoch(&self, state: &mut State, recovered: bool, gap: Option<u64>) {
        let Some(Position { epoch, offset }) = state.position() else { return };
        let epoch = told_epoch(&epoch, &state.had);
        if !recovered && gap.is_some() {
            self.client.gap(format!("{gap:?} are gone"));
        }
        if state.told.as_ref() != Some(&epoch) || !recovered {
            state.told = Some(epoch.clone());
            self.client.told.lock().position = Some(Position { epoch, offset });
        }
    }

    pub(super) fn on_batch(self: &Arc<Self>, batch: &Arc<LiveBatch>) {
        let mut state = self.state.lock();
        match &mut state.phase {
            Phase::Ended => return,
            Phase::Joining(joining) => return joining.hold(batch),
            Phase::Live => {}
        }
        let next = state.cursor + 1;
        if batch.last() < next || !state.is_in(&batch.epoch) {
            return;
        }
        if batch.first > next {
            self.restart(&mut state);
            state.joining(|joining| joining.hold(batch));
            return;
        }
        let before = usize::try_from(next - batch.first).expect("small");
        self.send_new(&mut state, batch, before);
    }

    pub(super) fn on_skipped(self: &Arc<Self>, epoch: &Epoch, offset: u64) {
        let mut state = self.state.lock();
        if state.is_in(epoch) && state.cursor < offset && matches!(state.phase, Phase::Live) {
            self.restart(&mut state);
        }
        state.joining(|joining| joining.look_again = true);
    }

    pub(super) fn on_moved(self: &Arc<Self>, moved: &Moved) {
        let mut state = self.state.lock();
        let is_live = match &mut state.phase {
            Phase::Ended => return,
            Phase::Joining(joining) => {
                joining.move_to(&moved.seam.to);
                false
            }
            Phase::Live => true,
        };
        if !is_live || !state.is_in(&moved.from.epoch) {
            return;
        }
        if state.cursor == moved.from.offset {
            self.cross(&mut state, &moved.seam);
        } else {
            self.restart(&mut state);
            state.joining(|joining| joining.move_to(&moved.seam.to));
        }
    }

    fn restart(self: &Arc<Self>, state: &mut State) {
        state.phase = Phase::Joining(Joining { look_again: true, ..Joining::default() });
        let subscriber = Arc::clone(self);
        tokio::spawn(async move { subscriber.catch_up().await });
    }

    pub(super) async fn bring_up(self: Arc<Self>, start: Start) {
        if self.answer(&start).await {
            self.catch_up().await;
        }
    }

    async fn answer(&self, start: &Start) -> bool {
        loop {
            if self.is_over() {
                return false;
            }
            if let Ok(joined) = self.node.channels.join(self.channel(), 0).await
                && self.start_at(&joined, start).await
            {
                return true;
            }
            time::sleep(Duration::from_millis(60)).await;
        }
    }

    async fn start_at(&self, joined: &Position, start: &Start) -> bool {
        let had = match start {
            Start::Now => None,
            Start::Oldest => None,
            Start::After(had) => Some(had),
        };
        let (epoch, offset, recovered) = if let Start::Now = start {
            (joined.epoch.clone(), joined.offset, true)
        } else {
            let Ok(page) = self.node.channels.read_after(self.channel(), had, 1).await else { return false };
            let oldest = page.first - 1;
            let known =
                had.is_none_or(|had| page.epoch.as_ref() == Some(&had.epoch) && had.offset <= page.top);
            let after = had.map_or(0, |had| had.offset);
            let offset = if known { after.max(oldest) } else { oldest };
            let recovered = known && oldest <= after;
            let epoch = page.epoch.unwrap_or_else(|| joined.epoch.clone());
            (epoch, offset, recovered)
        };
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Ended) {
            return false;
        }
        let (name, node) = (self.client.name, self.node.name);
        self.node.server.say(|| {
            format!("  c{name} subscribed on n{node} at {epoch}:{offset} {recovered}, from {start:?}")
        });
        match start {
            Start::After(_) if recovered => self.client.told.lock().resumed += 1,
            Start::After(had) => self.client.gap(format!("resumed {had} on n{node} as {epoch}:{offset}")),
            Start::Now | Start::Oldest => {
                self.client.told.lock().since.get_or_insert_with(Instant::now);
            }
        }
        state.cursor = offset;
        self.client.at(&Position { epoch: epoch.clone(), offset });
        state.joining(|joining| joining.see(joined));
        state.told = Some(epoch.clone());
        self.client.told.lock().position = Some(Position { epoch: epoch.clone(), offset });
        state.epoch = Some(epoch);
        true
    }

    async fn catch_up(self: &Arc<Self>) {
        loop {
            {
                let mut state = self.state.lock();
                if matches!(state.phase, Phase::Ended) {
                    return;
                }
                let look = state.joining(|joining| std::mem::take(&mut joining.look_again));
                if !look && self.go_live(&mut state) {
                    return;
                }
            }
            if !self.read_on().await {
                self.state.lock().joining(|joining| joining.look_again = true);
                time::sleep(Duration::from_millis(60)).await;
            }
        }
    }

    async fn read_on(&self) -> bool {
        let Some(after) = self.state.lock().position() else { return false };
        let Ok(page) = self.node.channels.read_after(self.channel(), Some(&after), PAGE).await else {
            return false;
        };
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Ended) {
            return false;
        }
        let Some(epoch) = page.epoch.clone() else {
            self.node.channels.doubt(self.channel());
            return false;
        };
        if epoch != after.epoch {
            let to = Position { epoch, offset: page.first - 1 };
            let seam = Seam { to, had: Had::default(), late_to: 0, whole: false };
            self.cross(&mut state, &seam);
            self.node.channels.doubt(self.channel());
            return true;
        }
        self.replay(&mut state, &epoch, &page);
        let cursor = state.cursor;
        let at_end = cursor >= page.top;
        if let (Some(seam), true) = (&page.next, at_end) {
            self.cross(&mut state, seam);
            return true;
        }
        let is_behind = state.joining(|joining| {
            joining.seen.as_ref().is_some_and(|seen| seen.epoch != epoch || seen.offset > cursor)
                && !joining.can_merge(&epoch, cursor)
        });
        if at_end && is_behind {
            self.node.channels.doubt(self.channel());
        }
        !(at_end && is_behind)
    }

    fn replay(&self, state: &mut State, epoch: &Epoch, page: &Page) {
        let missing = (page.first - 1).saturating_sub(state.cursor);
        if missing > 0 {
            state.cursor = page.first - 1;
            self.tell_epoch(state, false, Some(missing));
        }
        let cursor = state.cursor;
        let new: Vec<_> = page.entries.iter().filter(|entry| entry.offset > cursor).cloned().collect();
        if !new.is_empty() {
            let batch = LiveBatch::encode(self.channel(), epoch, Lane::Every, false, &new);
            self.send_new(state, &batch, 0);
        }
    }

    fn go_live(&self, state: &mut State) -> bool {
        loop {
            let front = state.joining(|joining| joining.held.front().cloned());
            let Some(batch) = front else { break };
            let next = state.cursor + 1;
            let ours = state.is_in(&batch.epoch);
            if ours && batch.first > next {
                return false;
            }
            if ours && batch.last() >= next {
                let before = usize::try_from(next - batch.first).expect("small");
                self.send_new(state, &batch, before);
            }
            state.joining(|joining| joining.held.pop_front());
        }
        let seen = state.joining(|joining| joining.seen.clone());
        let caught_up = seen.is_none_or(|seen| state.is_in(&seen.epoch) && state.cursor >= seen.offset);
        if caught_up {
            state.phase = Phase::Live;
        }
        caught_up
    }
}
