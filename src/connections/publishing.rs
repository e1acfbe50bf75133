//! What clients publish over their WebSockets: one message after the other, each answered when the log has
//! it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use chrono::Utc;

use super::connection::Connection;
use super::shard::{Refusal, Shard};
use crate::access::{Action, Quota};
use crate::channels::{Channels, PublishError};
use crate::model::{ChannelKind, ChannelName, DraftEntry};
use crate::protocol::{
    ErrorCode, InvalidMessage, Publish, Published, RawEntry, RequestId, ServerMessage, parse_event,
    parse_price,
};

/// The most messages of a connection that wait behind the one that is being published. While there are that
/// many, its socket is not read.
const WAITING_MAX: usize = 16;

/// Why the log did not accept all entries of a message.
fn refusal_of(error: &PublishError) -> Refusal {
    let (code, message) = match error {
        PublishError::TooManyZones { .. } => (ErrorCode::TooManyZones, error.to_string()),
        PublishError::TooManyKeys { index, .. } => {
            (ErrorCode::TooManyKeys, format!("the entry at index {index}: {error}"))
        }
        PublishError::Unavailable { .. }
        | PublishError::Refused { .. }
        | PublishError::Gap { .. }
        | PublishError::NotFirst
        | PublishError::ShuttingDown { .. } => (ErrorCode::NotPublished, error.to_string()),
    };
    Refusal { accepted: Some(error.accepted() as u64), ..(code, message).into() }
}

/// A message to publish or refuse in order.
pub(super) struct Publishing {
    id: Option<RequestId>,
    /// The channel's name for answers.
    channel: String,
    what: Result<(ChannelName, Vec<DraftEntry>), Refusal>,
}

impl Publishing {
    /// # Errors
    /// There are no entries in it.
    pub(super) fn of(
        publish: Publish,
        connection: &Connection,
        channels: &Channels,
    ) -> Result<Self, InvalidMessage> {
        let Publish { id, channel, entries } = publish;
        if entries.is_empty() {
            let message = "`entries` must hold 1 or more objects".to_owned();
            return Err(InvalidMessage { id, code: ErrorCode::InvalidMessage, message });
        }
        let named = channel.parse::<ChannelName>();
        let channel = named.as_ref().map_or(channel, ToString::to_string);
        let what = named
            .map_err(|error| (ErrorCode::InvalidChannel, error.to_string()).into())
            .and_then(|named| read(&named, &entries, connection, channels).map(|drafts| (named, drafts)));
        Ok(Self { id, channel, what })
    }
}

/// Parses what is to be published to a channel, if the client may do that.
fn read(
    channel: &ChannelName,
    entries: &[RawEntry],
    connection: &Connection,
    channels: &Channels,
) -> Result<Vec<DraftEntry>, Refusal> {
    let refuse = |message: String| Err((ErrorCode::InvalidChannel, message).into());
    let event = match (channel.kind(), channel.as_event()) {
        (ChannelKind::Zone, _) => None,
        (ChannelKind::Event, Some((event, None))) => Some(event),
        (ChannelKind::Event, _) => {
            return refuse(format!("{channel} is a view of {}: publish to that", channel.log()));
        }
        (ChannelKind::Order, _) => {
            return refuse("updates of orders are posted to /api/orders/{orderId}/updates".to_owned());
        }
        (ChannelKind::Registry, _) => {
            return refuse("records are written over HTTP: /api/providers, /api/active-orders".to_owned());
        }
    };
    connection.may(Action::Publish, channel)?;
    let (now, ahead_max) = (Utc::now(), channels.config().ahead_max(channel));
    let drafts = entries.iter().enumerate().map(|(index, entry)| {
        let draft = match event {
            Some(event) => parse_event(event, entry.as_json(), now, ahead_max),
            None => parse_price(entry.as_json(), now, ahead_max),
        };
        draft.map_err(|fault| {
            (ErrorCode::InvalidEntry, format!("the entry at index {index}: {}", fault.detail))
        })
    });
    let drafts: Vec<DraftEntry> = drafts.collect::<Result<_, _>>()?;
    let taken = connection.take(Quota::Publishes, drafts.len() as u64);
    taken.map_err(|over| Refusal::over(ErrorCode::NotPublished, over))?;
    Ok(drafts)
}

/// A message that is being published.
struct UnderWay {
    id: Option<RequestId>,
    channel: ChannelName,
    count: u64,
    done: Pin<Box<dyn Future<Output = Result<(), PublishError>>>>,
}

/// What one client publishes, in order.
#[derive(Default)]
pub(super) struct Publisher {
    under_way: Option<UnderWay>,
    waiting: VecDeque<Publishing>,
}

impl Publisher {
    /// Whether nothing is left to publish.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.waiting.is_empty()
    }

    /// Whether so many messages wait that the client must not be read any further.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Queues a message.
    pub(super) fn push(&mut self, publishing: Publishing) {
        self.waiting.push_back(publishing);
    }

    /// Publishes until an append has to be waited for, or nothing is left.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &Rc<Connection>, shard: &Rc<Shard>) {
        loop {
            if let Some(UnderWay { id, channel, count, done }) = &mut self.under_way {
                let Poll::Ready(result) = done.as_mut().poll(cx) else { return };
                let accepted = result.as_ref().map_or_else(|error| error.accepted() as u64, |()| *count);
                shard.stats.messages.published.add(accepted);
                match result {
                    Ok(()) => {
                        let (id, channel, timestamp) = (id.take(), channel.clone(), Utc::now());
                        let published =
                            ServerMessage::Published(Published { id, channel, accepted, timestamp });
                        connection.send_message(&published, shard.limits);
                    }
                    Err(error) => {
                        shard.send_error(connection, id.as_ref(), Some(channel.as_str()), refusal_of(&error));
                    }
                }
                self.under_way = None;
            }
            // When the connection is closing, no further message is begun.
            let next = if connection.is_open() { self.waiting.pop_front() } else { None };
            let Some(Publishing { id, channel, what }) = next else { return };
            match what {
                Err(refusal) => {
                    let refusal = Refusal { accepted: Some(0), ..refusal };
                    shard.send_error(connection, id.as_ref(), Some(&channel), refusal);
                }
                Ok((channel, drafts)) => {
                    let (channels, to, count) =
                        (shard.channels.clone(), channel.clone(), drafts.len() as u64);
                    let done = Box::pin(async move { channels.publish(&to, drafts).await });
                    self.under_way = Some(UnderWay { id, channel, count, done });
                }
            }
        }
    }
}
