//! `--soak`: whether a gateway and its Redis return to what they held before, once the load has ended.
//!
//! One gateway with authentication runs on a Redis behind a proxy. Load and subscribers are those of all
//! other runs, and are judged in the same way: nothing may be lost. Besides, clients of every kind come and
//! go (`churn`), and Redis is away now and then. This goes on for a while as a warm-up, after which
//! everything permanent exists. What gateway and Redis hold then (`sample`) is what they must come back to
//! (`verdict`).

mod churn;
mod realm;
mod sample;
mod verdict;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::LoadArgs;
use super::faults::{self, Fault};
use super::outcome::Outcome;
use super::report::{as_markdown, lay_out, machine, table};
use super::schedule::Planned;
use super::session::{Past, Session, Setup};
use churn::{Client, ResultsByAct};
use realm::Realm;
use sample::{Keys, Sample, Sampler};
use verdict::{BOUNDED, KEPT, MEMORY, MIB, bound_of, left};

/// The most orders and zones: the subject here is churn.
const ORDERS_MAX: usize = 6;
const ZONES_MAX: usize = 4;
/// Logs are full by the end of the warm-up, and take no more memory from then on.
const LOGS: &str = "storage.retention.entries=500";
/// Logs of orders expire soon after the last update.
const ORDERS: &str = "storage.retention.orders.age_s=5";
/// The kinds of outages. None of these faults loses anything.
const AWAY: [&str; 7] =
    ["cut", "killed-aof", "client-kill", "black-hole", "replies-cut", "frozen", "client-kill-pubsub"];
/// One outage in this time, but at least three.
const AWAY_EVERY: Duration = Duration::from_secs(45);
/// How long each lasts, in milliseconds.
const AWAY_MS: std::ops::RangeInclusive<u64> = 300..=5_000;
/// The warm-up's share of the whole length, within these bounds.
const WARM_SHARE: u32 = 4;
const WARM: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(120)];
/// How often a sample is noted down.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The values are at rest when they are equal for this many looks. The greatest of these counts, because
/// subscribers that move are sometimes between two connections.
const LOOKS: usize = 4;
/// How long it may take to return to the values from before.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);

/// The result of a soak.
#[derive(Debug)]
pub(super) struct Soaked {
    length: Duration,
    warm: Duration,
    seed: u64,
    /// The samples, with the time after which each was taken.
    samples: Vec<(Duration, Sample, u64)>,
    before: Sample,
    after: Sample,
    /// How long the return took.
    returned: Duration,
    /// What has not returned.
    left: Vec<String>,
    results: ResultsByAct,
    pub(super) outcome: Outcome,
}

/// Runs a soak.
pub(super) async fn run(setup: &Setup, length: Duration) -> anyhow::Result<Soaked> {
    let realm = Realm::new()?;
    let load = LoadArgs {
        nodes: 1,
        orders: setup.load.orders.min(ORDERS_MAX),
        zones: setup.load.zones.min(ZONES_MAX),
        settings: [vec![LOGS.to_owned(), ORDERS.to_owned()], setup.load.settings.clone()].concat(),
        ..setup.load.clone()
    };
    let setup = Setup { load, access: Some(realm.access()), ..setup.clone() };
    let mut session = Session::open(&setup, None).await?;
    let node = session.world.nodes.first().context("there is no gateway")?;
    let target = session.world.redis.target().context("there is no Redis")?;
    let sampler = Sampler {
        base: node.base.clone(),
        http: node.base.http()?,
        pid: node.pid()?,
        redis: target.clone(),
        prefix: setup.prefix.clone(),
    };
    let client = Client::new(&node.base, realm)?;
    let mut past = Past::of(setup.load.nodes);

    let warm = (length / WARM_SHARE).clamp(WARM[0], WARM[1]);
    eprintln!("  warming up for {} s", warm.as_secs());
    client.begin_all().await?;
    churn(&mut session, &client, &plan(setup.seed, warm)?, &mut past, warm).await?;
    let before = at_rest(&sampler).await?;
    let (memory, begun) = (session.memory(), Instant::now());

    eprintln!("  for {} s", length.as_secs());
    let plan = plan(setup.seed.wrapping_add(1), length)?;
    let samples = Arc::new(Mutex::new(vec![(Duration::ZERO, before.clone(), acts(&client.results()))]));
    let (stop, mut sampling) = (CancellationToken::new(), JoinSet::new());
    sampling.spawn(keep_sampling(sampler.clone(), Arc::clone(&client), Arc::clone(&samples), stop.clone()));
    let churned = churn(&mut session, &client, &plan, &mut past, length).await;
    stop.cancel();
    while sampling.join_next().await.is_some() {}
    churned?;

    let back = Instant::now();
    let (after, left) = until_returned(&sampler, &before).await?;
    let returned = back.elapsed();
    let samples = std::mem::take(&mut *samples.lock());
    let mut outcome = session.end_of(&plan, past, begun, back, memory).await?;
    outcome.fault = "soak".to_owned();
    let results = client.results();
    Ok(Soaked { length, warm, seed: setup.seed, samples, before, after, returned, left, results, outcome })
}

