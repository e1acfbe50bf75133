//! One deployment under load: brought up, harmed, watched until it has recovered, and judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::faults::{Fault, Kind, Redis, Truth, World};
use super::load::{Channel, Posted, Producer};
use super::poll;
use super::process::{Data, Node, RedisServer, Start, TempDir};
use super::proxy::Proxy;
use super::report::{Outcome, Tally, ms};
use super::resp::Target;
use super::schedule::Planned;
use super::timeline::{Down, Said};
use super::watch::{Seen, Silences, Watcher};
use super::witness::{Judged, Lane, Post};
use crate::cli::bench::cpu::rss_bytes;
use crate::model::Zone;

/// How long all goes well before the fault.
const WARM: Duration = Duration::from_secs(3);
/// How long it goes on, at the least, once Redis serves again.
const AFTER: Duration = Duration::from_secs(3);
/// For how long a gateway must have said that it is healthy, to have recovered.
const STEADY: Duration = Duration::from_secs(1);
/// How long that may take.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(40);
/// After the load has ended: how long nothing may come while something is missing, before it counts as lost.
const SETTLE: Duration = Duration::from_secs(10);
/// And how long it may take in all.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long gateways may take to be healthy at first, and subscribers to be subscribed.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How often a gateway is started that does not find Redis, as may happen on a busy machine.
const STARTS_MAX: u32 = 4;
/// A fault that lasts this long must be noticed.
const NOTICEABLE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a deployment is made of.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) nodes: usize,
    pub(super) orders: usize,
    pub(super) zones: usize,
    /// Prices per second and zone, of all nodes together.
    pub(super) rate: f64,
    /// Updates per second and order.
    pub(super) order_rate: f64,
    /// Somebody's Redis, instead of one of the suite's own.
    pub(super) redis: Option<Target>,
    /// What the keys begin with.
    pub(super) prefix: String,
    pub(super) logs: Option<PathBuf>,
    /// Whether it is a broken promise to notice a fault too late.
    pub(super) judges_timing: bool,
}

/// A deployment under load.
struct Session {
    world: World,
    channels: Vec<Channel>,
    posted: Vec<(usize, usize, Arc<Mutex<Posted>>)>,
    seen: Vec<(usize, usize, Arc<Mutex<Seen>>)>,
    said: Vec<Arc<Mutex<Said>>>,
    silences: Vec<Arc<Silences>>,
    pace: Arc<Mutex<Duration>>,
    /// When all was there.
    start: Instant,
    stop_load: CancellationToken,
    load: JoinSet<()>,
    stop_watching: CancellationToken,
    watching: JoinSet<()>,
    /// Where gateways keep copies of their journals; goes after them.
    _spool: Option<TempDir>,
}

/// When what happened, for judging.
struct Times {
    begun: Instant,
    back: Instant,
    end: Instant,
    /// By node.
    downs: Vec<Vec<Down>>,
}

/// Runs one fault in a deployment of its own.
pub(super) async fn one(setup: &Setup, fault: &Fault) -> anyhow::Result<Outcome> {
    let mut session =
        Session::open(setup, fault.kind == Kind::Absent, fault.needs_spool(), fault.name).await?;
    let mut begun = session.start;
    if fault.kind != Kind::Absent {
        time::sleep(WARM / 2).await;
        session.world.prepare(fault).await?;
        time::sleep(WARM / 2).await;
    }
    let before = session.memory();
    session.restart_silences();
    session.world.begin(fault).await?;
    if fault.kind != Kind::Absent {
        begun = Instant::now();
    }
    session.world.hold(fault).await?;
    let ending = Instant::now();
    session.world.end(fault).await?;
    let back = Instant::now();
    let down = |node| {
        (fault.truth == Truth::Down && fault.reaches(node)).then_some(Down { from: begun, to: ending })
    };
    let downs = (0..setup.nodes).map(|node| down(node).into_iter().collect()).collect();
    let (recovered, end) = session.recover(back).await?;
    let times = Times { begun, back, end, downs };
    session.end_load().await;
    let anew = session.read_anew().await;
    let memory = before.into_iter().zip(session.memory()).collect();
    let mut outcome = session.judge(&[*fault], &times, recovered, memory);
    // Some end by themselves.
    outcome.held_s = (ending - begun).as_secs_f64();
    outcome.read_anew = Tally::from(&anew);
    outcome.find_broken(fault.notice.filter(|_| setup.judges_timing));
    if fault.truth == Truth::Down && fault.hold >= NOTICEABLE && outcome.noticed_ms.is_none() {
        outcome.broken.push("not every gateway said that Redis does not serve".to_owned());
    }
    session.close().await?;
    Ok(outcome)
}

