//! A subscriber as `connections` has them, without the wire: the same reader, and what it was told,
//! checked as it comes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task;
use tokio::time::{self, Instant};

use super::NodeRun;
use crate::channels::{LiveBatch, Moved, Reader, Room, Start, StartingPoint, Step, Steps, Then, Turn};
use crate::model::{ChannelName, EntryId, Epoch, Position};

/// Numbers of one producer have this many in common below them.
pub(super) const NUMBERS: u64 = 1_000_000;

/// Entries in one read.
const PAGE: usize = 7;

/// Live entries that are held, and bytes in a piece: few, so that more is often too much.
const HELD_MAX: usize = 12;
const PIECE_BYTES: usize = 200;

/// What a client has been told, over all its connections.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: usize,
    pub(super) channel: ChannelName,
    pub(super) told: Mutex<Told>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    /// From here on it must get everything, exactly once.
    pub(super) since: Option<Instant>,
    pub(super) numbers: HashSet<u64>,
    ids: HashSet<EntryId>,
    newest: HashMap<u64, u64>,
    offset: Option<(Epoch, u64)>,
    /// Where it would go on after another connect.
    pub(super) position: Option<Position>,
    /// How often it was told that something may be missing, and when last.
    pub(super) gaps: Vec<String>,
    pub(super) resumed: u64,
    pub(super) faults: Vec<String>,
}

impl Client {
    pub(super) fn new(name: usize, channel: ChannelName) -> Arc<Self> {
        Arc::new(Self { name, channel, told: Mutex::default() })
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
    }

    fn got(&self, epoch: &Epoch, offset: u64, id: EntryId, number: u64, run: &NodeRun) {
        let name = self.name;
        run.server.say(|| format!("  c{name} gets {number} at {epoch}:{offset}"));
        let mut told = self.told.lock();
        let at = run.server.now_ms();
        if let Some((held, last)) = &told.offset
            && held == epoch
            && *last >= offset
        {
            let text = format!("{at} c{name}: offset {offset} after {last} of {epoch}");
            told.faults.push(text);
        }
        told.offset = Some((epoch.clone(), offset));
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

/// One connection's interest in a channel.
pub(super) struct Subscriber {
    pub(super) client: Arc<Client>,
    node: Arc<NodeRun>,
    reader: Mutex<Reader>,
}

/// The number that a frame carries.
pub(super) fn number(frame: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(frame);
    let at = text.find("\"n\":").expect("each entry has a number") + 4;
    let digits: String = text[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
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

    /// Live, and where: for the end.
    pub(super) fn live_at(&self) -> Option<Position> {
        let reader = self.reader.lock();
        if reader.is_live() { reader.position() } else { None }
    }

    pub(super) fn describe(&self) -> String {
        format!("c{} {:?}", self.client.name, self.reader.lock())
    }

    // What comes live

    pub(super) fn on_batch(self: &Arc<Self>, batch: &Arc<LiveBatch>) {
        let mut reader = self.reader.lock();
        if !batch.is_late && reader.is_next(std::slice::from_ref(batch)) {
            reader.took(batch.last());
            return self.get(batch, 0..batch.len());
        }
        // Some have not read what was sent before.
        let is_behind = batch.first.is_multiple_of(3);
        let steps = reader.on_batch(batch, room(is_behind));
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
        let steps = reader.on_moved(moved);
        self.act(steps);
    }

    // What the reader decides. It is locked meanwhile, as all of this is one thing.

    fn act(self: &Arc<Self>, steps: Steps) {
        for step in steps {
            match step {
                Step::Send { batch, runs, .. } => runs.into_iter().for_each(|run| self.get(&batch, run)),
                Step::Resync { old, to, recovered, gap } => {
                    let name = self.client.name;
                    self.node.server.say(|| format!("  c{name} resync {old} -> {to} {recovered} {gap:?}"));
                    if !recovered {
                        self.client.gap(format!("{old} -> {to}: {gap:?} are gone"));
                    }
                    self.client.told.lock().position = Some(to);
                }
                Step::CatchUp => {
                    let subscriber = Arc::clone(self);
                    tokio::spawn(async move { subscriber.catch_up().await });
                }
                Step::Doubt => self.node.channels.doubt(self.channel()),
                Step::Finished => {}
            }
        }
    }

    fn get(&self, batch: &LiveBatch, run: Range<usize>) {
        for index in run {
            let id = batch.id(index).expect("each entry has an id");
            let offset = batch.first + index as u64;
            self.client.got(&batch.epoch, offset, id, number(&batch.frame(index)), &self.node);
            // What was filtered moves no client's position: it is filtered again.
            if let Some(position) = &mut self.client.told.lock().position {
                position.offset = offset;
            }
        }
    }

    // Joining

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
                && let Some(found) = self.starting_point(joined, start).await
            {
                return self.begin(start, &found);
            }
            time::sleep(Duration::from_millis(60)).await;
        }
    }

    async fn starting_point(&self, joined: Position, start: &Start) -> Option<StartingPoint> {
        if !start.is_in_log() {
            return Some(StartingPoint::next(joined));
        }
        let page = self.node.channels.read_after(self.channel(), start.had(), 1).await.ok()?;
        Some(StartingPoint::in_log(joined, start.had(), &page))
    }

    fn begin(&self, start: &Start, at: &StartingPoint) -> bool {
        let mut reader = self.reader.lock();
        if reader.has_ended() {
            return false;
        }
        let (name, node) = (self.client.name, self.node.name);
        self.node.server.say(|| format!("  c{name} subscribed on n{node} at {at:?}, from {start:?}"));
        let position = Position { epoch: at.epoch.clone(), offset: at.offset };
        match start {
            Start::After(_) if at.is_recovered() => self.client.told.lock().resumed += 1,
            Start::After(had) => self.client.gap(format!("resumed {had} on n{node} as {position}")),
            Start::Now | Start::Oldest => {
                self.client.told.lock().since.get_or_insert_with(Instant::now);
            }
        }
        self.client.told.lock().position = Some(position);
        reader.begin(at);
        true
    }

    // Catching up

    async fn catch_up(self: &Arc<Self>) {
        loop {
            let after = {
                let mut reader = self.reader.lock();
                match reader.turn() {
                    Turn::Done(steps) => return self.act(steps),
                    Turn::Send(steps) => {
                        self.act(steps);
                        None
                    }
                    Turn::Read(after) => Some(after),
                }
            };
            let Some(after) = after else {
                task::yield_now().await;
                continue;
            };
            if !self.read_on(&after).await {
                time::sleep(Duration::from_millis(60)).await;
            }
        }
    }

    async fn read_on(self: &Arc<Self>, after: &Position) -> bool {
        let Ok(page) = self.node.channels.read_after(self.channel(), Some(after), PAGE).await else {
            self.reader.lock().on_no_page();
            return false;
        };
        loop {
            let then = {
                let mut reader = self.reader.lock();
                let (steps, then) = reader.on_page(self.channel(), &page, room(false));
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

fn room(is_behind: bool) -> Room {
    Room { hold_entries_max: HELD_MAX, piece_bytes: PIECE_BYTES, is_behind }
}
