//! Reading the log of a channel over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zonewire::client::{Http, StatusCode};

use super::load::{Channel, EntryFields};
use super::logs::Log;
use super::witness::Lane;
use zonewire::client::BaseUrl;
use zonewire::model::EventType;

/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries on a page: the most that may be asked for.
const PAGE_ENTRIES: usize = 1_000;

/// How many entries a log holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    /// The same, of an order.
    pub(super) updates: usize,
    /// Entries expire by age: the clock of Redis jumps.
    pub(super) by_age: bool,
    /// The same of orders alone.
    pub(super) updates_by_age: bool,
}

/// The fields of an entry that matter here.
#[derive(Debug, Deserialize)]
struct Entry {
    offset: u64,
    #[serde(default)]
    id: String,
    /// The fields of an event.
    data: Option<EntryFields>,
    /// The fields of any other entry.
    #[serde(flatten)]
    own: EntryFields,
    #[serde(default, rename = "missedBefore")]
    missed_before: bool,
}

#[derive(Debug, Deserialize)]
struct OrderView {
    #[serde(default)]
    degraded: bool,
    updates: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct History {
    epoch: Option<String>,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    entries: Vec<Entry>,
}

/// The whole log of a channel, as a gateway shows it. Live types have no shared log.
pub(super) async fn read_log(
    channel: &Channel,
    base: &BaseUrl,
    http: &Http,
    bounds: Bounds,
) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let (count, bound) = match (channel.as_order(), channel.as_zone()) {
        (Some(order), _) => {
            let view: Option<OrderView> = get(http, &base.endpoint(&format!("api/orders/{order}"))).await?;
            if view.as_ref().is_some_and(|view| view.degraded) {
                bail!("the gateway shows what it knows by itself");
            }
            let updates = view.map(|view| view.updates).unwrap_or_default();
            (take(&mut log, channel, updates), bounds.updates)
        }
        (None, Some(zone)) => {
            let path = format!("api/zones/{zone}/history");
            (read_history(&mut log, channel, &path, base, http).await?, bounds.entries)
        }
        (None, None) if channel.lane == Lane::Live => return Ok(log),
        (None, None) => {
            let event = channel.as_event().with_context(|| format!("{} has no log", channel.name))?;
            let path = format!("api/events/{event}/history");
            (read_history(&mut log, channel, &path, base, http).await?, bounds.entries)
        }
    };
    let by_age = bounds.by_age || (channel.lane == Lane::Orders && bounds.updates_by_age);
    log.is_full = count >= bound || by_age;
    Ok(log)
}

/// Reads page by page, from the oldest entry on; returns how many entries there are, whoever published them.
async fn read_history(
    log: &mut Log,
    channel: &Channel,
    path: &str,
    base: &BaseUrl,
    http: &Http,
) -> anyhow::Result<usize> {
    let url = base.endpoint(path);
    let newest: Option<History> = get(http, &format!("{url}?limit=1")).await?;
    let Some(History { epoch: Some(epoch), first_offset: Some(first), last_offset: Some(last), .. }) = newest
    else {
        return Ok(0);
    };
    let (mut after, mut count) = (first.saturating_sub(1), 0);
    while after < last {
        let page = format!("{url}?limit={PAGE_ENTRIES}&after={epoch}:{after}");
        let page: History = get(http, &page).await?.context("the channel is gone")?;
        let Some(newest) = page.entries.last().map(|entry| entry.offset) else { break };
        count += take(log, channel, page.entries);
        after = newest;
    }
    Ok(count)
}

/// Takes the entries that the load published; returns how many entries there were.
fn take(log: &mut Log, channel: &Channel, entries: Vec<Entry>) -> usize {
    let count = entries.len();
    for entry in entries {
        let fields = entry.data.as_ref().unwrap_or(&entry.own);
        if let Some((by, n)) = channel.number_of(fields) {
            log.entry(&entry.id, by, n, entry.missed_before);
        }
    }
    count
}

#[derive(Debug, Deserialize)]
struct Announcements {
    entries: Vec<Announcement>,
}

#[derive(Debug, Deserialize)]
struct Announcement {
    data: Fence,
}

#[derive(Debug, Deserialize)]
struct Fence {
    fence: u64,
}

/// The fencing tokens of the gateways that announced to have the feed, in the order of their announcements.
pub(super) async fn fences(base: &BaseUrl, http: &Http) -> anyhow::Result<Vec<u64>> {
    let path = format!("api/events/{}/history?limit={PAGE_ENTRIES}", EventType::ExchangeConnected);
    let all: Option<Announcements> = get(http, &base.endpoint(&path)).await?;
    Ok(all.map(|all| all.entries.into_iter().map(|entry| entry.data.fence).collect()).unwrap_or_default())
}

/// The resource; `None` on 404.
async fn get<T: DeserializeOwned>(http: &Http, url: &str) -> anyhow::Result<Option<T>> {
    let response = http.get(url).timeout(PAGE_TIMEOUT).send().await?;
    if response.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if !response.status.is_success() {
        bail!("{url} answered {}", response.status);
    }
    let read = serde_json::from_slice(&response.bytes().await?);
    read.map(Some).with_context(|| format!("{url} is not as expected"))
}
