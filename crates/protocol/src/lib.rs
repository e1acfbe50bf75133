//! The wire of a Zonewire gateway, for both of its ends: names and positions, every WebSocket message,
//! every HTTP body, and the codes of errors and of closed connections.
//!
//! `docs/PROTOCOL.md` says what they mean. Nothing here does I/O or needs a runtime. The other end may be a
//! newer gateway: unknown fields are ignored, messages of an unknown type become [`ServerMessage::Unknown`]
//! (or [`ServerMessage::Entry`], if they have an offset in a channel), and unknown codes become
//! [`Open::Other`]. The enums themselves are exhaustive, so that the compiler makes the gateway handle
//! every variant; a new variant is a new version of this crate.
//!
//! ```
//! use zonewire_protocol::{ClientMessage, ServerMessage, Subscribe};
//!
//! let wish = ClientMessage::Subscribe(Subscribe::to(["zone:pjm"]));
//! assert_eq!(wish.to_json(), r#"{"type":"subscribe","channels":["zone:pjm"]}"#);
//!
//! let text = r#"{"type":"price_update","channel":"zone:pjm","offset":482,
//!     "id":"640319ea8b914cb1b37a17ac4742b0ad-482","timestamp":"2026-11-21T03:40:47.388Z",
//!     "key":"WESTERN HUB","price":19.72}"#;
//! let Ok(ServerMessage::Entry(entry)) = ServerMessage::read(text) else { panic!() };
//! assert_eq!((entry.offset, entry.fields.get("price")), (482, Some(19.72)));
//! ```

mod backend;
mod channel;
mod client;
mod close;
mod codes;
mod entry;
mod event;
mod fields;
mod http;
pub mod json;
mod kind;
mod lane;
mod name;
mod open;
mod order;
mod position;
mod problem;
mod registry;
#[cfg(feature = "schema")]
pub mod schema;
mod server;
#[cfg(feature = "schema")]
mod shape;
pub mod stats;
mod text;
#[cfg(feature = "schema")]
pub mod ts;

pub use backend::{BackendName, BackendState};
pub use channel::{ChannelKind, ChannelName};
pub use client::{
    Auth, Bare, ClientMessage, InvalidMessage, Publish, RawEntry, RequestId, Since, Subscribe, Token,
    Unsubscribe,
};
pub use close::CloseCode;
pub use codes::{EndCode, ErrorCode};
pub use entry::{EntryMessage, MISSED_BEFORE, ORDER_ID, SKIPPED, SNAPSHOT};
pub use event::{EventType, SEGMENTS_MAX, is_exchange, is_interval, is_symbol};
pub use fields::{Fields, OrderedFields};
pub use http::{
    Accepted, AuthenticationView, BridgeSource, BridgeSubscription, BridgeSubscriptions, ChannelSetAside,
    ClaimRequest, ConfigView, DeadLetter, DeadLetterList, Entries, ExtendRequest, FailRequest, Failure, Gap,
    HealthView, JobOutcome, LeaseHeld, Live, Offer, OfferedJob, OrderCancelling, OrderList, OrderPlaced,
    OrderStatus, OrderView, Previous, RedisMetrics, RedisView, ReleaseRequest, ReportAccepted, Revoke,
    RevokedOn, SetSubscription, SettingView, SourceCounts, StorageView, SubscriptionMode, Swap, TlsHealth,
    WebSocketView, ZoneList, ZoneView,
};
pub use kind::{EntryId, EntryKind, NodeId, UnknownKind, WhyUnknown};
pub use lane::Lane;
pub use name::{InvalidName, NAME_LEN_MAX, Zone};
pub use open::{Known, Open};
pub use order::{InvalidOrderId, JobId, OrderId};
pub use position::{Epoch, InvalidPosition, OFFSET_MAX, Position};
pub use problem::{FieldFault, Problem, ProblemCode};
pub use registry::{RecordList, RecordsSet, RegistryStatus, RegistrySync, RegistrySynced};
pub use server::{
    Answer, Authenticated, Authentication, BackendStateMessage, CaughtUp, Closing, Connection,
    ConnectionEstablished, ErrorMessage, Heartbeat, Published, Resync, Scope, ServerMessage, SnapshotEnd,
    Subscribed, TokenExpiring, Unknown, Unsubscribed,
};

/// The version of the wire protocol, sent in `connection_established`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The WebSocket subprotocol that a client may ask for.
pub const SUBPROTOCOL: &str = "zonewire.v1";
