//! Codes in messages over the WebSocket. Stable: clients may match on them.

use crate::open::words;

words! {
    /// Why something that a client asked for was not done.
    pub enum ErrorCode {
        /// the message is not JSON, or beyond the limits of JSON
        InvalidJson = "invalid_json",
        /// a field is missing or of the wrong type
        InvalidMessage = "invalid_message",
        /// `type` names no message of this protocol
        UnknownType = "unknown_type",
        /// the name has not the form `zone:<zone>`, `order:<uuid>` or `event:<type>`, or no such pattern
        InvalidChannel = "invalid_channel",
        /// `unsubscribe`: the connection has no such subscription
        NotSubscribed = "not_subscribed",
        /// a later request for the channel came before this one was answered
        Superseded = "superseded",
        /// a position in `since` is not of the right form; nothing was subscribed to, and a subscription
        /// that there was goes on
        InvalidPosition = "invalid_position",
        /// one more than a connection may have, or its subject or tenant on all of theirs
        TooManySubscriptions = "too_many_subscriptions",
        /// one zone more than the gateway keeps; there may be room later
        TooManyZones = "too_many_zones",
        /// one order more than the gateway watches before anything is published to it; there may be room
        /// later
        TooManyOrders = "too_many_orders",
        /// one view of events more than the gateway keeps up; there may be room later
        TooManyViews = "too_many_views",
        /// `publish`: an entry has wrong fields; nothing of the message was published
        InvalidEntry = "invalid_entry",
        /// `publish`: one key more than the zone, or the type of events, may have; nothing of the message was
        /// published
        TooManyKeys = "too_many_keys",
        /// `publish`: the log did not take all entries; `accepted` of them, from the front, are in it, and the
        /// next ones may be, where an answer was lost; with `retry_after_ms`, the subject or its tenant published
        /// more than it may, and nothing of the message is in it
        NotPublished = "not_published",
        /// temporary: the storage does not answer; the subscription is made as soon as it does
        StorageUnavailable = "storage_unavailable",
        /// the token of `auth` does not hold, or is another subject's; the connection is as it was
        InvalidToken = "invalid_token",
        /// whether the token of `auth` holds cannot be told yet, since keys of its issuer are being fetched:
        /// send the same again after `retry_after_ms`; the connection is as it was
        KeysAwaited = "keys_awaited",
        /// the right to it is missing, or there is no token yet
        Forbidden = "forbidden",
    }
}

impl ErrorCode {
    /// Whether the request stands, and its final answer is yet to come.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::StorageUnavailable)
    }
}

words! {
    /// Why the gateway ended a subscription by itself.
    pub enum EndCode {
        /// the order has ended, and all that is kept of it was sent
        Finished = "finished",
        /// the right to it has ended
        Forbidden = "forbidden",
    }
}
