use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::model::{EntryKind, Marks};

/// The update with a number.
fn update(number: u64) -> DraftEntry {
    let (time, kind, data) = (DateTime::UNIX_EPOCH, EntryKind::Routing, number.to_string().into());
    DraftEntry { time, kind, key: None, data, marks: Marks::default() }
}

fn number_of(update: &DraftEntry) -> u64 {
    std::str::from_utf8(&update.data).unwrap().parse().unwrap()
}

fn id(number: u64) -> Uuid {
    Uuid::from_u128(number.into())
}

/// A merge with a clock of its own; its updates are numbers.
struct Reader {
    merge: Merge,
    start: Instant,
    now_ms: u64,
    emitted: Vec<u64>,
    marked: Vec<u64>,
}

impl Reader {
    fn new() -> Self {
        let start = Instant::now();
        Self { merge: Merge::new(start), start, now_ms: 0, emitted: vec![], marked: vec![] }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn hear(&mut self, number: u64) -> Heard {
        let heard = self.merge.hear(id(number), Some(update(number)), true, self.now());
        self.emit();
        heard
    }

    fn look(&mut self, list: &[u64]) -> bool {
        let stretch = self.merge.begin_look();
        let listed = list.iter().map(|number| (id(*number), Some(update(*number)))).collect();
        let gap = self.merge.look(listed, self.now(), stretch);
        self.emit();
        gap
    }

    fn emit(&mut self) {
        while let Some((_, update, after_gap)) = self.merge.next() {
            let number = number_of(update);
            self.marked.extend(after_gap.then_some(number));
            self.emitted.push(number);
            self.merge.done(false);
        }
    }

    fn later(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self
    }

    fn is_due(&self) -> bool {
        self.merge.look_at().is_some_and(|at| at <= self.now())
    }
}

#[test]
fn what_was_pushed_before_it_was_published_goes_at_the_look() {
    let mut reader = Reader::new();
    reader.look(&[1]);
    assert_eq!(reader.hear(2), Heard::New);
    assert!(reader.is_due());
    reader.look(&[1, 2]);
    assert_eq!(reader.hear(2), Heard::Known);
    assert_eq!(reader.emitted, [1, 2]);
}

#[test]
fn what_was_published_before_it_was_pushed_waits_for_its_place_in_the_list() {
    let mut reader = Reader::new();
    reader.look(&[]);
    reader.hear(1);
    reader.look(&[]);
    assert!(!reader.is_due() && reader.later(5).is_due());
    // Another worker was quicker with its push.
    reader.look(&[2]);
    assert_eq!(reader.emitted, [0; 0], "what came later waits for what was heard");
    reader.later(20).look(&[2, 1]);
    assert_eq!(reader.emitted, [2, 1]);
}

#[test]
fn what_is_only_published_goes_after_a_while_and_before_what_came_later() {
    let mut reader = Reader::new();
    reader.look(&[]);
    reader.hear(1);
    reader.look(&[]);
    reader.later(100).hear(2);
    reader.look(&[2]);
    reader.later(99).look(&[2]);
    assert_eq!(reader.emitted, [0; 0]);
    reader.later(1).look(&[2]);
    assert_eq!(reader.emitted, [1, 2]);
    reader.look(&[2, 1]);
    assert_eq!(reader.emitted, [1, 2], "a push that comes late doubles nothing");
    assert_eq!(reader.merge.look_at(), None);
}

#[test]
fn the_list_is_read_once_more_after_an_interruption() {
    let mut reader = Reader::new();
    reader.look(&[1]);
    assert!(!reader.is_due());
    assert!(reader.later(200).is_due(), "for a worker that published before we subscribed");
    reader.look(&[1, 2]);
    assert_eq!(reader.merge.look_at(), None);
    reader.merge.suspect(reader.now());
    assert!(reader.is_due());
    reader.look(&[1, 2, 3]);
    assert!(!reader.is_due() && reader.later(200).is_due());
    assert_eq!(reader.emitted, [1, 2, 3]);
}

#[test]
fn a_look_that_was_under_way_does_not_stand_for_a_later_one() {
    let mut reader = Reader::new();
    let stretch = reader.merge.begin_look();
    let begun = reader.now();
    reader.later(3).hear(1);
    reader.merge.suspect(reader.now());
    reader.merge.look(vec![], begun, stretch);
    assert!(reader.is_due());
    reader.look(&[1]);
    assert_eq!(reader.emitted, [1]);
}

#[test]
fn a_full_list_that_holds_nothing_known_tells_of_a_gap_once() {
    let mut reader = Reader::new();
    let first: Vec<u64> = (0..50).collect();
    assert!(!reader.look(&first), "nothing was known before");
    reader.merge.suspect(reader.now());
    let second: Vec<u64> = (49..99).collect();
    assert!(!reader.look(&second), "the last one that was known is there");
    reader.merge.suspect(reader.now());
    // Heard after the interruption, which proves nothing about the time during it.
    reader.hear(149);
    let third: Vec<u64> = (100..150).collect();
    assert!(reader.look(&third));
    let fourth: Vec<u64> = (101..151).collect();
    assert!(!reader.look(&fourth));
    assert_eq!(reader.marked, [100]);
    assert_eq!(reader.emitted, (0..99).chain(100..151).collect::<Vec<_>>());
}

#[test]
fn a_burst_that_was_heard_is_no_gap_even_if_the_list_holds_only_its_end() {
    let mut reader = Reader::new();
    reader.look(&[0]);
    (1..=200).for_each(|number| assert_eq!(reader.hear(number), Heard::New));
    let list: Vec<u64> = (151..=200).collect();
    assert!(!reader.look(&list));
    assert_eq!(reader.emitted, [0]);
    assert!(!reader.later(200).look(&list));
    assert_eq!(reader.emitted, (0..=200).collect::<Vec<_>>());
}

#[test]
fn what_finds_no_room_is_told_as_a_gap() {
    let mut reader = Reader::new();
    reader.look(&[]);
    for number in 0..WAITING_MAX as u64 {
        assert_eq!(reader.hear(number), Heard::New);
    }
    assert_eq!(reader.hear(1_000), Heard::Dropped);
    reader.later(200).look(&[]);
    reader.look(&[1_001]);
    assert_eq!((reader.marked.as_slice(), reader.emitted.len()), (&[1_001][..], WAITING_MAX + 1));
}

#[test]
fn a_new_log_gets_the_list_again() {
    let mut reader = Reader::new();
    reader.look(&[1, 2]);
    reader.merge.log_is_new();
    reader.merge.in_log([id(1)]);
    reader.look(&[1, 2]);
    assert_eq!(reader.emitted, [1, 2, 2]);
}

#[test]
fn what_is_not_for_the_log_is_known_and_holds_nothing_up() {
    let mut reader = Reader::new();
    reader.look(&[]);
    reader.merge.hear(id(1), None, true, reader.now());
    assert!(!reader.is_due());
    let stretch = reader.merge.begin_look();
    reader.merge.look(vec![(id(1), None), (id(2), None), (id(3), Some(update(3)))], reader.now(), stretch);
    reader.emit();
    assert!(reader.merge.knows(&id(2)));
    assert_eq!(reader.emitted, [3]);
}

/// What workers and the network do, one step at a time.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A worker takes its next step: it pushes an update or publishes it.
    Work(usize),
    /// The oldest message under way arrives.
    Arrive,
    /// The connection is lost: messages under way are gone, and we subscribe anew.
    Cut,
    /// A look begins, and ends after the next event.
    Look,
    Wait(u64),
}

