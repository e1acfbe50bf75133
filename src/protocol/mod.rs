//! Everything that crosses the wire to clients: messages, their encoding, close codes.

mod client;
mod close;
mod entry;
mod fields;
#[cfg(test)]
mod fixtures;
mod frame;
mod payload;
mod price;
mod server;
mod time;
mod update;

pub use client::{ClientMessage, InvalidMessage, RequestId, Subscribe};
pub use close::CloseCode;
pub use entry::{MISSED_BEFORE, RESERVED_FIELDS, SKIPPED, SNAPSHOT, entry_json, latest_json};
pub(crate) use fields::{OrderedFields, each_element};
pub use frame::{FRAME_HEADER_MAX, close_frame, ping_frame, text_frame};
pub use payload::InvalidPayload;
pub(crate) use payload::{PayloadWriter, compact, quoted};
pub use price::{KEY_LEN_MAX, parse_price};
pub use server::{EndCode, ErrorCode, ServerMessage};
pub(crate) use time::{TIME_EXPECTED, time_of_number, time_of_text};
pub use update::{ORDER_KEY, OrderUpdate, Standing};

pub use crate::support::json::{JSON_DEPTH_MAX, UnreadableJson, check_json};

/// The version of the wire protocol, said in `connection_established`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The WebSocket subprotocol that a client may ask for.
pub const SUBPROTOCOL: &str = "zonewire.v1";