/// Runs one fault after the other in one deployment, as planned.
pub(super) async fn random(setup: &Setup, plan: &[Planned]) -> anyhow::Result<Outcome> {
    let mut session = Session::open(setup, false, false, "random").await?;
    time::sleep(WARM).await;
    let before = session.memory();
    session.restart_silences();
    let begun = Instant::now();
    let mut downs = vec![Vec::new(); setup.nodes];
    for (number, Planned { pause, fault }) in plan.iter().enumerate() {
        session.world.prepare(fault).await?;
        time::sleep(*pause).await;
        eprintln!("  {}/{}: {} for {:.1} s", number + 1, plan.len(), fault.name, fault.hold.as_secs_f64());
        session.world.begin(fault).await?;
        let from = Instant::now();
        session.world.hold(fault).await?;
        let to = Instant::now();
        session.world.end(fault).await?;
        session.world.check_nodes()?;
        for (node, downs) in downs.iter_mut().enumerate() {
            if fault.truth == Truth::Down && fault.reaches(node) {
                downs.push(Down { from, to });
            }
        }
    }
    let back = Instant::now();
    let (recovered, end) = session.recover(back).await?;
    session.end_load().await;
    let anew = session.read_anew().await;
    let memory = before.into_iter().zip(session.memory()).collect();
    let faults: Vec<Fault> = plan.iter().map(|planned| planned.fault).collect();
    let mut outcome = session.judge(&faults, &Times { begun, back, end, downs }, recovered, memory);
    // Of many faults the first one's notice says nothing.
    (outcome.noticed_ms, outcome.socket_told_ms) = (None, None);
    outcome.read_anew = Tally::from(&anew);
    outcome.find_broken(None);
    session.close().await?;
    Ok(outcome)
}

impl Session {
    async fn open(setup: &Setup, is_absent: bool, spools: bool, name: &str) -> anyhow::Result<Self> {
        let mut redis = match &setup.redis {
            Some(target) => Redis::Theirs(target.clone()),
            None => Redis::Own(Box::new(RedisServer::prepare()?)),
        };
        if let Redis::Own(server) = &mut redis
            && !is_absent
        {
            server.start(Data::Empty)?;
            server.wait_until_it_serves().await?;
        }
        let probe = format!("{}-probe", setup.prefix);
        let mut world = World { nodes: Vec::new(), proxies: Vec::new(), redis, probe };
        let channels = channels(setup)?;
        let spool = if spools { Some(TempDir::new()?) } else { None };
        for index in 0..setup.nodes {
            let proxy = Proxy::start(world.redis.target().address).await?;
            let mut settings = settings(setup, &channels);
            if let Some(spool) = &spool {
                let dir = spool.path().join(index.to_string());
                std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
                settings.push(format!("storage.journal.spool.data_dir={}", dir.display()));
            }
            let start = Start {
                index,
                redis_url: world.redis.target().through(proxy.address),
                settings,
                log: setup.logs.as_ref().map(|dir| dir.join(format!("{name}-{index}.log"))),
            };
            world.proxies.push(proxy);
            world.nodes.push(start_healthy(start, is_absent).await?);
        }
        let mut session = Self {
            said: world.nodes.iter().map(|_| Arc::default()).collect(),
            silences: world.nodes.iter().map(|_| Arc::new(Silences::since(Instant::now()))).collect(),
            world,
            channels,
            posted: Vec::new(),
            seen: Vec::new(),
            pace: Arc::default(),
            start: Instant::now(),
            stop_load: CancellationToken::new(),
            load: JoinSet::new(),
            stop_watching: CancellationToken::new(),
            watching: JoinSet::new(),
            _spool: spool,
        };
        session.watch()?;
        session.until_subscribed().await?;
        session.start = Instant::now();
        session.start_load(setup)?;
        Ok(session)
    }

    /// Subscribes each channel at each node, and begins to ask how they are.
    fn watch(&mut self) -> anyhow::Result<()> {
        for (node, process) in self.world.nodes.iter().enumerate() {
            let (base, stop) = (&process.base, &self.stop_watching);
            let said = Arc::clone(&self.said[node]);
            self.watching.spawn(poll::health(base.clone(), base.http()?, said, stop.clone()));
            for (place, channel) in self.channels.iter().enumerate() {
                let seen = Arc::default();
                self.seen.push((place, node, Arc::clone(&seen)));
                let silences = Arc::clone(&self.silences[node]);
                let watcher = Watcher { channel: channel.clone(), node, base: base.clone(), seen, silences };
                self.watching.spawn(watcher.run(stop.clone()));
            }
        }
        self.watching.spawn(poll::pace(Arc::clone(&self.pace), self.stop_watching.clone()));
        Ok(())
    }

