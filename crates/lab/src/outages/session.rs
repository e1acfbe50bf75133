//! One deployment under load: brought up, harmed, watched until it has recovered, and judged.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::Utc;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::LoadArgs;
use super::faults::{Fault, Kind};
use super::load::{self, Channel, FEED, Producer, SYMBOL};
use super::logs::Log;
use super::mirror::Mirror;
use super::outcome::{Outcome, ms};
use super::poll;
use super::read::{self, Bounds};
use super::record::{Record, Subscriber, Times};
use super::registries::{self, Course, Write, Writer};
use super::schedule::Planned;
use super::timeline::{Down, HealthHistory};
use super::watch::{Moves, Seen, Watcher};
use super::witness::{Judged, Lane, Witness};
use super::world::{Redis, World, has_feed};
use crate::bench::cpu::rss_bytes;
use crate::node::{Node, Start, health};
use zonewire::cli::Hidden;
use zonewire::client::BaseUrl;
use zonewire::config::Config;
use zonewire::model::{EventType, Zone};
use zonewire_kit::clock::WallClock;
use zonewire_kit::dir::TempDir;
use zonewire_kit::eventually;
use zonewire_kit::exchange::{Exchange, Speaks};
use zonewire_kit::proxy::Proxy;
use zonewire_kit::resp::Target;
use zonewire_protocol::BackendState;

/// How long all goes well before the fault.
const WARM: Duration = Duration::from_secs(3);
/// How long the load goes on, at least, once Redis serves again.
const AFTER: Duration = Duration::from_secs(3);
/// How long a gateway must have said that it is healthy to count as recovered.
const STEADY: Duration = Duration::from_secs(1);
/// How long the recovery may take, and how long until trades come again.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(40);
/// Each gateway's subscriber must have received so many trades by then that the exchange made since.
const TRADES_SINCE: usize = 10;
/// After the end of the load: how long nothing may come while something is missing, before it counts as lost.
const SETTLE: Duration = Duration::from_secs(10);
/// How long this may take in all.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long gateways may take to become healthy at first, and subscribers to be subscribed.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How often a gateway that does not find Redis is started, as may happen on a busy machine.
const STARTS_MAX: u32 = 4;
/// A fault that lasts this long must be noticed.
const NOTICEABLE: Duration = Duration::from_secs(2);
/// The setting that decides how much later prices on `latest` may come.
const ORDERING_DEADLINE: &str = "storage.redis.ordering_deadline_ms";
/// The settings that decide how much of a log is retained.
const ENTRIES: &str = "storage.retention.entries";
const UPDATES: &str = "storage.retention.orders.updates";
const UPDATES_AGE: &str = "storage.retention.orders.age_s";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often something happens at the exchange. It repeats its last 1,000 trades on request, which cover
/// minutes.
const EXCHANGE_STEP: Duration = Duration::from_millis(100);
/// Latecomers begin at most this long after the beginning of a fault.
const LATE_WITHIN: Duration = Duration::from_secs(5);
/// Subscribers of each zone that begin with snapshots during the fault.
const LATE_SNAPSHOTS: usize = 2;
/// One order in this many is watched by a subscriber that moves from the start, and another one by one that
/// comes late. With more of them, the suite itself would take too much of the time that is measured.
const ORDERS_EACH: usize = 2;
/// The last of every so many orders is posted at two gateways. It is one of those that a latecomer watches.
const ORDERS_AT_TWO: usize = 4;
/// The rate at each of the two, as a fraction of the others' rate: an order's log holds 50 updates, and a
/// fault lasts up to a minute.
const RATE_AT_TWO: f64 = 2.0 / 3.0;

/// What a deployment consists of.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// The gateway to check.
    pub(super) gateway: PathBuf,
    pub(super) load: LoadArgs,
    /// A Redis that the suite did not start, if one is to be used.
    pub(super) redis: Option<Target>,
    /// The prefix of the keys.
    pub(super) prefix: String,
    /// Decides when and where subscribers move.
    pub(super) seed: u64,
    /// `None` if gateways do not authenticate.
    pub(super) access: Option<Access>,
}

impl Setup {
    /// How long the gateways wait for Redis to accept a price on `latest`.
    pub(super) fn ordering_deadline(&self) -> Duration {
        let set = self.set(ORDERING_DEADLINE);
        Duration::from_millis(set.unwrap_or(Config::default().storage.redis.ordering_deadline_ms))
    }

