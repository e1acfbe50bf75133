//! What a gateway and its Redis hold at a moment: the gateway's own `/metrics`, the system's view of its
//! process, and the keys of Redis by kind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use zonewire::client::{BaseUrl, Http};
use zonewire_kit::resp::{Connection, Reply, Target};

/// The prefix of the names of zones that churn uses.
pub(super) const OF_CHURN: &str = "soak-";
/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many elements a key has, and in how many milliseconds it expires; -1 for never, -2 if it is gone.
const SIZE: &str = "\
local t, k = redis.call('TYPE', KEYS[1]).ok, KEYS[1]
local n = ({hash = 'HLEN', zset = 'ZCARD', stream = 'XLEN', list = 'LLEN', set = 'SCARD'})[t]
return {n and redis.call(n, k) or 1, redis.call('PTTL', k)}";

/// Where samples are taken.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    pub(super) base: BaseUrl,
    pub(super) http: Http,
    pub(super) pid: u32,
    pub(super) redis: Target,
    /// The prefix of the gateway's keys.
    pub(super) prefix: String,
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Sample {
    /// The gauges of `/metrics`, with their labels.
    pub(super) gauges: BTreeMap<String, f64>,
    pub(super) threads: u64,
    /// `None` while Redis does not answer.
    pub(super) redis: Option<Held>,
}

/// What Redis holds.
#[derive(Debug, Default, Clone)]
pub(super) struct Held {
    pub(super) bytes: u64,
    pub(super) clients: u64,
    /// By kind of key.
    pub(super) kinds: BTreeMap<String, Keys>,
}

/// Keys of a kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) count: u64,
    /// In all of them together.
    pub(super) elements: u64,
    /// Keys that never expire.
    pub(super) lasting: u64,
    /// The longest time until one of the others expires.
    pub(super) longest_ms: u64,
}

impl Held {
    fn take(&mut self, other: &Self, pick: fn(u64, u64) -> u64) {
        self.bytes = pick(self.bytes, other.bytes);
        self.clients = pick(self.clients, other.clients);
        other.kinds.keys().for_each(|kind| _ = self.kinds.entry(kind.clone()).or_default());
        for (kind, held) in &mut self.kinds {
            let keys = other.kinds.get(kind).cloned().unwrap_or_default();
            held.count = pick(held.count, keys.count);
            held.elements = pick(held.elements, keys.elements);
            held.lasting = pick(held.lasting, keys.lasting);
            held.longest_ms = pick(held.longest_ms, keys.longest_ms);
        }
    }
}

impl Sampler {
    pub(super) async fn sample(&self) -> anyhow::Result<Sample> {
        let asked = self.http.get(self.base.endpoint("metrics")).timeout(PATIENCE).send().await;
        let text = asked.context("the gateway did not say how it is")?.text().await?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("no gateway runs")?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        Ok(Sample {
            gauges: gauges(&text),
            threads: threads.and_then(|count| count.trim().parse().ok()).unwrap_or(0),
            redis: self.held().await.ok(),
        })
    }

    async fn held(&self) -> anyhow::Result<Held> {
        let mut connection = self.redis.open().await?;
        let bytes = info(&mut connection, "memory", "used_memory").await?;
        let clients = info(&mut connection, "clients", "connected_clients").await?;
        let keys = match connection.ask(&["KEYS", &format!("{}:*", self.prefix)]).await? {
            keys @ Reply::List(_) => keys.texts(),
            // It is still loading its data, or shutting down.
            other => bail!("Redis does not say which keys it has: {}", other.text()),
        };
        let mut kinds: BTreeMap<String, Keys> = BTreeMap::new();
        for key in keys {
            let told = connection.ask(&["EVAL", SIZE, "1", &key]).await?.texts();
            let [elements, left_ms] = &told[..] else { bail!("Redis did not say how large a key is") };
            let left_ms: i64 = left_ms.parse()?;
            if left_ms == -2 {
                continue;
            }
            let keys = kinds.entry(kind_of(&key, &self.prefix)).or_default();
            keys.count += 1;
            keys.elements += elements.parse::<u64>()?;
            match u64::try_from(left_ms) {
                Ok(left_ms) => keys.longest_ms = keys.longest_ms.max(left_ms),
                Err(_) => keys.lasting += 1,
            }
        }
        Ok(Held { bytes, clients, kinds })
    }
}

impl Sample {
    /// Of each value the greater of the two.
    pub(super) fn greatest(self, other: &Self) -> Self {
        self.with(other, f64::max, u64::max)
    }

    /// Of each value the lesser of the two.
    pub(super) fn least(self, other: &Self) -> Self {
        self.with(other, f64::min, u64::min)
    }