/// Lets clients come and go for this long, while Redis is away as planned; at the end all of them have left.
async fn churn(
    session: &mut Session,
    client: &Arc<Client>,
    plan: &[Planned],
    past: &mut Past,
    length: Duration,
) -> anyhow::Result<()> {
    let (stop, end) = (CancellationToken::new(), Instant::now() + length);
    let mut workers = client.begin(&stop);
    let gone = session.go_through(plan, past).await;
    if gone.is_ok() {
        time::sleep_until(end).await;
    }
    stop.cancel();
    while workers.join_next().await.is_some() {}
    gone?;
    client.tidy().await
}

/// The times and kinds of outages, decided by the seed.
fn plan(seed: u64, length: Duration) -> anyhow::Result<Vec<Planned>> {
    let mut random = StdRng::seed_from_u64(seed);
    let count = (length.as_secs() / AWAY_EVERY.as_secs()).max(3);
    let each = length.div_f64(count as f64 + 0.5);
    let first = random.random_range(0..AWAY.len());
    (0..usize::try_from(count)?)
        .map(|number| {
            let name = AWAY[(first + number) % AWAY.len()];
            let fault = faults::find(name).with_context(|| format!("there is no fault `{name}`"))?;
            let hold = Duration::from_millis(random.random_range(AWAY_MS)).min(each / 3);
            Ok(Planned { pause: each - hold, fault: Fault { hold, ..*fault } })
        })
        .collect()
}

async fn keep_sampling(
    sampler: Sampler,
    client: Arc<Client>,
    samples: Arc<Mutex<Vec<(Duration, Sample, u64)>>>,
    stop: CancellationToken,
) {
    let begun = Instant::now();
    let mut ticks = time::interval_at(begun + SAMPLE_EVERY, SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sampler.sample().await {
            Ok(sample) => samples.lock().push((begun.elapsed(), sample, acts(&client.results()))),
            Err(error) => eprintln!("    no sample: {error:#}"),
        }
    }
}

fn acts(results: &ResultsByAct) -> u64 {
    results.values().map(|of_act| of_act.done).sum()
}