    /// How much of a log the gateways keep.
    fn bounds(&self) -> Bounds {
        let retention = Config::default().storage.retention;
        Bounds {
            entries: self.set(ENTRIES).unwrap_or(retention.entries),
            updates: self.set(UPDATES).unwrap_or(retention.orders.updates),
            by_age: false,
            updates_by_age: self.set::<u64>(UPDATES_AGE).is_some(),
        }
    }

    /// The value of a setting; one that cannot be parsed is refused by the gateways.
    fn set<T: FromStr>(&self, key: &str) -> Option<T> {
        let set =
            self.load.settings.iter().filter_map(|setting| setting.strip_prefix(key)?.strip_prefix('='));
        set.filter_map(|value| value.parse().ok()).next_back()
    }
}

/// How gateways with authentication are started, and the token that the suite presents.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) config: PathBuf,
    pub(super) token: Hidden,
}

/// What has happened so far in a run of many faults.
#[derive(Debug)]
pub(super) struct Past {
    /// By node.
    downs: Vec<Vec<Down>>,
    marks: Vec<(Instant, String)>,
    /// How many odd entries were reported.
    odd: usize,
}

impl Past {
    pub(super) fn of(nodes: usize) -> Self {
        Self { downs: vec![Vec::new(); nodes], marks: Vec::new(), odd: 0 }
    }
}

/// The state of the deployment when the load could end.
struct Recovered {
    /// Whether all gateways were healthy.
    is_healthy: bool,
    /// Whether enough trades came that the exchange made after Redis served again.
    has_trades: bool,
    end: Instant,
}

/// A deployment under load.
pub(super) struct Session {
    pub(super) world: World,
    record: Record,
    stop_load: CancellationToken,
    load: JoinSet<()>,
    /// Cancelled when the fault begins.
    fault_begun: CancellationToken,
    /// Subscribers do not move any more.
    stop_moving: CancellationToken,
    stop_watching: CancellationToken,
    watching: JoinSet<()>,
    bounds: Bounds,
    /// The exchange that the gateways have a feed from.
    exchange: Arc<Exchange>,
    /// The writes to registries.
    written: Vec<Arc<Mutex<Vec<Write>>>>,
    /// Cancelled when some records are no longer written.
    records_rest: CancellationToken,
    /// Where gateways keep copies of their journals; dropped after them.
    _spool: Option<TempDir>,
}

/// Runs one fault in a deployment of its own.
pub(super) async fn one(setup: &Setup, fault: &Fault) -> anyhow::Result<Outcome> {
    let mut session = Session::open(setup, Some(fault)).await?;
    let (mut begun, mut down_from) = (session.record.start, session.record.start);
    if fault.kind != Kind::Absent {
        time::sleep(WARM / 2).await;
        session.world.prepare(fault).await?;
        time::sleep(WARM / 2).await;
    }
    let before = session.memory();
    *session.record.pace.lock() = Duration::ZERO;
    let about_to = Instant::now();
    session.world.begin(fault).await?;
    session.fault_begun.cancel();
    if fault.kind != Kind::Absent {
        // Some faults are noticed before they are complete; and while one is being made, it is not yet wrong
        // to say healthy.
        (begun, down_from) = (about_to, Instant::now());
    }
    session.world.hold(fault).await?;
    let ending = Instant::now();
    session.records_rest.cancel();
    session.world.end(fault).await?;
    let back = Instant::now();
    let down = |node| fault.takes_redis_from(node).then_some(Down { from: down_from, to: ending });
    let downs = (0..setup.load.nodes).map(|node| down(node).into_iter().collect()).collect();
    let bases = session.bases();
    let (recovered, equal) = tokio::join!(session.recover(back), registries::until_equal(bases));
    let recovered = recovered?;
    let marks = vec![(begun, "the fault".to_owned()), (ending, "its end".to_owned())];
    let times = Times { begun, back, end: recovered.end, downs, marks };
    let mut outcome = session.conclude(&[*fault], &times, &recovered, before).await?;
    outcome.equal_ms = equal.map(|at| ms(at.saturating_duration_since(back)));
    outcome.fault = fault.name.to_owned();
    outcome.about = fault.about.to_owned();
    // Some faults end by themselves.
    outcome.held_s = (ending - down_from).as_secs_f64();
    if fault.kind == Kind::Absent {
        // The sockets were told that Redis is away when they connected; later messages say that it came.
        outcome.socket_told_ms = None;
    }
    if fault.takes_redis_from(0) && fault.hold >= NOTICEABLE && outcome.noticed_ms.is_none() {
        outcome.broken.push("not every gateway said that Redis does not serve".to_owned());
    }
    Ok(outcome)
}

