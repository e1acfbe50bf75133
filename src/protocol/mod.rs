//! The encoding of frames and entries, once for all clients, and the parsing of prices, events and updates.
//! The message types themselves are in the crate `zonewire-protocol`.

#[cfg(test)]
mod documented;
pub(crate) mod documents;
mod entry;
mod event;
mod fields;
#[cfg(test)]
mod fixtures;
mod frame;
mod payload;
mod price;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod time;
mod update;

pub use entry::{RESERVED_FIELDS, entry_json, latest_json};
pub use event::parse_event;
pub(crate) use event::{Segments, segments_of};
pub(crate) use fields::each_element;
pub use frame::{FRAME_HEADER_MAX, Frame, close_frame, first_frame, ping_frame, text_frame};
pub use payload::InvalidPayload;
pub(crate) use payload::{PayloadWriter, quoted};
pub use price::{KEY_LEN_MAX, parse_price};
pub(crate) use time::{TIME_EXPECTED, time_of_number, time_of_text};
pub use update::{ORDER_KEY, OrderUpdate, Standing};

pub(crate) use zonewire_protocol::OrderedFields;
pub use zonewire_protocol::json::{JSON_DEPTH_MAX, UnreadableJson, check_json};
pub use zonewire_protocol::{
    Accepted, Answer, Auth, Authenticated, Authentication, AuthenticationView, BackendStateMessage, Bare,
    BridgeSource, BridgeSubscription, BridgeSubscriptions, CaughtUp, ChannelSetAside, ClaimRequest,
    ClientMessage, CloseCode, ConfigView, Connection, ConnectionEstablished, DeadLetter, DeadLetterList,
    EndCode, Entries, EntryMessage, ErrorCode, ErrorMessage, ExtendRequest, FailRequest, FieldFault, Gap,
    HealthView, Heartbeat, InvalidMessage, JobOutcome, LeaseHeld, Live, MISSED_BEFORE, ORDER_ID, Offer,
    OfferedJob, Open, OrderCancelling, OrderList, OrderPlaced, OrderStatus, OrderView, PROTOCOL_VERSION,
    Previous, Problem, ProblemCode, Publish, Published, RawEntry, RecordList, RecordsSet, RedisMetrics,
    RedisView, RegistryStatus, RegistrySync, RegistrySynced, ReportAccepted, RequestId, Resync, Revoke,
    RevokedOn, SKIPPED, SNAPSHOT, SUBPROTOCOL, Scope, ServerMessage, SetSubscription, SettingView, Since,
    SnapshotEnd, SourceCounts, StorageView, Subscribe, Subscribed, SubscriptionMode, Swap, Token,
    TokenExpiring, Unsubscribe, Unsubscribed, WebSocketView, ZoneList, ZoneView,
};
