//! `tail`: prints the entries of channels as they arrive, through reconnects.

mod render;

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::client::Http;
use anyhow::bail;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::render::Columns;
use super::channel::{Channel, path};
use super::exit::UsageError;
use super::{print, zones};
use crate::cli::target::TargetArgs;
use crate::client::follow::{self, Door, Ended, Follow, Output, Step, Until};
use crate::client::{self, BaseUrl, Refused};
use crate::model::{ChannelKind, ChannelName, Epoch, Position};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire tail pjm
  zonewire tail pjm ercot --pretty -n 20
  zonewire tail zone:pjm --count 1 | jq .price
  zonewire tail pjm --since 9f2c41d07a3be865:1200
  zonewire tail pjm --snapshot
  zonewire tail event:trade 'event:ticker:binance:*'

Entries go to stdout, everything else to stderr, including the position of each channel. The command \
runs until Ctrl-C: after a lost connection it reconnects and resumes where it was; missing entries \
are reported.";

#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Channels, such as `zone:pjm` (`pjm` means the same) or `event:ticker:binance:*`
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<Channel>,
    /// Begin after this position instead of with the next entry; with several channels as
    /// CHANNEL=EPOCH:OFFSET, once for each
    #[arg(long, value_name = "EPOCH:OFFSET")]
    since: Vec<Since>,
    /// Begin with the latest price of each key; also whenever entries would be missing
    #[arg(long, conflicts_with = "number")]
    snapshot: bool,
    /// Begin with this many of the newest stored entries
    #[arg(short, long, value_name = "N", conflicts_with = "since")]
    number: Option<u64>,
    /// End after this many entries, including those of -n
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Give up after this many failed reconnects in a row [default: never]
    #[arg(long, value_name = "N")]
    tries: Option<u32>,
    /// Print columns for people instead of JSON
    #[arg(long)]
    pretty: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// A position, perhaps with the channel that it is for.
#[derive(Debug, Clone)]
struct Since {
    channel: Option<Channel>,
    position: Position,
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (channel, position) = match text.split_once('=') {
            Some((channel, position)) => (Some(channel.parse()?), position),
            None => (None, text),
        };
        let position = position.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { channel, position })
    }
}

/// Follows the channels until enough entries arrived or the gateway ended the subscription.
pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    let base = &args.target.base()?;
    let mut follow = follow_of(&args)?;
    let mut printer = Printer {
        base: base.clone(),
        columns: args.pretty.then(Columns::default),
        unseen: args.channels.iter().map(|channel| channel.0.clone()).collect(),
    };
    if let Some(number) = args.number.filter(|number| *number > 0)
        && begin_with(number, &args, &mut follow, &mut printer).await?
    {
        return Ok(());
    }
    let ended = tokio::select! {
        ended = follow::run(base, Door::Open, &mut follow, &mut printer) => Some(ended),
        // Ctrl-C is the normal end without `--count`.
        Ok(()) = tokio::signal::ctrl_c() => None,
    };
    // A log without entries has no position to resume from.
    for (channel, position) in follow.positions().filter(|(_, position)| position.offset > 0) {
        print::say(&format!("{channel} was at {position}; `--since {position}` resumes there"));
    }
    match ended.transpose()? {
        None | Some(Ended::Enough) => Ok(()),
        Some(Ended::Closed(why)) if args.count.is_none() => {
            print::say(&why);
            Ok(())
        }
        Some(Ended::Closed(why)) => bail!("{why}; giving up"),
    }
}