/// Runs several faults one after the other in one deployment, as planned.
pub(super) async fn random(setup: &Setup, plan: &[Planned]) -> anyhow::Result<Outcome> {
    let mut session = Session::open(setup, None).await?;
    time::sleep(WARM).await;
    let before = session.memory();
    *session.record.pace.lock() = Duration::ZERO;
    let (begun, mut past) = (Instant::now(), Past::of(setup.load.nodes));
    session.go_through(plan, &mut past).await?;
    let mut outcome = session.end_of(plan, past, begun, Instant::now(), before).await?;
    outcome.fault = "random".to_owned();
    outcome.about = "faults from a seed".to_owned();
    Ok(outcome)
}

impl Session {
    /// Brings up the deployment for a fault, or for a random run.
    pub(super) async fn open(setup: &Setup, fault: Option<&Fault>) -> anyhow::Result<Self> {
        let is_absent = fault.is_some_and(|fault| fault.kind == Kind::Absent);
        let is_of_clock = fault.is_some_and(|fault| fault.kind == Kind::GatewayClock);
        let spools = fault.is_some_and(Fault::needs_spool);
        let name = fault.map_or("random", |fault| fault.name);
        let redis = Redis::start(fault, setup.redis.as_ref()).await?;
        let probe = format!("{}-probe", setup.prefix);
        let mut world = World { nodes: Vec::new(), proxies: Vec::new(), redis, probe, taken_over: None };
        let exchange = Exchange::start(Speaks::Binance, SYMBOL, 0, setup.seed, EXCHANGE_STEP).await?;
        let mut channels = channels(setup)?;
        channels.push(Channel::feed(exchange.trades().0)?);
        let spool = if spools { Some(TempDir::new()?) } else { None };
        for index in 0..setup.load.nodes {
            let proxy = match world.redis.target() {
                Some(target) => Some(Proxy::start(target.address).await?),
                None => None,
            };
            let mut settings = settings(setup, &channels);
            settings.push(feed(&exchange));
            if let Some(spool) = &spool {
                let dir = spool.path().join(index.to_string());
                std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
                settings.push(format!("storage.journal.spool.data_dir={}", dir.display()));
            }
            let start = Start {
                program: setup.gateway.clone(),
                index,
                redis_url: Some(world.redis.url(proxy.as_ref())?),
                config: setup.access.as_ref().map(|access| access.config.clone()),
                token: setup.access.as_ref().map(|access| access.token.clone()),
                settings,
                log: setup.load.logs.as_ref().map(|dir| dir.join(format!("{name}-{index}.log"))),
                clock: if is_of_clock { Some(WallClock::right()?) } else { None },
                ..Start::default()
            };
            world.proxies.extend(proxy);
            let node = start_healthy(start, is_absent).await?;
            if index == 0 && !is_absent {
                // The owner of the feed must be known.
                eventually("the first gateway has the feed", READY_PATIENCE, async || {
                    has_feed(&node).await.unwrap_or(false).then_some(())
                })
                .await?;
            }
            world.nodes.push(node);
        }
        let record = Record {
            channels,
            posted: Vec::new(),
            seen: Vec::new(),
            mirrors: Vec::new(),
            logs: Vec::new(),
            course: Course {
                clocks_apart: is_of_clock,
                killed: (0..setup.load.nodes)
                    .filter(|node| fault.is_some_and(|fault| fault.cuts_sockets_of(*node)))
                    .collect(),
            },
            health: world.nodes.iter().map(|_| Arc::default()).collect(),
            pace: Arc::default(),
            start: Instant::now(),
        };
        let mut session = Self {
            world,
            record,
            stop_load: CancellationToken::new(),
            load: JoinSet::new(),
            fault_begun: CancellationToken::new(),
            stop_moving: CancellationToken::new(),
            stop_watching: CancellationToken::new(),
            watching: JoinSet::new(),
            bounds: Bounds {
                by_age: fault.is_some_and(|fault| fault.kind == Kind::RedisClock),
                ..setup.bounds()
            },
            exchange: Arc::new(exchange),
            written: Vec::new(),
            records_rest: CancellationToken::new(),
            _spool: spool,
        };
        let late_within = fault.map_or(LATE_WITHIN, |fault| fault.hold.min(LATE_WITHIN));
        session.watch()?;
        session.watch_snapshots(setup.seed, late_within);
        session.watch_on_the_move(setup.seed, late_within);
        session.until_subscribed().await?;
        if !is_absent {
            for node in &session.world.nodes {
                node.until_bridged(EventType::Ticker.as_str(), READY_PATIENCE).await?;
            }
        }
        session.record.start = Instant::now();
        session.start_load(setup)?;
        Ok(session)
    }