fn events(workers: usize, cuts: bool) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..workers).prop_map(Event::Work),
        4 => Just(Event::Arrive),
        u32::from(cuts) => Just(Event::Cut),
        3 => Just(Event::Look),
        2 => (1..4u64).prop_map(Event::Wait),
    ];
    // Too few waits to reach the time that a push may take.
    proptest::collection::vec(event, 0..60)
}

/// The world around a reader: workers that write updates one after the other, each to the list and the
/// channel, in either order.
struct World {
    /// By worker: whether it pushes first.
    push_first: Vec<bool>,
    /// By worker: the update of which it has done one of the two steps.
    half: Vec<Option<u64>>,
    next: u64,
    pushed: Vec<u64>,
    on_its_way: VecDeque<u64>,
    reader: Reader,
    reading: Option<(Vec<u64>, Instant, u64)>,
}

impl World {
    fn list(&self) -> Vec<u64> {
        self.pushed[self.pushed.len().saturating_sub(OUTSIDE_WINDOW)..].to_vec()
    }

    fn leave(&mut self, worker: usize, first_half: bool, number: u64) {
        if self.push_first[worker] == first_half {
            self.pushed.push(number);
        } else {
            self.on_its_way.push_back(number);
        }
    }

    fn step(&mut self, event: Event) {
        let answered = self.reading.take();
        match event {
            Event::Work(worker) => match self.half[worker].take() {
                Some(number) => self.leave(worker, false, number),
                None => {
                    let number = self.next;
                    self.next += 1;
                    self.leave(worker, true, number);
                    self.half[worker] = Some(number);
                }
            },
            Event::Arrive => {
                if let Some(number) = self.on_its_way.pop_front() {
                    self.reader.hear(number);
                }
            }
            Event::Cut => {
                self.on_its_way.clear();
                let now = self.reader.now();
                self.reader.merge.suspect(now);
            }
            Event::Look => {
                let stretch = self.reader.merge.begin_look();
                self.reading = Some((self.list(), self.reader.now(), stretch));
            }
            Event::Wait(ms) => {
                self.reader.later(ms);
            }
        }
        if let Some((list, begun, stretch)) = answered {
            let listed = list.into_iter().map(|number| (id(number), Some(update(number)))).collect();
            self.reader.merge.look(listed, begun, stretch);
            self.reader.emit();
        }
    }