    async fn until_subscribed(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        loop {
            let missing = self.seen.iter().filter(|(.., seen)| !seen.lock().is_subscribed).count();
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{missing} of {} sockets were not subscribed within {READY_PATIENCE:?}",
                    self.seen.len()
                );
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    fn start_load(&mut self, setup: &Setup) -> anyhow::Result<()> {
        for (node, process) in self.world.nodes.iter().enumerate() {
            let http = process.base.http()?;
            let here = self.channels.iter().enumerate().filter(|(_, channel)| channel.nodes.contains(&node));
            let here: Vec<_> = here.collect();
            for (number, (place, channel)) in here.iter().enumerate() {
                let per_s = match channel.lane {
                    Lane::Order => setup.order_rate,
                    Lane::Latest | Lane::Every => setup.rate / channel.nodes.len() as f64,
                };
                let every = Duration::from_secs_f64(1.0 / per_s);
                let posted = Arc::default();
                self.posted.push((*place, node, Arc::clone(&posted)));
                let producer = Producer {
                    channel: (*channel).clone(),
                    node,
                    base: process.base.clone(),
                    http: http.clone(),
                    every,
                    delay: every.mul_f64(number as f64 / here.len() as f64),
                    posted,
                };
                self.load.spawn(producer.run(self.stop_load.clone()));
            }
        }
        Ok(())
    }

    fn restart_silences(&self) {
        let now = Instant::now();
        self.silences.iter().for_each(|silences| silences.restart(now));
        *self.pace.lock() = Duration::ZERO;
    }

    /// Waits until all gateways are healthy again; says whether they are, and when the waiting ended.
    async fn recover(&mut self, back: Instant) -> anyhow::Result<(bool, Instant)> {
        let deadline = back + RECOVERY_PATIENCE;
        loop {
            time::sleep(LOOK_EVERY).await;
            self.world.check_nodes()?;
            let now = Instant::now();
            let is_healthy =
                |said: &Arc<Mutex<Said>>| now - back > STEADY && said.lock().is_healthy_since(now - STEADY);
            let recovered = self.said.iter().all(is_healthy);
            if (recovered && now > back + AFTER) || now > deadline {
                return Ok((recovered, now));
            }
        }
    }

    /// Ends the load, and waits until all has come, or nothing has for long.
    async fn end_load(&mut self) {
        self.stop_load.cancel();
        while self.load.join_next().await.is_some() {}
        settled(
            || self.judge_lanes(None),
            |judged| {
                let delivered = judged.values().map(|judged| judged.delivered).sum();
                (judged.values().all(Judged::is_complete), delivered)
            },
        )
        .await;
    }

    /// Reads all orders with new subscribers, each at another node than the one that it was told of
    /// at: what they are not told, the log has lost.
    async fn read_anew(&self) -> Judged {
        let (stop, mut reading) = (CancellationToken::new(), JoinSet::new());
        let mut readers = Vec::new();
        for (place, by, posted) in &self.posted {
            let channel = &self.channels[*place];
            if channel.lane != Lane::Order {
                continue;
            }
            let node = (by + 1) % self.world.nodes.len();
            let base = self.world.nodes[node].base.clone();
            let (seen, silences) = (Arc::<Mutex<Seen>>::default(), Arc::new(Silences::since(Instant::now())));
            readers.push((Arc::clone(&seen), *by, posted));
            reading.spawn(Watcher { channel: channel.clone(), node, base, seen, silences }.run(stop.clone()));
        }
        let judge = || {
            let mut judged = Judged::default();
            for (seen, by, posted) in &readers {
                let (seen, posted) = (seen.lock(), posted.lock());
                judged.add(&seen.witness.judge(Lane::Order, &[(*by, &posted.posts)], None));
            }
            judged
        };
        let judged = settled(judge, |judged| (judged.is_complete(), judged.delivered)).await;
        stop.cancel();
        while reading.join_next().await.is_some() {}
        judged
    }

    /// Some of what was lost, for people who look for the reason; `begun` is when the fault was.
    fn lost_examples(&self, begun: Instant) -> Vec<String> {
        const EXAMPLES_MAX: usize = 10;
        let mut examples = Vec::new();
        for (place, watched_at, seen) in &self.seen {
            let channel = &self.channels[*place];
            for (_, by, posted) in self.posted.iter().filter(|(posted_to, ..)| posted_to == place) {
                let posts = posted.lock().posts.clone();
                for (_, n) in seen.lock().witness.judge(channel.lane, &[(*by, &posts)], None).examples {
                    let post = usize::try_from(n).ok().and_then(|n| posts.get(n - 1));
                    let accepted = post.and_then(|post| post.accepted);
                    let after = accepted.map(|at| at.saturating_duration_since(begun).as_millis());
                    let (name, after) = (&channel.name, after.unwrap_or_default());
                    examples.push(format!(
                        "{name}: {n} of gateway {by}, accepted {after} ms after the fault, at a subscriber of gateway {watched_at}"
                    ));
                }
            }
        }
        examples.truncate(EXAMPLES_MAX);
        examples
    }

    /// What is wrong by now, by lane.
    fn judge_lanes(&self, before: Option<Instant>) -> BTreeMap<&'static str, Judged> {
        let mut posts: Vec<Vec<(usize, Vec<Post>)>> = vec![Vec::new(); self.channels.len()];
        for (place, node, posted) in &self.posted {
            posts[*place].push((*node, posted.lock().posts.clone()));
        }
        let mut lanes: BTreeMap<&str, Judged> =
            ["orders", "every", "latest"].map(|name| (name, Judged::default())).into();
        for (place, _, seen) in &self.seen {
            let posts: Vec<(usize, &[Post])> =
                posts[*place].iter().map(|(by, posts)| (*by, &posts[..])).collect();
            let lane = self.channels[*place].lane;
            lanes.entry(lane_name(lane)).or_default().add(&seen.lock().witness.judge(lane, &posts, before));
        }
        lanes
    }