    /// Runs one fault after the other, each after its pause.
    pub(super) async fn go_through(&mut self, plan: &[Planned], past: &mut Past) -> anyhow::Result<()> {
        for (number, Planned { pause, fault }) in plan.iter().enumerate() {
            self.world.prepare(fault).await?;
            time::sleep(*pause).await;
            let what = format!("{}/{} {}", number + 1, plan.len(), fault.name);
            eprintln!("  {what} at {} for {:.1} s", Utc::now().format("%T%.3f"), fault.hold.as_secs_f64());
            past.marks.push((Instant::now(), what));
            self.world.begin(fault).await?;
            self.fault_begun.cancel();
            let from = Instant::now();
            self.world.hold(fault).await?;
            let to = Instant::now();
            self.world.end(fault).await?;
            self.world.check_nodes()?;
            for (node, downs) in past.downs.iter_mut().enumerate() {
                if fault.takes_redis_from(node) {
                    downs.push(Down { from, to });
                }
            }
            // What came twice or out of order stays wrong; what is missing may still come.
            let examples = self.record.odd_examples();
            examples.iter().skip(past.odd).for_each(|example| eprintln!("    by now: {example}"));
            past.odd = examples.len();
        }
        Ok(())
    }

    /// Ends the session after these faults, the last of which was over at `back`.
    pub(super) async fn end_of(
        mut self,
        plan: &[Planned],
        past: Past,
        begun: Instant,
        back: Instant,
        before: Vec<Option<u64>>,
    ) -> anyhow::Result<Outcome> {
        self.records_rest.cancel();
        let recovered = self.recover(back).await?;
        let faults: Vec<Fault> = plan.iter().map(|planned| planned.fault).collect();
        let times = Times { begun, back, end: recovered.end, downs: past.downs, marks: past.marks };
        let mut outcome = self.conclude(&faults, &times, &recovered, before).await?;
        outcome.held_s = faults.iter().map(|fault| fault.hold).sum::<Duration>().as_secs_f64();
        // With many faults, the first notice says nothing.
        (outcome.noticed_ms, outcome.socket_told_ms) = (None, None);
        Ok(outcome)
    }

    /// Subscribes to each channel at each node, and begins to poll the nodes' health.
    fn watch(&mut self) -> anyhow::Result<()> {
        let channels = self.record.channels.clone();
        for (node, said) in self.record.health.iter().enumerate() {
            let (base, said) = (&self.world.nodes[node].base, Arc::clone(said));
            self.watching.spawn(poll::health(base.clone(), base.http()?, said, self.stop_watching.clone()));
        }
        for node in 0..self.world.nodes.len() {
            for (place, channel) in channels.iter().enumerate() {
                if channel.is_followed_at(node) {
                    let subscriber = self.subscribe(place, node, None, Seen::default());
                    self.record.seen.push(subscriber);
                }
            }
        }
        self.watching.spawn(poll::pace(Arc::clone(&self.record.pace), self.stop_watching.clone()));
        Ok(())
    }

    fn bases(&self) -> Vec<BaseUrl> {
        self.world.nodes.iter().map(|node| node.base.clone()).collect()
    }

    /// A subscriber of a channel that begins at this node, modulo the number of nodes.
    fn watcher(&self, place: usize, node: usize, moves: Option<Moves>, seen: &Arc<Mutex<Seen>>) -> Watcher {
        let (channel, bases) = (self.record.channels[place].clone(), self.bases());
        Watcher { channel, node: node % bases.len(), bases, moves, seen: Arc::clone(seen) }
    }

    /// Starts such a subscriber.
    fn subscribe(&mut self, place: usize, node: usize, moves: Option<Moves>, seen: Seen) -> Subscriber {
        let (seen, stays_at) = (Arc::new(Mutex::new(seen)), moves.is_none().then_some(node));
        let watcher = self.watcher(place, node, moves, &seen);
        self.watching.spawn(watcher.run(self.stop_watching.clone()));
        Subscriber { place, stays_at, seen }
    }