    /// Every worker finishes, every message arrives, and the reader does all that is due.
    fn settle(&mut self) {
        for worker in 0..self.half.len() {
            if let Some(number) = self.half[worker].take() {
                self.leave(worker, false, number);
            }
        }
        self.step(Event::Wait(0));
        while !self.on_its_way.is_empty() {
            self.step(Event::Arrive);
        }
        for _ in 0..300 {
            if self.reader.is_due() {
                self.step(Event::Look);
                self.step(Event::Wait(0));
            }
            self.reader.later(1);
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled_and_the_order_is_the_lists(
        push_first in proptest::collection::vec(any::<bool>(), 1..4),
        events in events(3, true),
    ) {
        let workers = push_first.len();
        let mut world = World {
            half: vec![None; workers],
            push_first,
            next: 0,
            pushed: vec![],
            on_its_way: VecDeque::new(),
            reader: Reader::new(),
            reading: None,
        };
        for event in events {
            match event {
                Event::Work(worker) => world.step(Event::Work(worker % workers)),
                event => world.step(event),
            }
        }
        world.settle();
        prop_assert_eq!(&world.reader.emitted, &world.pushed);
        prop_assert!(world.reader.merge.is_empty());
        prop_assert_eq!(world.reader.merge.look_at(), None);
        prop_assert!(world.reader.marked.is_empty());
    }

    #[test]
    fn what_is_only_published_comes_once_and_in_order(
        events in proptest::collection::vec((1..300u64, any::<bool>()), 0..40),
    ) {
        let mut reader = Reader::new();
        reader.look(&[]);
        for (number, (wait, look)) in (0..).zip(&events) {
            reader.hear(number);
            reader.later(*wait);
            if *look && reader.is_due() {
                reader.look(&[]);
            }
        }
        reader.later(200).look(&[]);
        prop_assert_eq!(reader.emitted, (0..events.len() as u64).collect::<Vec<_>>());
    }
}
