//! Codes of errors in WebSocket messages. Stable: clients may match on them.

use crate::open::words;

words! {
    /// Why something that a client asked for was not done.
    pub enum ErrorCode {
        /// the message is not JSON, or exceeds the limits on JSON
        InvalidJson = "invalid_json",
        /// a field is missing or of the wrong type
        InvalidMessage = "invalid_message",
        /// `type` names no message of this protocol
        UnknownType = "unknown_type",
        /// the name does not have the form `zone:<zone>`, `order:<uuid>`, `event:<type>` or `registry:<registry>`, or its pattern
        /// is invalid
        InvalidChannel = "invalid_channel",
        /// `unsubscribe`: the connection has no such subscription
        NotSubscribed = "not_subscribed",
        /// a later request for the channel arrived before this one was answered
        Superseded = "superseded",
        /// a position in `since` is malformed; nothing was subscribed to, and an existing subscription
        /// continues
        InvalidPosition = "invalid_position",
        /// the connection, or all connections of its subject or tenant together, have as many subscriptions
        /// as allowed
        TooManySubscriptions = "too_many_subscriptions",
        /// the gateway has as many zones as allowed; there may be room later
        TooManyZones = "too_many_zones",
        /// the gateway watches as many orders without a publication yet as allowed; there may be room later
        TooManyOrders = "too_many_orders",
        /// the gateway serves as many views of events as allowed; there may be room later
        TooManyViews = "too_many_views",
        /// `publish`: an entry has invalid fields; nothing of the message was published
        InvalidEntry = "invalid_entry",
        /// `publish`: the zone, or the type of events, has as many keys as allowed; nothing of the message
        /// was published
        TooManyKeys = "too_many_keys",
        /// `publish`: the log did not take all entries; the first `accepted` of them are in it, and the
        /// next ones may be, if an answer was lost; with `retry_after_ms`, the subject or its tenant
        /// published more than allowed, and nothing of the message is in the log
        NotPublished = "not_published",
        /// temporary: the storage does not answer; the subscription starts as soon as it does
        StorageUnavailable = "storage_unavailable",
        /// the token of `auth` is invalid, or belongs to another subject; the connection is unchanged
        InvalidToken = "invalid_token",
        /// the token of `auth` cannot be verified yet, because its issuer's keys are still being fetched:
        /// send the same again after `retry_after_ms`; the connection is unchanged
        KeysAwaited = "keys_awaited",
        /// the client lacks the right to it, or has not sent a token yet
        Forbidden = "forbidden",
    }
}

impl ErrorCode {
    /// Whether the request stays in effect and its final answer is still to come.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::StorageUnavailable)
    }
}

words! {
    /// Why the gateway ended a subscription by itself.
    pub enum EndCode {
        /// the order has ended, and everything that the log still has of it was sent
        Finished = "finished",
        /// the client no longer has the right to the channel
        Forbidden = "forbidden",
    }
}