    /// How a subscriber moves. One that comes late begins at most `late_within` after the fault began.
    fn moves(&self, seed: u64, late_within: Option<Duration>) -> Option<Moves> {
        Some(Moves {
            random: StdRng::seed_from_u64(seed),
            begins: late_within.map(|within| (self.fault_begun.clone(), within)),
            stop_moving: self.stop_moving.clone(),
        })
    }

    /// Starts the subscribers that move: for each zone one from the start and one that comes during the
    /// fault, for each order one of the two. They begin at another gateway than the order's own, or at the
    /// second of its two.
    fn watch_on_the_move(&mut self, seed: u64, within: Duration) {
        for (place, channel) in self.record.channels.clone().into_iter().enumerate() {
            let is_order = channel.lane == Lane::Orders;
            // For a live type each gateway has its own log: a subscriber that moves would begin anew there.
            if channel.lane == Lane::Live {
                continue;
            }
            for is_late in [false, true] {
                if is_order && (place % ORDERS_EACH == 0) == is_late {
                    continue;
                }
                let mut seen = Seen::default();
                if is_late && !is_order {
                    seen.witness = Witness::of_latecomer();
                }
                let number = self.record.seen.len();
                let node = match channel.nodes[..] {
                    [_, second] if is_order => second,
                    _ => channel.nodes.first().copied().unwrap_or(0) + 1 + number % 2,
                };
                let moves = self.moves(seed.wrapping_add(number as u64), is_late.then_some(within));
                let subscriber = self.subscribe(place, node, moves, seen);
                self.record.seen.push(subscriber);
            }
        }
    }

    /// Starts the subscribers of zones and of durable events that begin with snapshots and move: for each
    /// channel one from the start, and some that come during the fault.
    fn watch_snapshots(&mut self, seed: u64, within: Duration) {
        let has_keys = |channel: &Channel| channel.as_zone().is_some() || channel.lane == Lane::Events;
        let places = 0..self.record.channels.len();
        for place in places.filter(|place| has_keys(&self.record.channels[*place])).collect::<Vec<_>>() {
            for late in 0..=LATE_SNAPSHOTS {
                let number = self.record.mirrors.len();
                let seen = Seen { mirror: Some(Mirror::default()), ..Seen::default() };
                // A seed of their own, so that the moves of all others stay the same.
                let seed = seed.wrapping_add(1_000_000 + number as u64);
                let moves = self.moves(seed, (late > 0).then_some(within));
                let subscriber = self.subscribe(place, number, moves, seen);
                self.record.mirrors.push(subscriber);
            }
        }
    }

    async fn until_subscribed(&self) -> anyhow::Result<()> {
        let missing = || {
            let stay = self.record.seen.iter().filter(|subscriber| subscriber.stays_at.is_some());
            stay.filter(|subscriber| !subscriber.seen.lock().was_subscribed).count()
        };
        let subscribed = eventually("all that stay are subscribed", READY_PATIENCE, async || {
            (missing() == 0).then_some(())
        });
        subscribed.await.with_context(|| format!("{} sockets were not subscribed", missing()))
    }

    /// Starts noting the exchange's trades, and writing records.
    fn start_others(&mut self) -> anyhow::Result<()> {
        let trades = self.record.channels.iter().position(|channel| channel.lane == Lane::Trades);
        if let Some(place) = trades {
            let posted = Arc::default();
            self.record.posted.push((place, 0, Arc::clone(&posted)));
            let of_trades = |subscriber: &&Subscriber| subscriber.place == place;
            let seen: Vec<_> =
                self.record.seen.iter().filter(of_trades).map(|of| Arc::clone(&of.seen)).collect();
            let has_begun = move || seen.iter().any(|seen| !seen.lock().witness.first_seen.is_empty());
            let exchange = Arc::clone(&self.exchange);
            self.load.spawn(load::note_trades(exchange, has_begun, posted, self.stop_load.clone()));
        }
        for (node, process) in self.world.nodes.iter().enumerate() {
            let written = Arc::default();
            self.written.push(Arc::clone(&written));
            let (base, http) = (process.base.clone(), process.base.http()?);
            let writer = Writer { node, base, http, rest: self.records_rest.clone(), written };
            self.load.spawn(writer.run(self.stop_load.clone()));
        }
        Ok(())
    }

