//! `tail`: print the entries of channels as they come, through reconnects.

mod follow;
mod render;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::str::FromStr;

use anyhow::{anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as FrameCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use self::follow::{Follow, Next, Step};
use self::render::Columns;
use super::client::{CONNECT_TIMEOUT, TargetArgs};
use super::exit::UsageError;
use crate::model::{ChannelName, Position, Zone};
use crate::protocol::CloseCode;

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

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection ended, or never came about.
struct Lost {
    /// The close code; none when there was no close frame.
    code: Option<u16>,
    why: String,
}

/// Follows the channels until enough entries came or there is no way on.
pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    let mut follow = follow_of(&args)?;
    let mut printer = Printer { columns: args.pretty.then(Columns::default) };
    let url = args.target.url.socket();
    loop {
        let lost = match connect(&url).await {
            Ok(socket) => {
                say(&format!("connected to {}", args.target.url));
                follow.connected(Instant::now());
                match listen(socket, &mut follow, &mut printer).await? {
                    Ended::Done => return Ok(()),
                    Ended::Lost(lost) => lost,
                }
            }
            Err(lost) => lost,
        };
        match follow.lost(lost.code, Instant::now(), rand::random()) {
            Next::Wait { attempt, wait } => {
                let (why, seconds) = (lost.why, wait.as_secs_f64());
                say(&format!(
                    "{why}; trying again in {seconds:.1} s (attempt {attempt} of {})",
                    follow::ATTEMPTS_MAX
                ));
                time::sleep(wait).await;
            }
            Next::GiveUp if lost.code == Some(CloseCode::Normal.number()) && args.count.is_none() => {
                say(&lost.why);
                return Ok(());
            }
            Next::GiveUp => bail!("{}; giving up", lost.why),
        }
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
    Ok(Follow::new(channels, args.count))
}

async fn connect(url: &str) -> Result<Socket, Lost> {
    match time::timeout(CONNECT_TIMEOUT, connect_async(url)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Http(response))) => {
            let status = response.status();
            // A refusal that time does not change counts as one of the codes that are final.
            let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
            let code = is_final.then_some(CloseCode::Disconnected.number());
            Err(Lost { code, why: format!("the gateway answered {status}") })
        }
        Ok(Err(error)) => Err(Lost { code: None, why: format!("cannot connect to {url}: {error}") }),
        Err(_) => Err(Lost { code: None, why: format!("{url} did not answer within {CONNECT_TIMEOUT:?}") }),
    }
}

enum Ended {
    Done,
    Lost(Lost),
}

/// One connection, from the subscription to its end.
async fn listen(mut socket: Socket, follow: &mut Follow, printer: &mut Printer) -> anyhow::Result<Ended> {
    let lost = |why: String| Ok(Ended::Lost(Lost { code: None, why }));
    if let Err(error) = socket.send(Message::text(follow.subscribe())).await {
        return lost(format!("cannot subscribe: {error}"));
    }
    loop {
        let message = match time::timeout_at(follow.silent_at(), socket.next()).await {
            Err(_) => return lost("nothing was heard for too long".to_owned()),
            Ok(None) => return lost("the connection was closed".to_owned()),
            Ok(Some(Err(error))) => return lost(format!("the connection broke: {error}")),
            Ok(Some(Ok(message))) => message,
        };
        follow.heard(Instant::now());
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let code = frame.as_ref().map_or(FrameCode::Status, |frame| frame.code);
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                let code = u16::from(code);
                return Ok(Ended::Lost(Lost {
                    code: Some(code),
                    why: format!("closed with {code} {reason}"),
                }));
            }
            // The library answers pings; binary messages are not part of the protocol.
            _ => continue,
        };
        for step in follow.message(&text) {
            match step {
                Step::Print => printer.print(&text)?,
                Step::Say(text) => say(&text),
                Step::Done => {
                    // The gateway sees the end anyway; this only makes it a clean one.
                    drop(time::timeout(CONNECT_TIMEOUT, socket.close(None)).await);
                    return Ok(Ended::Done);
                }
                Step::Fail(why) => return Err(anyhow!(why)),
            }
        }
    }
}

/// Writes entries to stdout.
struct Printer {
    columns: Option<Columns>,
}

impl Printer {
    fn print(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match &mut self.columns {
            Some(columns) => out.write_all(columns.line(text).as_bytes())?,
            None => {
                out.write_all(text.as_bytes())?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()
    }
}

fn say(text: &str) {
    eprintln!("{text}");
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
