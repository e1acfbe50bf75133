//! `tail`: print the entries of channels as they come, through reconnects.

mod render;

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::str::FromStr;

use anyhow::bail;

use self::render::Columns;
use super::client::TargetArgs;
use super::exit::UsageError;
use super::follow::{self, Door, Ended, Follow, Output, Until};
use super::print;
use crate::model::{ChannelName, Position, Zone};

pub(crate) const EXAMPLES: &str = "\
Examples:
  zonewire tail pjm
  zonewire tail pjm ercot --pretty
  zonewire tail zone:pjm --count 1 | jq .price
  zonewire tail pjm --since 9f2c41d07a3be865:1200

Entries go to stdout, all else to stderr. After a lost connection it comes back by itself, five \
times at the most, and goes on where it was; what is missing is said.";

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Channels, such as `zone:pjm`; `pjm` means the same
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<Channel>,
    /// Begin after this position instead of with what comes next; with several channels as
    /// CHANNEL=EPOCH:OFFSET, once for each
    #[arg(long, value_name = "EPOCH:OFFSET")]
    since: Vec<Since>,
    /// End after so many entries
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Columns for people instead of JSON
    #[arg(long)]
    pretty: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// A channel, or a zone and then its channel.
#[derive(Debug, Clone)]
struct Channel(ChannelName);

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse::<ChannelName>(), text.parse::<Zone>()) {
            (Ok(channel), _) => Ok(Self(channel)),
            (Err(_), Ok(zone)) => Ok(Self(ChannelName::zone(&zone))),
            (Err(error), Err(_)) => Err(error.to_string()),
        }
    }
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

/// Follows the channels until enough entries came or there is no way on.
pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    let mut follow = follow_of(&args)?;
    let mut printer = Printer { columns: args.pretty.then(Columns::default) };
    match follow::run(&args.target.url, Door::Open, &mut follow, &mut printer).await? {
        Ended::Enough => Ok(()),
        Ended::Closed(why) if args.count.is_none() => {
            print::say(&why);
            Ok(())
        }
        Ended::Closed(why) => bail!("{why}; giving up"),
    }
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
    Ok(Follow::new(channels, args.count.map_or(Until::Forever, |count| Until::Count(count.get()))))
}

/// Writes entries to stdout.
struct Printer {
    columns: Option<Columns>,
}

impl Output for Printer {
    fn entry(&mut self, text: &str) -> io::Result<()> {
        match &mut self.columns {
            Some(columns) => print::line(&columns.line(text)),
            None => print::line(text),
        }
    }

    fn say(&mut self, text: &str) {
        print::say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_may_be_named_by_its_zone() {
        for (text, expected) in [("pjm", "zone:pjm"), ("zone:pjm", "zone:pjm"), ("a:b", "zone:a:b")] {
            assert_eq!(text.parse::<Channel>().unwrap().0.as_str(), expected);
        }
        assert!("a b".parse::<Channel>().is_err());
    }

    #[test]
    fn a_position_may_name_its_channel() {
        let since: Since = "abc:5".parse().unwrap();
        assert!(since.channel.is_none() && since.position.offset == 5);
        let since: Since = "pjm=abc:5".parse().unwrap();
        assert_eq!(since.channel.unwrap().0.as_str(), "zone:pjm");
        assert!("abc".parse::<Since>().is_err());
    }
}