    fn start_load(&mut self, setup: &Setup) -> anyhow::Result<()> {
        for (node, process) in self.world.nodes.iter().enumerate() {
            let http = process.base.http()?;
            let here =
                self.record.channels.iter().enumerate().filter(|(_, channel)| channel.nodes.contains(&node));
            let here: Vec<_> = here.collect();
            for (number, (place, channel)) in here.iter().enumerate() {
                if channel.lane == Lane::Trades {
                    continue;
                }
                let is_at_two = channel.lane == Lane::Orders && channel.nodes.len() > 1;
                let is_second = is_at_two && channel.nodes.first() != Some(&node);
                let per_s = match channel.lane {
                    Lane::Orders if is_at_two => setup.load.order_rate * RATE_AT_TWO,
                    Lane::Orders => setup.load.order_rate,
                    _ => setup.load.rate / channel.nodes.len() as f64,
                };
                let every = Duration::from_secs_f64(1.0 / per_s);
                let at = number as f64 / here.len() as f64;
                // If an order is posted at two gateways, both post before the fault, the first gateway first.
                let delay = match (is_at_two, is_second) {
                    (true, false) => (WARM / 2).mul_f64(at),
                    (true, true) => (WARM / 2).mul_f64(1.0 + at),
                    (false, _) => every.mul_f64(at),
                };
                let posted = Arc::default();
                self.record.posted.push((*place, node, Arc::clone(&posted)));
                let producer = Producer {
                    channel: (*channel).clone(),
                    node,
                    base: process.base.clone(),
                    elsewhere: self.world.nodes[(node + 1) % self.world.nodes.len()].base.clone(),
                    http: http.clone(),
                    every,
                    delay,
                    posted,
                };
                self.load.spawn(producer.run(self.stop_load.clone()));
            }
        }
        self.start_others()
    }

    /// Waits until all gateways are healthy again and trades have come that the exchange made since: a feed
    /// that nobody had begins seconds later, and without it there would be no trades to judge.
    async fn recover(&mut self, back: Instant) -> anyhow::Result<Recovered> {
        let deadline = back + RECOVERY_PATIENCE;
        loop {
            time::sleep(LOOK_EVERY).await;
            self.world.check_nodes()?;
            let now = Instant::now();
            let is_healthy = |said: &Arc<Mutex<HealthHistory>>| {
                now - back > STEADY && said.lock().is_healthy_since(now - STEADY)
            };
            let is_healthy = self.record.health.iter().all(is_healthy);
            let has_trades = self.record.have_trades_come(back, TRADES_SINCE);
            if (is_healthy && has_trades && now > back + AFTER) || now > deadline {
                return Ok(Recovered { is_healthy, has_trades, end: now });
            }
        }
    }

    /// Ends the load, and waits until every entry has come, or none has for long.
    async fn end_load(&mut self) {
        self.stop_load.cancel();
        while self.load.join_next().await.is_some() {}
        self.stop_moving.cancel();
        // The logs tell the entries that must still come from those that need not.
        self.record.logs = self.read_logs().await;
        settled(
            || (self.record.judge_lanes(), self.record.judge_mirrors()),
            |(judged, mirrored)| {
                let delivered: u64 = judged.values().map(|judged| judged.delivered).sum();
                let is_complete = judged.values().all(Judged::is_complete) && mirrored.is_complete();
                (is_complete, delivered + mirrored.keys - mirrored.stale)
            },
        )
        .await;
        self.record.logs = self.read_logs().await;
    }

    /// The logs of all channels, as shown by a gateway that says it is healthy.
    async fn read_logs(&self) -> Vec<Option<Log>> {
        let is_healthy = |node: &usize| self.record.health[*node].lock().state() == Some("healthy");
        let node = (0..self.world.nodes.len()).find(is_healthy).unwrap_or(0);
        let base = &self.world.nodes[node].base;
        let Ok(http) = base.http() else { return Vec::new() };
        let mut logs = Vec::new();
        for channel in &self.record.channels {
            let log = read::read_log(channel, base, &http, self.bounds).await;
            if let Err(error) = &log {
                eprintln!("    the log of {} could not be read: {error:#}", channel.name);
            }
            logs.push(log.ok());
        }
        logs
    }