    /// Resident memory by node, of those that run.
    fn memory(&self) -> Vec<Option<u64>> {
        self.world.nodes.iter().map(|node| rss_bytes(node.pid()?).ok()).collect()
    }

    fn judge(
        &self,
        faults: &[Fault],
        times: &Times,
        recovered: bool,
        memory: Vec<(Option<u64>, Option<u64>)>,
    ) -> Outcome {
        let judged = self.judge_lanes(Some(times.back));
        let tally = |lane: Lane| {
            let posted = self.posted.iter().filter(|(place, ..)| self.channels[*place].lane == lane);
            let mut tally = Tally::from(&judged[lane_name(lane)]);
            for (_, _, posted) in posted {
                let posted = posted.lock();
                tally.posted += posted.posts.len() as u64;
                tally.accepted += posted.posts.iter().filter(|post| post.accepted.is_some()).count() as u64;
                for (code, count) in &posted.refused {
                    *tally.refused.entry(code.clone()).or_default() += count;
                }
            }
            tally
        };
        let runs = |node: usize| !faults.iter().any(|fault| fault.stops_node(node));
        let running = (0..self.said.len()).filter(|node| runs(*node));
        let silence = |of: &dyn Fn(&Silences) -> Duration| {
            let longest = running.clone().map(|node| of(&self.silences[node])).max();
            longest.map(ms)
        };
        let reached: Vec<usize> =
            (0..self.said.len()).filter(|node| faults.iter().any(|fault| fault.reaches(*node))).collect();
        let after = |from: Instant, at: Instant| ms(at.saturating_duration_since(from));
        let noticed = reached.iter().map(|node| self.said[*node].lock().noticed_after(times.begun));
        let noticed = noticed.collect::<Option<Vec<_>>>().and_then(|noticed| noticed.into_iter().max());
        let told = self.seen.iter().filter(|(_, node, _)| reached.contains(node)).filter_map(|(.., seen)| {
            let seen = seen.lock();
            seen.states.iter().find(|(at, state)| *at >= times.begun && state != "healthy").map(|(at, _)| *at)
        });
        let healthy_at = self.said.iter().filter_map(|said| said.lock().recovered_after(times.begun)).max();
        let worst = |of: &dyn Fn(usize, &Said) -> Duration| {
            let each = self.said.iter().enumerate().map(|(node, said)| of(node, &said.lock()));
            each.max().map_or(0.0, ms)
        };
        let mut cuts: BTreeMap<String, u64> = BTreeMap::new();
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        let mut cut_by_fault = 0;
        for (_, node, seen) in &self.seen {
            let seen = seen.lock();
            for (code, count) in &seen.errors {
                *errors.entry(code.clone()).or_default() += count;
            }
            if faults.iter().any(|fault| fault.cuts_sockets_of(*node)) {
                cut_by_fault += seen.cuts.values().sum::<u64>();
                continue;
            }
            for (why, count) in &seen.cuts {
                *cuts.entry(why.clone()).or_default() += count;
            }
        }
        let caught_up = judged.values().filter_map(|judged| judged.caught_up).max();
        let grown = memory.into_iter().filter_map(|(before, after)| Some((before?, after?)));
        let grown = grown.max_by_key(|(before, after)| after.saturating_sub(*before));
        let first = faults.first();
        Outcome {
            fault: if faults.len() == 1 { first.map_or("", |fault| fault.name) } else { "random" }.to_owned(),
            faults: faults.len() as u64,
            about: if faults.len() == 1 {
                first.map_or("", |fault| fault.about)
            } else {
                "faults from a seed"
            }
            .to_owned(),
            held_s: faults.iter().map(|fault| fault.hold).sum::<Duration>().as_secs_f64(),
            orders: tally(Lane::Order),
            every: tally(Lane::Every),
            latest: tally(Lane::Latest),
            silence_latest_ms: silence(&|silences| silences.latest.lock().longest(times.end)),
            silence_every_ms: silence(&|silences| silences.every.lock().longest(times.end)),
            noticed_ms: noticed.map(|at| after(times.begun, at)),
            socket_told_ms: told.max().map(|at| after(times.begun, at)),
            recovered,
            recovered_ms: healthy_at.map(|at| after(times.back, at)),
            caught_up_ms: caught_up.map(|at| after(times.back, at)),
            falsely_healthy_ms: worst(&|node, said| said.falsely_healthy(&times.downs[node])),
            falsely_degraded_ms: worst(&|_, said| {
                said.falsely_degraded(self.start, times.begun, times.back, times.end)
            }),
            health_unanswered: running.clone().map(|node| self.said[node].lock().unanswered()).sum(),
            sockets: self.seen.len() as u64,
            sockets_cut: cuts.values().sum(),
            cut_by_the_fault: cut_by_fault,
            cuts,
            errors,
            memory_before_bytes: grown.map(|(before, _)| before),
            memory_after_bytes: grown.map(|(_, after)| after),
            suite_late_ms: ms(*self.pace.lock()),
            lost_examples: self.lost_examples(times.begun),
            read_anew: Tally::default(),
            broken: Vec::new(),
        }
    }