    fn with(mut self, other: &Self, real: fn(f64, f64) -> f64, whole: fn(u64, u64) -> u64) -> Self {
        // An absent gauge counts as 0.
        other.gauges.keys().for_each(|name| _ = self.gauges.entry(name.clone()).or_default());
        for (name, held) in &mut self.gauges {
            *held = real(*held, other.gauges.get(name).copied().unwrap_or_default());
        }
        self.threads = whole(self.threads, other.threads);
        match (&mut self.redis, &other.redis) {
            (Some(held), Some(other)) => held.take(other, whole),
            (none, other) => *none = none.take().or_else(|| other.clone()),
        }
        self
    }

    /// The sum of a gauge's values, whatever their labels.
    pub(super) fn gauge(&self, name: &str) -> f64 {
        self.gauges.iter().filter(|(series, _)| is_of(series, name)).map(|(_, value)| value).sum()
    }
}

/// Whether a series, with its labels, is of a metric.
pub(super) fn is_of(series: &str, metric: &str) -> bool {
    series.strip_prefix(metric).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
}

/// A number from Redis' `INFO`.
async fn info(connection: &mut Connection, section: &str, name: &str) -> anyhow::Result<u64> {
    let said = connection.ask(&["INFO", section]).await?.text();
    let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    value.with_context(|| format!("Redis did not say its {name}"))
}

/// The gauges of a text in Prometheus' format.
fn gauges(text: &str) -> BTreeMap<String, f64> {
    let mut gauges = BTreeMap::new();
    let mut is_gauge = false;
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            is_gauge = told.ends_with(" gauge");
        } else if is_gauge
            && !line.starts_with('#')
            && let Some((name, value)) = line.rsplit_once(' ')
            && let Ok(value) = value.parse()
        {
            gauges.insert(name.to_owned(), value);
        }
    }
    gauges
}

/// A key without the parts that distinguish it from others of its kind.
fn kind_of(key: &str, prefix: &str) -> String {
    let rest = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches(':');
    let Some((before, (tag, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return rest.to_owned();
    };
    // Zones and orders are many: those of churn have names that are used again, those of the load do not.
    let kind = match tag.split_once(':') {
        Some(("zone", name)) if name.starts_with(OF_CHURN) => "churn",
        Some((kind @ ("zone" | "order"), _)) => kind,
        _ => tag,
    };
    format!("{before}{kind}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_only_in_a_name_are_of_one_kind() {
        for (key, kind) in [
            ("p:{zone:soak-1}:log", "churn:log"),
            ("p:{zone:outage-latest-1}:log", "zone:log"),
            ("p:{event:trade}:log", "event:trade:log"),
            ("p:{order:6c1b}:meta", "order:meta"),
            ("p:{registry:providers}:latest", "registry:providers:latest"),
            ("p:r:{node}:due", "r:node:due"),
            ("p:{jobs}:fixed", "jobs:fixed"),
        ] {
            assert_eq!(kind_of(key, "p"), kind, "{key}");
        }
    }

    #[test]
    fn two_samples_are_combined_value_by_value() {
        let look = |gauges: &str, kind: &str, count| {
            let kinds = [(kind.to_owned(), Keys { count, ..Keys::default() })].into();
            let redis = Some(Held { kinds, ..Held::default() });
            Sample { gauges: super::gauges(&format!("# TYPE a gauge\n{gauges}")), redis, threads: count }
        };
        let (one, other) = (look("a 1\nb 5\n", "x", 3), look("a 2\n", "y", 4));
        let values = |sample: Sample| {
            let kinds = sample.redis.unwrap().kinds.into_values().map(|keys| keys.count).collect::<Vec<_>>();
            (sample.gauges.into_values().collect::<Vec<_>>(), sample.threads, kinds)
        };
        assert_eq!(values(one.clone().greatest(&other)), (vec![2.0, 5.0], 4, vec![3, 4]));
        assert_eq!(values(one.least(&other)), (vec![1.0, 0.0], 3, vec![0, 0]));
    }

    #[test]
    fn gauges_are_read_with_their_labels() {
        let text = "# HELP a A.\n# TYPE a gauge\na{on=\"x\"} 2\na{on=\"y\"} 3\n# TYPE b_total counter\nb_total 4\n\
                    # TYPE ab gauge\nab 5\n";
        let sample = Sample { gauges: gauges(text), ..Sample::default() };
        assert_eq!((sample.gauge("a"), sample.gauge("ab"), sample.gauge("b_total")), (5.0, 5.0, 0.0));
    }
}