    /// Reads all orders with new subscribers, each at another node than the first one that the order was
    /// posted at: what they do not get, the log has lost.
    async fn read_anew(&self) -> Judged {
        let (stop, mut reading) = (CancellationToken::new(), JoinSet::new());
        let mut readers = Vec::new();
        for (place, channel) in self.record.channels.iter().enumerate() {
            if channel.lane != Lane::Orders {
                continue;
            }
            let (node, seen) = (channel.nodes.first().copied().unwrap_or(0) + 1, Arc::default());
            reading.spawn(self.watcher(place, node, None, &seen).run(stop.clone()));
            readers.push((place, seen));
        }
        // The load has ended.
        let posts = self.record.posts();
        let judge = || {
            let mut judged = Judged::default();
            for (place, seen) in &readers {
                judged += self.record.judge_one(*place, &seen.lock().witness, &posts);
            }
            judged
        };
        let judged = settled(judge, |judged| (judged.is_complete(), judged.delivered)).await;
        stop.cancel();
        while reading.join_next().await.is_some() {}
        judged
    }

    /// Resident memory, by node; `None` for nodes that do not run.
    pub(super) fn memory(&self) -> Vec<Option<u64>> {
        self.world.nodes.iter().map(|node| rss_bytes(node.gateway.process.id()?).ok()).collect()
    }

    /// Ends the load and the deployment, and returns the outcome of these faults; `before` is the memory
    /// before them.
    async fn conclude(
        mut self,
        faults: &[Fault],
        times: &Times,
        recovered: &Recovered,
        before: Vec<Option<u64>>,
    ) -> anyhow::Result<Outcome> {
        self.end_load().await;
        let read_anew = self.read_anew().await;
        let judged = self.record.judge(faults, times, recovered.is_healthy);
        let mut outcome = Outcome { read_anew, trades_stopped: !recovered.has_trades, ..judged };
        let writes: Vec<Write> = self.written.iter().flat_map(|written| written.lock().clone()).collect();
        let held = registries::settled(&self.bases(), SETTLE).await?;
        outcome.records = registries::judge(&writes, &held, &self.record.course);
        if faults.iter().any(|fault| fault.kind == Kind::KillFeed) {
            outcome.taken_over_ms = self.world.taken_over.map(|at| ms(at - times.begun));
            let node = self.world.nodes.first().context("there is no gateway")?;
            outcome.fences = read::fences(&node.base, &node.base.http()?).await?;
        }
        let memory = before.into_iter().zip(self.memory());
        let grown = memory.filter_map(|(before, after)| Some((before?, after?)));
        if let Some((before, after)) = grown.max_by_key(|(before, after)| after.saturating_sub(*before)) {
            (outcome.memory_before_bytes, outcome.memory_after_bytes) = (Some(before), Some(after));
        }
        outcome.find_broken();
        // Everything ends, gateways before Redis.
        self.world.check_nodes()?;
        self.stop_watching.cancel();
        while self.watching.join_next().await.is_some() {}
        for node in &mut self.world.nodes {
            node.kill().await?;
        }
        self.world.redis.kill().await?;
        Ok(outcome)
    }
}

/// Judges until all entries have come, or none has for long; `how_far` returns whether all have, and how
/// many.
async fn settled<T>(judge: impl Fn() -> T, how_far: impl Fn(&T) -> (bool, u64)) -> T {
    let deadline = Instant::now() + SETTLE_MAX;
    let (mut delivered, mut since) = (0, Instant::now());
    loop {
        let judged = judge();
        let (is_complete, now_delivered) = how_far(&judged);
        let now = Instant::now();
        if now_delivered > delivered {
            (delivered, since) = (now_delivered, now);
        }
        if is_complete || now - since > SETTLE || now > deadline {
            return judged;
        }
        time::sleep(LOOK_EVERY * 4).await;
    }
}

/// The channels: orders, each at one or two of the nodes; zones on either lane, and durable and live events,
/// at all nodes.
fn channels(setup: &Setup) -> anyhow::Result<Vec<Channel>> {
    let nodes = |order: usize| {
        let first = order % setup.load.nodes;
        let is_at_two = setup.load.nodes > 1 && order % ORDERS_AT_TWO == ORDERS_AT_TWO - 1;
        if is_at_two { vec![first, (first + 1) % setup.load.nodes] } else { vec![first] }
    };
    let mut channels: Vec<Channel> =
        (0..setup.load.orders).map(|order| Channel::order(nodes(order))).collect();
    for zone in 0..setup.load.zones {
        let (lane, name) = if zone % 2 == 0 { (Lane::Latest, "latest") } else { (Lane::Every, "every") };
        let zone: Zone = format!("outage-{name}-{zone}").parse().context("a bad name of a zone")?;
        channels.push(Channel::zone(zone, lane, setup.load.nodes));
    }
    channels.push(Channel::event(EventType::Trade, Lane::Events, setup.load.nodes));
    channels.push(Channel::event(EventType::Ticker, Lane::Live, setup.load.nodes));
    Ok(channels)
}

