//! Reading the log of a channel over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zonewire::client::{Http, StatusCode};

use super::kept::Kept;
use super::load::Channel;
use zonewire::client::BaseUrl;
use zonewire::model::Zone;

/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries on a page: the most that may be asked for.
const PAGE_ENTRIES: usize = 1_000;

/// How many entries a log holds at the most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    /// The same, of an order.
    pub(super) updates: usize,
    /// Old entries go by their age: the clock of Redis jumps.
    pub(super) by_age: bool,
}

/// An entry, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Entry {
    offset: u64,
    #[serde(default)]
    id: String,
    by: Option<usize>,
    n: Option<u64>,
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

/// All that the log of a channel holds, as a gateway tells it.
pub(super) async fn log(
    channel: &Channel,
    base: &BaseUrl,
    http: &Http,
    bounds: Bounds,
) -> anyhow::Result<Kept> {
    let mut kept = Kept::default();
    let bound = match (channel.as_order(), channel.as_zone()) {
        (Some(order), _) => {
            let view: Option<OrderView> = get(http, &base.endpoint(&format!("api/orders/{order}"))).await?;
            if view.as_ref().is_some_and(|view| view.degraded) {
                bail!("the gateway shows what it knows by itself");
            }
            take(&mut kept, view.map(|view| view.updates).unwrap_or_default());
            bounds.updates
        }
        (None, Some(zone)) => {
            read_history(&mut kept, zone, base, http).await?;
            bounds.entries
        }
        (None, None) => bail!("{} is neither an order nor a zone", channel.name),
    };
    kept.is_full = kept.len() >= bound || bounds.by_age;
    Ok(kept)
}

/// Page by page, from the oldest entry on.
async fn read_history(kept: &mut Kept, zone: &Zone, base: &BaseUrl, http: &Http) -> anyhow::Result<()> {
    let url = base.endpoint(&format!("api/zones/{zone}/history"));
    let newest: Option<History> = get(http, &format!("{url}?limit=1")).await?;
    let Some(History { epoch: Some(epoch), first_offset: Some(first), last_offset: Some(last), .. }) = newest
    else {
        return Ok(());
    };
    let mut after = first.saturating_sub(1);
    while after < last {
        let page = format!("{url}?limit={PAGE_ENTRIES}&after={epoch}:{after}");
        let page: History = get(http, &page).await?.context("the zone is gone")?;
        let Some(newest) = page.entries.last().map(|entry| entry.offset) else { break };
        take(kept, page.entries);
        after = newest;
    }
    Ok(())
}

fn take(kept: &mut Kept, entries: Vec<Entry>) {
    for entry in entries {
        if let (Some(by), Some(n)) = (entry.by, entry.n) {
            kept.entry(&entry.id, by, n, entry.missed_before);
        }
    }
}

/// What is there; none where nothing is.
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
