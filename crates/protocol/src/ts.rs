//! All messages and bodies as types of TypeScript.

use ts_rs::{Config, TS};

use crate::stats::{
    BridgeView, ChannelsView, ConnectionHealth, ConnectionInfo, ConnectionStory, ConnectionsView,
    DeliveryLag, DroppedMessages, DurationBucket, ExchangeView, FeedView, FleetNode, FleetTotals, FleetView,
    HttpView, InteropCounts, JobsView, LimitsView, MemoryUsage, MessagesView, NodeState, NodesKnown,
    NodesView, OrdersView, OutageView, OutsideInvalid, OutsideRefused, RefusedEntries, RegistriesView,
    RegistryView, SkippedEntries, StateSpell, StatsView, SubscriptionInfo, SubscriptionPhase, Timing,
    TlsView, TransportKind, ZoneConnections,
};
use crate::{
    Accepted, Answer, Auth, Authenticated, Authentication, AuthenticationView, BackendName, BackendState,
    BackendStateMessage, Bare, BridgeSource, BridgeSubscription, BridgeSubscriptions, CaughtUp, ChannelName,
    ChannelSetAside, ClaimRequest, ClientMessage, CloseCode, Closing, ConfigView, Connection,
    ConnectionEstablished, DeadLetter, DeadLetterList, EndCode, Entries, EntryMessage, Epoch, ErrorCode,
    ErrorMessage, ExtendRequest, FailRequest, Failure, FieldFault, HealthView, Heartbeat, JobOutcome, Lane,
    LeaseHeld, Live, Offer, OfferedJob, OrderCancelling, OrderId, OrderList, OrderPlaced, OrderStatus,
    OrderView, Position, Previous, Problem, ProblemCode, Publish, Published, RawEntry, RecordList,
    RecordsSet, RedisMetrics, RedisView, RegistryStatus, RegistrySync, RegistrySynced, ReleaseRequest,
    ReportAccepted, RequestId, Resync, Revoke, RevokedOn, Scope, ServerMessage, SetSubscription, SettingView,
    Since, SnapshotEnd, SourceCounts, StorageView, Subscribe, Subscribed, SubscriptionMode, Swap, TlsHealth,
    Token, TokenExpiring, Unsubscribe, Unsubscribed, WebSocketView, Zone, ZoneList, ZoneView,
};

/// What the file begins with.
const HEAD: &str = "\
// What a Zonewire gateway and its clients exchange; docs/PROTOCOL.md says what it means.
// Made by `zonewire schema ts`. Receivers ignore fields, types of messages and codes that they do not know.
";

/// A module with all types.
pub fn declarations() -> String {
    let config = Config::new().with_large_int("number");
    let mut out = HEAD.to_owned();
    let mut add = |docs: Option<String>, declaration: String| {
        out.push('\n');
        out.push_str(&docs.unwrap_or_default());
        out.push_str("export ");
        out.push_str(&declaration);
        out.push('\n');
    };
    macro_rules! each {
        ($($type:ty),* $(,)?) => {
            $(add(<$type>::docs(), <$type>::decl(&config));)*
        };
    }
    each![
        ServerMessage,
        ClientMessage,
        ConnectionEstablished,
        Connection,
        Subscribed,
        CaughtUp,
        Unsubscribed,
        Resync,
        SnapshotEnd,
        Heartbeat,
        Answer,
        BackendStateMessage,
        ErrorMessage,
        Closing,
        Authenticated,
        TokenExpiring,
        Published,
        Authentication,
        EntryMessage,
        Subscribe,
        Since,
        Unsubscribe,
        Publish,
        RawEntry,
        Bare,
        Auth,
        Token,
        Zone,
        ChannelName,
        OrderId,
        Epoch,
        Position,
        RequestId,
        Lane,
        BackendName,
        BackendState,
        Scope,
        ErrorCode,
        EndCode,
        CloseCode,
        ProblemCode,
        Problem,
        FieldFault,
        Accepted,
        ZoneList,
        ZoneView,
        Entries,
        OrderStatus,
        Swap,
        OrderPlaced,
        OrderCancelling,
        OrderView,
        OrderList,
        DeadLetterList,
        DeadLetter,
        ClaimRequest,
        Offer,
        OfferedJob,
        Previous,
        ExtendRequest,
        LeaseHeld,
        Revoke,
        RevokedOn,
        ConfigView,
        SettingView,
        RecordList,
        RecordsSet,
        RegistryStatus,
        RegistrySync,
        RegistrySynced,
        ReleaseRequest,
        FailRequest,
        Failure,
        ReportAccepted,
        JobOutcome,
        Live,
        StorageView,
        HealthView,
        AuthenticationView,
        TlsHealth,
        ChannelSetAside,
        WebSocketView,
        RedisView,
        RedisMetrics,
        SubscriptionMode,
        SetSubscription,
        BridgeSubscriptions,
        BridgeSubscription,
        BridgeSource,
        SourceCounts,
        BridgeView,
        ExchangeView,
        FeedView,
        FleetView,
        NodesKnown,
        FleetNode,
        NodeState,
        ZoneConnections,
        DeliveryLag,
        FleetTotals,
        StatsView,
        NodesView,
        Timing,
        MemoryUsage,
        OutageView,
        ConnectionsView,
        DurationBucket,
        MessagesView,
        DroppedMessages,
        ChannelsView,
        RefusedEntries,
        SkippedEntries,
        OrdersView,
        JobsView,
        InteropCounts,
        OutsideInvalid,
        OutsideRefused,
        RegistriesView,
        RegistryView,
        HttpView,
        TlsView,
        LimitsView,
        StateSpell,
        ConnectionInfo,
        ConnectionHealth,
        TransportKind,
        ConnectionStory,
        SubscriptionInfo,
        SubscriptionPhase,
    ];
    crate::shape::declarations(&mut add, &config);
    out
}