/// Prints the newest stored entries of each channel, and makes `follow` begin after them. Returns
/// whether these were enough.
async fn begin_with(
    number: u64,
    args: &TailArgs,
    follow: &mut Follow,
    printer: &mut Printer,
) -> anyhow::Result<bool> {
    let base = &args.target.base()?;
    let http = base.http()?;
    for Channel(channel) in &args.channels {
        if channel.kind() == ChannelKind::Registry {
            print::say(&format!(
                "{channel}: a registry has one record per key and no history; --snapshot begins with all records"
            ));
            continue;
        }
        let history = async |path: String| {
            let history = zones::read(&http, base, &path, number, None).await;
            history.map(|history| (history.end(), history.entries))
        };
        let read = match (channel.as_event(), path(channel, "history")) {
            (_, Ok(path)) => history(path).await,
            (Some((event, _)), Err(_)) => {
                print::say(&format!("{channel}: -n works only for whole channels, such as event:{event}"));
                continue;
            }
            (None, Err(_)) => newest_updates(&http, base, channel, number).await,
        };
        let (end, entries) = match read {
            Ok(read) => read,
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) => {
                    print::say(&format!("{channel}: its history cannot be read: {refused}"));
                    continue;
                }
                None => return Err(error),
            },
        };
        // Nobody has published to this channel yet, which the subscription reports.
        let Some(end) = end else { continue };
        printer.unseen.remove(channel);
        follow.begin_at(channel, end);
        for entry in entries {
            for step in follow.message(entry.get()) {
                match step {
                    Step::Print => printer.entry(entry.get())?,
                    Step::Done => return Ok(true),
                    Step::Say(_) | Step::Placed(..) | Step::Over(_) | Step::Fail(_) => {}
                }
            }
        }
    }
    Ok(false)
}

/// The newest updates of an order, and the position after them.
async fn newest_updates(
    http: &Http,
    base: &BaseUrl,
    channel: &ChannelName,
    number: u64,
) -> anyhow::Result<(Option<Position>, Vec<Box<RawValue>>)> {
    #[derive(Deserialize)]
    struct Order {
        epoch: Option<Epoch>,
        updates: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Update {
        offset: u64,
    }
    let text = client::get(http, base, &format!("api/orders/{}", channel.subject()), &[]).await?;
    let Order { epoch, mut updates } = client::read(&text, "an order")?;
    let last = updates.last().and_then(|last| serde_json::from_str::<Update>(last.get()).ok());
    let end = epoch.zip(last).map(|(epoch, Update { offset })| Position { epoch, offset });
    let too_many = updates.len().saturating_sub(usize::try_from(number).unwrap_or(usize::MAX));
    Ok((end, updates.split_off(too_many)))
}

fn follow_of(args: &TailArgs) -> anyhow::Result<Follow> {
    let mut channels: HashMap<ChannelName, Option<Position>> =
        args.channels.iter().map(|channel| (channel.0.clone(), None)).collect();
    for Since { channel, position } in &args.since {
        let since = match channel {
            Some(Channel(channel)) => channels.get_mut(channel),
            None if channels.len() == 1 => channels.values_mut().next(),
            None => {
                let form = "with several channels, --since is CHANNEL=EPOCH:OFFSET";
                return Err(UsageError(form.to_owned()).into());
            }
        };
        let not_asked_for = || UsageError("--since names a channel that is not followed".to_owned());
        *since.ok_or_else(not_asked_for)? = Some(position.clone());
    }
    let until = args.count.map_or(Until::Forever, |count| Until::Count(count.get()));
    let follow = Follow::new(channels, until, args.tries);
    Ok(if args.snapshot { follow.with_snapshots() } else { follow })
}

struct Printer {
    base: BaseUrl,
    columns: Option<Columns>,
    /// Channels for which nothing has arrived yet.
    unseen: HashSet<ChannelName>,
}

impl Output for Printer {
    fn entry(&mut self, text: &str) -> io::Result<()> {
        match &mut self.columns {
            Some(columns) => columns.lines(text).iter().try_for_each(|line| print::line(line)),
            None => print::line(text),
        }
    }

    fn say(&mut self, text: &str) {
        print::say(text);
    }

    async fn placed(&mut self, channel: &ChannelName, position: &Position) {
        let is_first = self.unseen.remove(channel);
        if is_first && position.offset == 0 && channel.kind() == ChannelKind::Zone {
            // Without the list of zones, only the hint which zone may have been meant is missing.
            let names = match self.base.http() {
                Ok(http) => zones::names(&http, &self.base).await.unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            let nothing = zones::nothing_in(channel, &names);
            return print::say(&format!("{nothing}; waiting"));
        }
        print::say(&format!("{channel} from {position} on"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_may_name_its_channel() {
        let since: Since = "abc:5".parse().unwrap();
        assert!(since.channel.is_none() && since.position.offset == 5);
        let since: Since = "pjm=abc:5".parse().unwrap();
        assert_eq!(since.channel.unwrap().0.as_str(), "zone:pjm");
        assert!("abc".parse::<Since>().is_err());
    }
}