fn settings(setup: &Setup, channels: &[Channel]) -> Vec<String> {
    let mut settings = vec![
        format!("storage.redis.prefix={}", setup.prefix),
        "http.shards=2".to_owned(),
        "http.drain_s=0".to_owned(),
        "bridge.enabled=true".to_owned(),
        // On a shared Redis nobody else is to hear it.
        format!("bridge.prefix={}:", setup.prefix),
    ];
    if setup.load.logs.is_some() {
        // This level shows what became of each entry.
        settings.push("log.level=info,zonewire::storage=debug,zonewire::channels=debug".to_owned());
    }
    let every = channels.iter().filter(|channel| channel.lane == Lane::Every);
    settings.extend(every.map(|channel| format!("channels.lanes.{}=every", channel.name.subject())));
    settings.extend(setup.load.settings.iter().cloned());
    settings
}

/// The setting with which a gateway has a feed from the exchange.
fn feed(exchange: &Exchange) -> String {
    let (url, api_url) = (exchange.url(), exchange.api_url());
    format!(
        "feeds.exchanges=[{{kind=\"{FEED}\",url=\"{url}\",api_url=\"{api_url}\",symbols=[\"{SYMBOL}\"],\
         types=[\"trade\"]}}]"
    )
}

/// Starts a gateway repeatedly until it finds Redis; only once if there is none.
async fn start_healthy(start: Start, is_absent: bool) -> anyhow::Result<Node> {
    for _ in 0..STARTS_MAX {
        let mut node = Node::start(start.clone()).await?;
        if is_absent || is_healthy_soon(&node).await? {
            return Ok(node);
        }
        node.kill().await?;
    }
    bail!("gateway {} did not find Redis", start.index)
}

async fn is_healthy_soon(node: &Node) -> anyhow::Result<bool> {
    let (http, within) = (node.base.http()?, READY_PATIENCE / STARTS_MAX);
    let healthy = eventually("a gateway is healthy", within, async || {
        let health = health(&node.base, &http, poll::ANSWER_TIMEOUT).await.ok()?;
        health.storage.state.is(BackendState::Healthy).then_some(())
    });
    Ok(healthy.await.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(settings: &[&str]) -> Setup {
        let load = LoadArgs {
            nodes: 3,
            orders: 8,
            zones: 2,
            rate: 1.0,
            order_rate: 1.0,
            logs: None,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        };
        let (gateway, prefix) = (PathBuf::new(), "test".to_owned());
        Setup { gateway, load, redis: None, prefix, seed: 7, access: None }
    }

    #[test]
    fn what_gateways_are_told_of_their_logs_counts_for_the_suite_too() {
        let bounds = setup(&[]).bounds();
        assert_eq!((bounds.entries, bounds.updates), (10_000, 50));
        let changed = setup(&[
            "storage.retention.entries=1",
            "storage.retention.orders.updates=7",
            "storage.retention.entries=200",
            "storage.redis.ordering_deadline_ms=3",
        ]);
        assert_eq!((changed.bounds().entries, changed.bounds().updates), (200, 7));
        assert_eq!(changed.ordering_deadline(), Duration::from_millis(3));
    }

    #[test]
    fn some_orders_are_told_of_at_two_gateways_and_a_latecomer_watches_each_of_these() {
        let channels = channels(&setup(&[])).unwrap();
        let at_two: Vec<usize> = (0..8).filter(|place| channels[*place].nodes.len() == 2).collect();
        assert_eq!(at_two, [3, 7]);
        assert!(at_two.iter().all(|place| place % ORDERS_EACH != 0));
        assert_eq!(channels[3].nodes, [0, 1]);
        let followed: Vec<bool> = (0..3).map(|node| channels[3].is_followed_at(node)).collect();
        assert_eq!(followed, [true, false, false]);
        assert!((0..3).all(|node| channels[2].is_followed_at(node) && channels[8].is_followed_at(node)));
        let mut alone = setup(&[]);
        alone.load.nodes = 1;
        assert!(super::channels(&alone).unwrap()[..8].iter().all(|channel| channel.nodes == [0]));
    }
}
