//! `zones`, `latest` and `history`: reads a gateway's data over HTTP.

use crate::client::Http;
use anyhow::bail;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::channel::{Channel, path};
use super::print;
use super::table::{Fields, Table};
use crate::cli::target::TargetArgs;
use crate::client::{self, BaseUrl};
use crate::model::{ChannelKind, ChannelName, Epoch, Position};

pub(crate) const LIST_EXAMPLES: &str = "\
Examples:
  zonewire zones
  zonewire zones --json | jq -r .zone";

pub(crate) const LATEST_EXAMPLES: &str = "\
Examples:
  zonewire latest pjm
  zonewire latest pjm --json | jq .price
  zonewire latest event:ticker";

pub(crate) const HISTORY_EXAMPLES: &str = "\
Examples:
  zonewire history pjm
  zonewire history pjm -n 500 --json > pjm.ndjson
  zonewire history pjm --after 9f2c41d07a3be865:1200
  zonewire history event:trade -n 100

Entries go to stdout, the oldest first. The range of stored entries, and the position after the last one \
shown, for `tail --since`, go to stderr.";

#[derive(Debug, clap::Args)]
pub(crate) struct ZonesArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LatestArgs {
    /// A zone, or a channel, such as `zone:pjm` (`pjm` means the same) or `event:ticker`
    channel: Channel,
    /// One JSON object per line, as the gateway sent it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// A zone, or a channel, such as `zone:pjm` (`pjm` means the same) or `event:ticker`
    channel: Channel,
    /// How many of the newest entries, or with --after how many after that position [default: 20]
    #[arg(short, long, value_name = "N")]
    number: Option<u64>,
    /// The entries after this position instead of the newest ones
    #[arg(long, value_name = "EPOCH:OFFSET")]
    after: Option<Position>,
    /// One JSON object per line, as the gateway sent it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// How many entries `history` shows by default.
const SHOWN: u64 = 20;

/// How many entries a gateway returns at most per request.
const PAGE_MAX: u64 = 1_000;

/// Fields with numbers that have a column of their own.
const NUMBERS: [&str; 7] = ["price", "bid", "ask", "energy", "congestion", "loss", "quantity"];

/// What an event is about, as in the pattern of a view.
const EVENT_KEY: [&str; 3] = ["exchange", "symbol", "interval"];

const HEADER: [&str; 12] = [
    "OFFSET",
    "TIME (UTC)",
    "KEY",
    "WHAT",
    "PRICE",
    "BID",
    "ASK",
    "ENERGY",
    "CONGESTION",
    "LOSS",
    "QUANTITY",
    "MORE",
];

#[derive(Debug, Deserialize)]
struct ZoneList {
    zones: Vec<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Latest {
    entries: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// A part of a channel's log.
#[derive(Debug, Deserialize)]
pub(super) struct History {
    /// `None` if nobody has published to the channel yet.
    epoch: Option<Epoch>,
    #[serde(default)]
    first_offset: u64,
    #[serde(default)]
    last_offset: u64,
    pub(super) entries: Vec<Box<RawValue>>,
}

impl History {
    /// The position of the last entry; without entries, that of the end of the log.
    pub(super) fn end(&self) -> Option<Position> {
        #[derive(Deserialize)]
        struct Entry {
            offset: u64,
        }
        let last = self.entries.last().and_then(|entry| serde_json::from_str::<Entry>(entry.get()).ok());
        let offset = last.map_or(self.last_offset, |last| last.offset);
        self.epoch.clone().map(|epoch| Position { epoch, offset })
    }
}

/// The names of the zones that have been published to.
pub(super) async fn names(http: &Http, base: &BaseUrl) -> anyhow::Result<Vec<String>> {
    let text = client::get(http, base, "api/zones", &[]).await?;
    let list: ZoneList = client::read(&text, "a list of zones")?;
    Ok(list.zones.iter().filter_map(|zone| Some(Fields::read(zone.get())?.cell("zone"))).collect())
}

/// A message for a channel without entries, with a hint to the zone that may have been meant; `names` are those of
/// the existing zones.
pub(super) fn nothing_in(channel: &ChannelName, names: &[String]) -> String {
    if channel.kind() != ChannelKind::Zone {
        return format!("nobody has published to {channel} yet");
    }
    let zone = channel.subject();
    let meant = names.iter().find(|name| name.eq_ignore_ascii_case(zone) && *name != zone);
    let hint = meant.map(|name| format!("; there is one called {name}, and case matters"));
    format!("nobody has published to zone {zone} yet{}", hint.unwrap_or_default())
}

/// The message of [`nothing_in`], with the names of zones from the gateway.
async fn nothing_there(http: &Http, base: &BaseUrl, channel: &ChannelName) -> anyhow::Result<String> {
    let names = match channel.kind() {
        ChannelKind::Zone => names(http, base).await?,
        _ => Vec::new(),
    };
    Ok(nothing_in(channel, &names))
}

/// The newest `number` entries of a channel, or the first `number` after a position.
pub(super) async fn read(
    http: &Http,
    base: &BaseUrl,
    path: &str,
    number: u64,
    after: Option<Position>,
) -> anyhow::Result<History> {
    let page = async |limit: u64, after: Option<&Position>| {
        let limit = limit.clamp(1, PAGE_MAX).to_string();
        let query = [("limit", Some(limit)), ("after", after.map(Position::to_string))];
        client::read::<History>(&client::get(http, base, path, &query).await?, "a history")
    };
    let mut whole = page(number, after.as_ref()).await?;
    let kept = (whole.last_offset + 1).saturating_sub(whole.first_offset.max(1));
    let is_short = (whole.entries.len() as u64) < number.min(kept);
    if let (None, true, Some(epoch)) = (&after, is_short, &whole.epoch) {
        // If more entries are wanted than fit into one answer, by number or bytes, read on from the
        // first one.
        let begin = Position { epoch: epoch.clone(), offset: whole.last_offset.saturating_sub(number) };
        whole = page(number, Some(&begin)).await?;
    }
    while (whole.entries.len() as u64) < number
        && let Some(end) = whole.end().filter(|end| end.offset < whole.last_offset)
    {
        let more = page(number - whole.entries.len() as u64, Some(&end)).await?;
        if more.entries.is_empty() {
            break;
        }
        whole.entries.extend(more.entries);
        whole.last_offset = more.last_offset;
    }
    Ok(whole)
}

pub(crate) async fn list(args: ZonesArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let text = client::get(&base.http()?, base, "api/zones", &[]).await?;
    let list: ZoneList = client::read(&text, "a list of zones")?;
    if args.json {
        return print_json(&list.zones);
    }
    let mut table = Table::new(&["ZONE", "LANE", "STREAM"]);
    for zone in list.zones.iter().filter_map(|zone| Fields::read(zone.get())) {
        table.row(["zone", "lane", "stream"].map(|name| zone.cell(name)));
    }
    table.print("no zones: nobody has published anything yet")?;
    Ok(())
}

/// Shows the latest entries of a channel, from all pages.
pub(crate) async fn latest(args: LatestArgs) -> anyhow::Result<()> {
    let (base, Channel(channel)) = (&args.target.base()?, &args.channel);
    let path = path(channel, "latest")?;
    let http = base.http()?;
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let text = client::get(&http, base, &path, &[("after", after.clone())]).await?;
        let page: Latest = client::read(&text, "the latest entries of a channel")?;
        entries.extend(page.entries);
        if page.next.is_none() {
            break;
        }
        if page.next == after {
            bail!("the gateway at {base} returns the same page again and again");
        }
        after = page.next;
    }
    if args.json {
        return print_json(&entries);
    }
    let nothing = match entries.is_empty() {
        true => nothing_there(&http, base, channel).await?,
        false => String::new(),
    };
    let mut table = Table::new(&HEADER);
    entries.iter().filter_map(|entry| row(entry, false)).for_each(|row| table.row(row));
    table.print(&nothing)?;
    Ok(())
}

/// Shows entries of a channel's log.
pub(crate) async fn history(args: HistoryArgs) -> anyhow::Result<()> {
    let (base, Channel(channel)) = (&args.target.base()?, &args.channel);
    let path = path(channel, "history")?;
    let http = base.http()?;
    let number = args.number.unwrap_or(SHOWN);
    let history = read(&http, base, &path, number, args.after).await?;
    let entries = if number == 0 { &[] } else { history.entries.as_slice() };
    if args.json {
        print_json(entries)?;
    } else if history.epoch.is_some() {
        let mut table = Table::new(&HEADER);
        entries.iter().filter_map(|entry| row(entry, true)).for_each(|row| table.row(row));
        table.print("no entries there")?;
    }
    match history.end() {
        Some(end) => {
            let History { first_offset, last_offset, .. } = history;
            print::say(&format!(
                "entries {first_offset} to {last_offset} are stored; `tail --since {end}` continues after the ones shown"
            ));
        }
        None => print::say(&nothing_there(&http, base, channel).await?),
    }
    Ok(())
}

fn print_json(values: &[Box<RawValue>]) -> anyhow::Result<()> {
    values.iter().try_for_each(|value| print::line(value.get()))?;
    Ok(())
}

fn row(entry: &RawValue, with_offset: bool) -> Option<Vec<String>> {
    let fields = Fields::read(entry.get())?;
    let offset = if with_offset { fields.cell("offset") } else { String::new() };
    let mut row = vec![offset, fields.time()];
    let mut add = |key: String, what: String, said: &Fields, shown: &[&str]| {
        row.extend([key, what]);
        row.extend(NUMBERS.map(|name| said.cell(name)));
        row.push(said.rest(shown));
    };
    match fields.event() {
        // The type is known from the channel, and exchange and symbol form the key: neither is repeated.
        Some(data) => {
            let about = EVENT_KEY.map(|name| data.cell(name));
            let about: Vec<String> = about.into_iter().filter(|part| !part.is_empty()).collect();
            let shown: Vec<&str> = NUMBERS.into_iter().chain(EVENT_KEY).collect();
            add(about.join(":"), String::new(), &data, &shown);
        }
        None => add(fields.cell("key"), fields.happening(), &fields, &NUMBERS),
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_was_meant_is_named() {
        let names = ["pjm".to_owned(), "ercot".to_owned()];
        let said = |channel: &str| nothing_in(&channel.parse().unwrap(), &names);
        assert_eq!(
            said("zone:PJM"),
            "nobody has published to zone PJM yet; there is one called pjm, and case matters"
        );
        assert_eq!(said("zone:nosuch"), "nobody has published to zone nosuch yet");
        assert_eq!(said("event:trade"), "nobody has published to event:trade yet");
    }

    #[test]
    fn a_history_ends_behind_its_last_entry_or_its_log() {
        let read = |text: &str| serde_json::from_str::<History>(text).unwrap().end();
        let at = |text: &str| Some(text.parse().unwrap());
        let entries =
            r#"{"epoch":"e","first_offset":1,"last_offset":9,"entries":[{"offset":4},{"offset":5}]}"#;
        assert_eq!(read(entries), at("e:5"));
        assert_eq!(read(r#"{"epoch":"e","first_offset":10,"last_offset":9,"entries":[]}"#), at("e:9"));
        assert_eq!(read(r#"{"channel":"zone:x","entries":[]}"#), None);
    }
}