    /// Ends all of it, gateways before Redis.
    async fn close(mut self) -> anyhow::Result<()> {
        self.world.check_nodes()?;
        self.stop_watching.cancel();
        while self.watching.join_next().await.is_some() {}
        for node in &mut self.world.nodes {
            node.kill().await?;
        }
        if let Redis::Own(server) = &mut self.world.redis {
            server.kill().await?;
        }
        Ok(())
    }
}

/// Judges until all is there, or nothing more has come for long; `how_far` says whether it is, and how
/// much has come.
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

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Order => "orders",
        Lane::Every => "every",
        Lane::Latest => "latest",
    }
}

/// Orders, each at one of the nodes, and zones on either lane, at all of them.
fn channels(setup: &Setup) -> anyhow::Result<Vec<Channel>> {
    let mut channels: Vec<Channel> =
        (0..setup.orders).map(|order| Channel::order(order % setup.nodes)).collect();
    for zone in 0..setup.zones {
        let lane = if zone % 2 == 0 { Lane::Latest } else { Lane::Every };
        let zone: Zone =
            format!("outage-{}-{zone}", lane_name(lane)).parse().context("a bad name of a zone")?;
        channels.push(Channel::zone(zone, lane, setup.nodes));
    }
    Ok(channels)
}

fn settings(setup: &Setup, channels: &[Channel]) -> Vec<String> {
    let mut settings = vec![
        format!("storage.redis.prefix={}", setup.prefix),
        "http.shards=2".to_owned(),
        "http.drain_s=0".to_owned(),
    ];
    let every = channels.iter().filter(|channel| channel.lane == Lane::Every);
    settings.extend(every.map(|channel| format!("channels.lanes.{}=every", channel.name.subject())));
    settings
}

/// Starts a gateway until it has found Redis; where there is none, once.
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
    let (http, said, stop) =
        (node.base.http()?, Arc::new(Mutex::new(Said::default())), CancellationToken::new());
    let mut asking = JoinSet::new();
    asking.spawn(poll::health(node.base.clone(), http, Arc::clone(&said), stop.clone()));
    let deadline = Instant::now() + READY_PATIENCE / STARTS_MAX;
    let is_healthy = loop {
        if said.lock().state() == Some("healthy") {
            break true;
        }
        if Instant::now() > deadline {
            break false;
        }
        time::sleep(LOOK_EVERY).await;
    };
    stop.cancel();
    while asking.join_next().await.is_some() {}
    Ok(is_healthy)
}