/// A sample once the values are at rest, or when time is up; each value is the greatest of the last looks.
async fn at_rest(sampler: &Sampler) -> anyhow::Result<Sample> {
    let deadline = Instant::now() + RETURN_PATIENCE;
    let mut looks: Vec<Sample> = Vec::new();
    loop {
        looks.push(sampler.sample().await?);
        let recent = &looks[looks.len().saturating_sub(LOOKS)..];
        let greatest = recent.iter().skip(1).fold(recent[0].clone(), Sample::greatest);
        let restless: Vec<String> = recent.iter().flat_map(|look| left(look, &greatest)).collect();
        if recent.len() == LOOKS && restless.is_empty() && recent.iter().all(|look| look.redis.is_some()) {
            return Ok(greatest);
        }
        if Instant::now() > deadline {
            eprintln!("  not at rest: {}", restless.join("; "));
            return Ok(greatest);
        }
        time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until no value is greater than before; returns the values that stay greater. Of each value the least
/// one seen counts, because the load continues, and a value that has returned once is not a leak.
async fn until_returned(sampler: &Sampler, before: &Sample) -> anyhow::Result<(Sample, Vec<String>)> {
    let deadline = Instant::now() + RETURN_PATIENCE;
    let mut least = sampler.sample().await?;
    loop {
        let left = left(before, &least);
        if left.is_empty() || Instant::now() > deadline {
            return Ok((least, left));
        }
        time::sleep(LOOK_EVERY).await;
        least = least.least(&sampler.sample().await?);
    }
}

impl Soaked {
    /// What is wrong with the result; empty if it is good.
    pub(super) fn faults(&self) -> Vec<String> {
        let idle = self.results.iter().filter(|(_, of_act)| of_act.done == 0);
        let idle = idle.map(|(name, of_act)| format!("{name}: none as it should ({})", of_act.why));
        self.left.iter().chain(&self.outcome.broken).cloned().chain(idle).collect()
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let others = self.results.iter().filter(|(_, of_act)| of_act.failed > 0);
        let others: String = others
            .map(|(name, of_act)| format!("{name}: {} otherwise, such as {}\n", of_act.failed, of_act.why))
            .collect();
        format!(
            "{}\n{}\n{}\n{others}{}\n",
            lay_out(&self.samples_table()),
            lay_out(&self.growth_table()),
            lay_out(&self.acts_table()),
            self.verdict()
        )
    }

    /// For a document.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        let (version, machine) = (env!("CARGO_PKG_VERSION"), machine());
        let (length, warm) = (spell(self.length), spell(self.warm));
        // Writing to a string cannot fail.
        let _written = writeln!(
            out,
            "Version {version}; {length} after {warm} of warming up; seed {}. {machine}\n\n{}\n",
            self.seed,
            self.verdict()
        );
        out += &as_markdown(&self.samples_table());
        out.push('\n');
        out += &as_markdown(&self.growth_table());
        out.push('\n');
        out += &as_markdown(&self.acts_table());
        out.trim_end().to_owned()
    }

    fn verdict(&self) -> String {
        let faults = self.faults();
        let came = self.outcome.tallies.values().fold((0, 0), |(accepted, delivered), tally| {
            (accepted + tally.accepted, delivered + tally.judged.delivered)
        });
        match faults.is_empty() {
            true => format!(
                "All came back within {:.0} s after the load; of {} accepted entries all came to those who followed \
                 ({} deliveries), through {} outages.",
                self.returned.as_secs_f64(),
                came.0,
                came.1,
                self.outcome.faults
            ),
            false => format!("NOT GOOD: {}", faults.join("; ")),
        }
    }

    /// The samples, minute by minute.
    fn samples_table(&self) -> Vec<Vec<String>> {
        let mib = |bytes: f64| format!("{:.1}", bytes / MIB);
        let row = |minute: String, sample: &Sample, done: u64| {
            let gauge = |name: &str| sample.gauge(name).to_string();
            let of_redis = |of: fn(&sample::Held) -> String| sample.redis.as_ref().map_or("-".to_owned(), of);
            let count =
                |held: &sample::Held| held.kinds.values().map(|keys| keys.count).sum::<u64>().to_string();
            [
                ("minute", minute),
                ("memory, MiB", mib(sample.gauge(MEMORY))),
                ("of it replicas of logs", mib(sample.gauge(KEPT))),
                ("descriptors", gauge("process_open_fds")),
                ("tasks", gauge("zonewire_tasks")),
                ("connections", gauge("zonewire_connections")),
                ("channels", gauge("zonewire_channels_active")),
                ("Redis keys", of_redis(count)),
                ("Redis, MiB", of_redis(|held| format!("{:.1}", held.bytes as f64 / MIB))),
                ("done", done.to_string()),
            ]
        };
        let samples = self.samples.iter();
        let samples =
            samples.map(|(at, sample, done)| row(format!("{:.0}", at.as_secs_f64() / 60.0), sample, *done));
        table(samples.chain([row("after".to_owned(), &self.after, acts(&self.results))]))
    }

    /// The values that have grown, and are bounded: kinds of keys, and gauges.
    fn growth_table(&self) -> Vec<Vec<String>> {
        let head = ["more than before", "before", "after", "what bounds it"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let (none, nothing) = (Keys::default(), sample::Held::default());
        let before = self.before.redis.as_ref().unwrap_or(&nothing);
        for (kind, now) in &self.after.redis.as_ref().unwrap_or(&nothing).kinds {
            let was = before.kinds.get(kind).unwrap_or(&none);
            if now.count <= was.count && now.elements <= was.elements {
                continue;
            }
            let of = |keys: &Keys| format!("{} ({})", keys.count, keys.elements);
            let mut bound = bound_of(kind).unwrap_or_default().to_owned();
            if now.lasting == 0 {
                let within = spell(Duration::from_millis(now.longest_ms));
                bound += &format!("{}each goes within {within}", if bound.is_empty() { "" } else { "; " });
            }
            rows.push(vec![format!("`{kind}`: keys (elements)"), of(was), of(now), bound]);
        }
        for (name, bound) in BOUNDED.iter().skip(3) {
            let (was, now) = (self.before.gauge(name), self.after.gauge(name));
            if now <= was {
                continue;
            }
            rows.push(vec![format!("`{name}`"), was.to_string(), now.to_string(), (*bound).to_owned()]);
        }
        rows
    }

    fn acts_table(&self) -> Vec<Vec<String>> {
        let mut rows = vec![["done", "as it should", "otherwise"].map(str::to_owned).to_vec()];
        for (name, of_act) in &self.results {
            rows.push(vec![(*name).to_owned(), of_act.done.to_string(), of_act.failed.to_string()]);
        }
        rows
    }
}

/// A time for people.
fn spell(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_away_three_times_at_the_least_and_for_no_longer_than_it_takes() {
        for (s, count) in [(10, 3), (60, 3), (1_800, 40)] {
            let plan = plan(7, Duration::from_secs(s)).unwrap();
            let total: Duration = plan.iter().map(|step| step.pause + step.fault.hold).sum();
            assert_eq!(plan.len(), count);
            assert!(total <= Duration::from_secs(s), "{total:?}");
        }
    }
}
