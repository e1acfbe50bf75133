// What a Zonewire gateway and its clients exchange; docs/PROTOCOL.md says what it means.
// Made by `zonewire schema ts`. Receivers ignore fields, types of messages and codes that they do not know.

/**
 * A message from the gateway. Field order is part of the snapshot in `tests/fixtures/protocol`.
 */
export type ServerMessage = { "type": "connection_established" } & ConnectionEstablished | { "type": "connection" } & Connection | { "type": "subscribed" } & Subscribed | { "type": "caught_up" } & CaughtUp | { "type": "unsubscribed" } & Unsubscribed | { "type": "resync" } & Resync | { "type": "snapshot_end" } & SnapshotEnd | { "type": "heartbeat" } & Heartbeat | { "type": "heartbeat_ack" } & Answer | { "type": "pong" } & Answer | { "type": "backend_state" } & BackendStateMessage | { "type": "error" } & ErrorMessage | { "type": "closing" } & Closing | { "type": "authenticated" } & Authenticated | { "type": "token_expiring" } & TokenExpiring | { "type": "published" } & Published | Entry;

/**
 * A message from a client. Unknown fields are ignored.
 */
export type ClientMessage = { "type": "subscribe" } & Subscribe | { "type": "unsubscribe" } & Unsubscribe | { "type": "heartbeat" } & Bare | { "type": "heartbeat_ack" } & Bare | { "type": "ping" } & Bare | { "type": "auth" } & Auth | { "type": "publish" } & Publish;

/**
 * First message of every connection that was not opened on an order.
 */
export type ConnectionEstablished = { 
/**
 * Names this connection in `/ws/stats` and in logs.
 */
connection_id: string, 
/**
 * The zone of `/ws/market/{zone}`; absent on `/ws`.
 */
market_zone?: string, 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well it serves.
 */
state: BackendState | (string & {}), 
/**
 * How often `heartbeat` comes, in milliseconds.
 */
heartbeat_interval_ms: number, 
/**
 * Version of this protocol.
 */
protocol: number, 
/**
 * Whether the gateway asks who one is; absent where it does not.
 */
authentication?: Authentication | (string & {}), 
/**
 * The subject of the token that came with the request.
 */
subject?: string, 
/**
 * When that token expires.
 */
token_expires_at?: string, 
/**
 * When it was sent.
 */
timestamp: string, 
/**
 * For people.
 */
message: string, };

/**
 * First message of a connection that was opened on an order.
 */
export type Connection = { 
/**
 * Names this connection in `/ws/stats` and in logs.
 */
connection_id: string, 
/**
 * The order of `/ws/orders/{orderId}`.
 */
orderId: OrderId, 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well it serves.
 */
state: BackendState | (string & {}), 
/**
 * How often `heartbeat` comes, in milliseconds.
 */
heartbeat_interval_ms: number, 
/**
 * Version of this protocol.
 */
protocol: number, 
/**
 * Whether the gateway asks who one is; absent where it does not.
 */
authentication?: Authentication | (string & {}), 
/**
 * The subject of the token that came with the request.
 */
subject?: string, 
/**
 * When that token expires.
 */
token_expires_at?: string, 
/**
 * When it was sent.
 */
timestamp: string, 
/**
 * For people.
 */
message: string, };

/**
 * A channel's entries follow, from just after `offset`.
 */
export type Subscribed = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * The order whose channel it is.
 */
orderId?: OrderId, 
/**
 * The life of the log that offsets belong to from here on.
 */
epoch: Epoch, 
/**
 * Entries follow from the next offset on.
 */
offset: number, 
/**
 * The newest offset when the log was looked at; absent where the log goes on in another epoch,
 * which `resync` says. Where it is not `offset`, what lies between comes first, and then
 * `caught_up`.
 */
top?: number, 
/**
 * Whether nothing is missing between the position asked for and `offset`. Where none was
 * asked for: true in a zone; in an order, whether all its updates are still kept.
 */
recovered: boolean, 
/**
 * How many entries after the position asked for are no longer kept; absent when that
 * cannot be known, because the epoch is another.
 */
gap?: number, 
/**
 * The latest entry of each key comes first.
 */
snapshot?: boolean, 
/**
 * When it was sent.
 */
timestamp: string, 
/**
 * How the order stands, for people; only in the channel of an order.
 */
message?: string, };

/**
 * All that the log had when the subscription was made has been sent. Comes where that was something.
 */
export type CaughtUp = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * No more entries of this channel follow.
 */
export type Unsubscribed = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Why, where the gateway ended it by itself; absent in the answer to `unsubscribe`.
 */
code?: EndCode | (string & {}), 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The log behind a subscription changed its epoch, or entries are missing from it. Entries
 * follow from just after `offset` of `epoch`.
 */
export type Resync = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * The epoch up to here.
 */
old_epoch: Epoch, 
/**
 * The epoch from here on; the same as before when only a gap is said.
 */
epoch: Epoch, 
/**
 * Entries follow from the next offset on.
 */
offset: number, 
/**
 * Whether nothing is missing.
 */
recovered: boolean, 
/**
 * How many entries are missing; absent when that cannot be known.
 */
gap?: number, 
/**
 * The latest entry of each key comes first, in place of what is missing.
 */
snapshot?: boolean, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The latest entry of each key has come, as they were at `offset` of `epoch`. Entries follow from just
 * after that.
 */
export type SnapshotEnd = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * The epoch from here on.
 */
epoch: Epoch, 
/**
 * Entries follow from the next offset on.
 */
offset: number, 
/**
 * Whether they are all: else some could not be reached, and another snapshot comes when they can.
 */
recovered: boolean, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * Sent at the announced interval, so that a browser, which hides protocol pings, can tell a
 * quiet connection from a dead one.
 */
export type Heartbeat = { 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The answer to a request that asked for nothing else.
 */
export type Answer = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The storage changed how it serves.
 */
export type BackendStateMessage = { 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well it serves.
 */
state: BackendState | (string & {}), 
/**
 * Since when.
 */
since: string, 
/**
 * Which channels are concerned: `all`, or `some`.
 */
scope: Scope | (string & {}), 
/**
 * With `some`: those of this connection's subscriptions that are, as far as they find room.
 */
channels?: Array<ChannelName>, 
/**
 * How many more there are.
 */
more_channels?: number, 
/**
 * Why, for people; absent when healthy.
 */
reason?: string, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * Something that the client asked for was not done. The connection goes on.
 */
export type ErrorMessage = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * Stable name of the error.
 */
code: ErrorCode | (string & {}), 
/**
 * Whether the request stands, and its final answer is yet to come.
 */
temporary: boolean, 
/**
 * When the same request may succeed, in milliseconds from now, where that can be told.
 */
retry_after_ms?: number, 
/**
 * Of a `publish`, how many of its entries, from the front, are in the log.
 */
accepted?: number, 
/**
 * What was wrong and what would be right, for people.
 */
message: string, 
/**
 * The channel concerned; where that is none, as the client wrote it.
 */
channel?: string, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The gateway is about to close this connection.
 */
export type Closing = { 
/**
 * The close code that follows.
 */
code: number, 
/**
 * Its reason.
 */
reason: CloseCode | (string & {}), 
/**
 * When to come back, in milliseconds from now; absent when one should not.
 */
retry_after_ms?: number, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * Who one is, to the gateway.
 */
export type Authenticated = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * The subject of the token, or of the key.
 */
subject: string, 
/**
 * When it expires; absent where it does not.
 */
expires_at?: string, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * The token that was shown expires soon.
 */
export type TokenExpiring = { 
/**
 * When. The connection is closed then, unless another token was shown.
 */
expires_at: string, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * All that was to be published is in the log.
 */
export type Published = { 
/**
 * The `id` of the request, when it had one.
 */
id?: RequestId, 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * How many entries.
 */
accepted: number, 
/**
 * When it was sent.
 */
timestamp: string, };

/**
 * Whether the gateway asks who one is.
 */
export type Authentication = "required" | "optional";

/**
 * An entry of a channel. Others may be added: receivers count the offset of those that they do not know.
 */
export type Entry = { "type": "price_update" } & PriceUpdate | { "type": "key_removed" } & KeyRemoved | { "type": "zone_removed" } & ZoneRemoved | { "type": "record_update" } & RecordUpdate | { "type": "routing" } & OrderUpdate | { "type": "building" } & OrderUpdate | { "type": "submitted" } & OrderUpdate | { "type": "confirmed" } & OrderUpdate | { "type": "failed" } & OrderFailed | { "type": "ticker" } & TickerEvent | { "type": "trade" } & TradeEvent | { "type": "orderbook" } & OrderbookEvent | { "type": "candle" } & CandleEvent | { "type": "exchange:connected" } & ExchangeEvent | { "type": "exchange:disconnected" } & ExchangeEvent | { "type": "exchange:reconnecting" } & ExchangeEvent | { "type": "exchange:error" } & ExchangeEvent | { "type": "skipped" } & Skipped | { "type": "missed" } & Missed;

/**
 * A request for the entries of channels. Names are as the client wrote them: each is judged on its own.
 */
export type Subscribe = { 
/**
 * Comes back in the answers.
 */
id?: RequestId, 
/**
 * Names of channels.
 */
channels: Array<string>, 
/**
 * Where to resume, by channel name; channels without an entry start with what comes next.
 */
since?: { [key in string]: Since | null }, 
/**
 * The latest entry of each key is wanted first, of zones that are not resumed.
 */
snapshot?: boolean, };

/**
 * Where to resume a channel, as a client wrote it: each is judged on its own, so that one that is wrong does
 * not spoil the others.
 */
export type Since = Position | string;

/**
 * A request for no more entries of channels.
 */
export type Unsubscribe = { 
/**
 * Comes back in the answers.
 */
id?: RequestId, 
/**
 * Names of channels.
 */
channels: Array<string>, };

/**
 * Entries to be published to a channel. They are read as over HTTP.
 */
export type Publish = { 
/**
 * Comes back in the answer.
 */
id?: RequestId, 
/**
 * The name of a zone's channel, or of one of events.
 */
channel: string, 
/**
 * Prices, or events; `events` is as good a name for them.
 */
entries: Array<RawEntry>, };

/**
 * A price or an event as its publisher wrote it: an object.
 */
export type RawEntry = Record<string, unknown>;

/**
 * A request for nothing but an answer.
 */
export type Bare = { 
/**
 * Comes back in the answer.
 */
id?: RequestId, };

/**
 * Shows who one is, or shows it anew before the token that was shown expires.
 */
export type Auth = { 
/**
 * Comes back in the answer.
 */
id?: RequestId, 
/**
 * The token.
 */
token: Token, };

/**
 * Who one is: a token, or an API key. It is never printed.
 */
export type Token = string;

/**
 * A market area whose prices are streamed, such as `pjm`, `ercot` or `btc-usdt`.
 */
export type Zone = string;

/**
 * A named, ordered log of entries, such as `zone:pjm`. Cheap to clone.
 */
export type ChannelName = string;

/**
 * An order, named by a UUID (RFC 9562). Written in its hyphenated lower-case form.
 */
export type OrderId = string;

/**
 * One life of a channel's log. Opaque: offsets of different epochs cannot be compared.
 */
export type Epoch = string;

/**
 * A place in a channel: just after the entry with this offset. Offset 0 is before the first entry.
 */
export type Position = { 
/**
 * The life of the log that `offset` belongs to.
 */
epoch: Epoch, 
/**
 * The offset of the last entry had; entries count from 1. Below 2^53.
 */
offset: number, };

/**
 * What a client calls a request: a string or a number, which comes back with each digit and escape as it
 * was written.
 */
export type RequestId = string | number;

/**
 * How a reader that falls behind is treated.
 */
export type Lane = "latest" | "every";

/**
 * Which storage serves, as clients see it.
 */
export type BackendName = "redis" | "in-memory";

/**
 * How well it serves.
 */
export type BackendState = "healthy" | "degraded" | "recovering";

/**
 * Which channels a state of the storage is about.
 */
export type Scope = "all" | "some";

/**
 * Why something that a client asked for was not done.
 */
export type ErrorCode = "invalid_json" | "invalid_message" | "unknown_type" | "invalid_channel" | "not_subscribed" | "superseded" | "invalid_position" | "too_many_subscriptions" | "too_many_zones" | "too_many_orders" | "too_many_views" | "invalid_entry" | "too_many_keys" | "not_published" | "storage_unavailable" | "invalid_token" | "keys_awaited" | "forbidden";

/**
 * Why the gateway ended a subscription by itself.
 */
export type EndCode = "finished" | "forbidden";

/**
 * Close codes (RFC 6455, section 7.4). 1000 to 1015 mean what the RFC says; 4000 to 4499 say
 * "reconnect and resume"; 4500 to 4999 say "do not reconnect".
 */
export type CloseCode = "normal" | "protocol_error" | "unsupported_data" | "abnormal" | "invalid_utf8" | "message_too_big" | "shutting_down" | "slow_consumer" | "heartbeat_timeout" | "moved" | "rate_limited" | "too_many_connections" | "token_expired" | "keys_awaited" | "disconnected" | "unauthorized" | "bad_request";

/**
 * What was wrong with a request. Stable: clients may match on it.
 */
export type ProblemCode = "invalid_json" | "invalid_utf8" | "broken_body" | "invalid_name" | "invalid_position" | "invalid_order_id" | "invalid_idempotency_key" | "invalid_status" | "invalid_limit" | "invalid_query" | "invalid_header" | "invalid_host" | "tls_required" | "invalid_target" | "invalid_websocket_key" | "not_upgradable" | "unauthorized" | "origin_not_allowed" | "forbidden" | "not_found" | "unknown_order" | "unknown_dead_letter" | "unknown_event_type" | "unknown_key" | "unknown_zone" | "unknown_record" | "unknown_connection" | "no_gateway" | "method_not_allowed" | "body_timeout" | "idempotency_conflict" | "too_late" | "already_ended" | "has_job" | "no_job" | "may_be_submitted" | "lease_lost" | "cancelled" | "not_external" | "record_exists" | "foreign_epoch" | "precondition_failed" | "body_too_large" | "line_too_large" | "price_too_large" | "event_too_large" | "record_too_large" | "update_too_large" | "unsupported_media_type" | "unsupported_content_encoding" | "unknown_host" | "invalid_order" | "invalid_update" | "invalid_request" | "invalid_price" | "invalid_event" | "invalid_key" | "invalid_record" | "reserved_field" | "duplicate_field" | "invalid_timestamp" | "too_many_zones" | "too_many_keys" | "too_many_records" | "upgrade_required" | "unsupported_version" | "too_many_connections_from_address" | "too_many_connections_of_subject" | "connecting_too_often" | "rate_limited" | "internal" | "corrupt" | "not_implemented" | "storage_unavailable" | "busy" | "shutting_down" | "too_many_connections" | "queue_full" | "registry_behind" | "storage_degraded" | "unknown_while_degraded" | "no_worker" | "keys_awaited";

/**
 * A refused request: what was wrong, and what would be right. Where something else than a gateway has
 * answered, most of it may be missing.
 */
export type Problem = { 
/**
 * `about:blank`: the code says which problem it is.
 */
type?: string, 
/**
 * The status in words.
 */
title?: string, 
/**
 * The status.
 */
status?: number, 
/**
 * Programs may match on it.
 */
code?: ProblemCode | (string & {}), 
/**
 * For people.
 */
detail?: string, 
/**
 * How many prices or updates were accepted all the same.
 */
accepted?: number, 
/**
 * The line of the first fault, counting from 1.
 */
line?: number, 
/**
 * The element of the array with the first fault, counting from 0.
 */
index?: number, 
/**
 * When the same may succeed, in milliseconds from now, where that can be told; `Retry-After` says it in
 * whole seconds.
 */
retry_after_ms?: number, 
/**
 * The channel that is at fault, as the client named it, of several.
 */
channel?: string, 
/**
 * Each wrong field.
 */
errors?: Array<FieldFault>, };

/**
 * A field that is wrong.
 */
export type FieldFault = { 
/**
 * Its name.
 */
field: string, 
/**
 * What was wrong and what would be right.
 */
message: string, };

/**
 * The answer to what was published, and to updates: how many were accepted.
 */
export type Accepted = { 
/**
 * So many.
 */
accepted: number, };

/**
 * `GET /api/zones`.
 */
export type ZoneList = { 
/**
 * In order of name.
 */
zones: Array<ZoneView>, };

/**
 * A zone that has been published to.
 */
export type ZoneView = { 
/**
 * Its channel.
 */
channel: ChannelName, 
/**
 * How it treats readers that fall behind.
 */
lane: Lane, 
/**
 * The path of its WebSocket.
 */
stream: string, 
/**
 * Its name.
 */
zone: string, };

/**
 * `GET /api/zones/{zone}/latest` and `/history`: entries as their messages, with what they belong to.
 */
export type Entries = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * The life of the log that the offsets belong to; of `/history`.
 */
epoch?: Epoch, 
/**
 * The oldest offset that the log keeps; of `/history`.
 */
first_offset?: number, 
/**
 * The newest one; of `/history`.
 */
last_offset?: number, 
/**
 * Where the next page begins, if there may be one; of `/latest`.
 */
next?: string, 
/**
 * In their order.
 */
entries: Array<Entry>, };

/**
 * How an order stands, and the type of its updates but for `pending`.
 */
export type OrderStatus = "pending" | "routing" | "building" | "submitted" | "confirmed" | "failed";

/**
 * `POST /api/orders/execute` where `orders.schema` is `swap`: one token for another. Numbers keep the digits
 * that they are written with.
 */
export type Swap = { 
/**
 * What is given, such as `SOL`.
 */
tokenIn: string, 
/**
 * What is wanted for it, such as `USDC`.
 */
tokenOut: string, 
/**
 * How much of `tokenIn`; greater than 0.
 */
amount: number, 
/**
 * Per cent by which the price may be worse than quoted, 0 to 100. Default 0.5.
 */
slippage: number, 
/**
 * Goes with the order.
 */
metadata: Record<string, unknown>, };

/**
 * The answer to an order: it is in the queue.
 */
export type OrderPlaced = { 
/**
 * The job that carries it out.
 */
jobId: OrderId, 
/**
 * Its name.
 */
orderId: OrderId, 
/**
 * The order that was tried in vain, and that this one is in place of.
 */
retryOf?: OrderId, 
/**
 * How it stands.
 */
status: string, 
/**
 * Always true.
 */
success: boolean, 
/**
 * Where its stream is.
 */
wsUrl: string, };

/**
 * The answer to `POST /api/orders/{orderId}/cancel`: it is asked for.
 */
export type OrderCancelling = { 
/**
 * The order.
 */
orderId: OrderId, 
/**
 * `cancelling`.
 */
status: string, 
/**
 * Always true.
 */
success: boolean, };

/**
 * What is known of an order.
 */
export type OrderView = { 
/**
 * Its name.
 */
orderId: OrderId, 
/**
 * The name of the job that carries it out; absent when there is none here.
 */
jobId?: OrderId, 
/**
 * While Redis is away: what this node knows by itself, which may be behind. Absent otherwise.
 */
degraded?: boolean, 
/**
 * `pending`, or the type of the newest update.
 */
status: string, 
/**
 * 0 to 100.
 */
progress: number, 
/**
 * Which try it is at.
 */
attempt: number, 
/**
 * How many there are.
 */
maxAttempts: number, 
/**
 * How many times a worker took it up.
 */
run: number, 
/**
 * Somebody asked for it to be cancelled.
 */
cancelRequested: boolean, 
/**
 * What was ordered; absent when it was not placed here.
 */
order: Record<string, unknown>, 
/**
 * When it was placed.
 */
createdAt?: string, 
/**
 * When something last happened to it.
 */
updatedAt?: string, 
/**
 * The newest update, also where it is no longer among `updates`; absent in lists.
 */
lastUpdate?: Entry, 
/**
 * The life of the log that the updates' offsets belong to; absent in lists.
 */
epoch?: Epoch, 
/**
 * How many updates came before those that are still kept; absent in lists.
 */
gap?: number | null, 
/**
 * All that are kept, in order, as sockets get them; absent in lists.
 */
updates?: Array<Entry>, };

/**
 * `GET /api/orders`: the newest first.
 */
export type OrderList = { 
/**
 * The orders.
 */
orders: Array<OrderView>, 
/**
 * Where the next page begins; null when this is the last one.
 */
next: OrderId | null, 
/**
 * Redis is away, and these are the ones that this node knows by itself.
 */
degraded?: boolean, };

/**
 * `GET /api/orders/dead-letters`.
 */
export type DeadLetterList = { 
/**
 * The orders that were tried in vain, the newest first.
 */
deadLetters: Array<DeadLetter>, 
/**
 * Where the next page begins; null when this is the last one.
 */
next: OrderId | null, 
/**
 * Redis is away, and these are the ones that this node knows by itself.
 */
degraded?: boolean, };

/**
 * An order that was tried in vain.
 */
export type DeadLetter = { 
/**
 * Its name.
 */
orderId: OrderId, 
/**
 * What went wrong last.
 */
error: string, 
/**
 * It may have been carried out all the same.
 */
submitted: boolean, 
/**
 * How many times a worker took it up.
 */
runs: number, 
/**
 * What was ordered.
 */
order: Record<string, unknown>, 
/**
 * When it was placed.
 */
createdAt: string, 
/**
 * When it was given up.
 */
failedAt: string, };

/**
 * What a worker asks for.
 */
export type ClaimRequest = { 
/**
 * Its name; stands in the `executor` field of the updates.
 */
worker: string, 
/**
 * How many jobs at the most. Default 1.
 */
limit?: number, 
/**
 * For how long it holds them without a sign of life. Default `orders.lease_s`.
 */
leaseMs?: number, 
/**
 * How long it waits where there is nothing to do. Default 0.
 */
waitMs?: number, };

/**
 * The answer to a claim.
 */
export type Offer = { 
/**
 * Empty when there was nothing to do.
 */
jobs: Array<OfferedJob>, };

/**
 * A job that a worker may carry out.
 */
export type OfferedJob = { 
/**
 * Its name.
 */
jobId: OrderId, 
/**
 * The order's; the same.
 */
orderId: OrderId, 
/**
 * Must come with each call about this job.
 */
token: number, 
/**
 * How many times it has been claimed, this time included.
 */
run: number, 
/**
 * Which try this is.
 */
attempt: number, 
/**
 * How many there are.
 */
maxAttempts: number, 
/**
 * How long it is the worker's without a sign of life.
 */
leaseMs: number, 
/**
 * What was ordered.
 */
order: Record<string, unknown>, 
/**
 * How far the run before came; null when nothing was told yet.
 */
previous: Previous | null, };

/**
 * How far a run came.
 */
export type Previous = { 
/**
 * The type of its newest update.
 */
status: string, 
/**
 * 0 to 100.
 */
progress: number, 
/**
 * Which try it was.
 */
attempt: number, };

/**
 * `POST /api/jobs/{jobId}/extend`.
 */
export type ExtendRequest = { 
/**
 * From the claim.
 */
token: number, 
/**
 * How long the lease lasts from now on. Default `orders.lease_s`.
 */
leaseMs?: number, };

/**
 * The job is the worker's still.
 */
export type LeaseHeld = { 
/**
 * Always true.
 */
held: boolean, };

/**
 * What is to be no longer valid: one of these.
 */
export type Revoke = { 
/**
 * A token, by its `jti`.
 */
jti?: string, 
/**
 * An API key, by its name.
 */
key?: string, 
/**
 * All that was issued to a subject until now.
 */
subject?: string, };

/**
 * Where a revocation holds, as far as that is known.
 */
export type RevokedOn = { 
/**
 * The nodes that have confirmed it, the one that was asked first.
 */
holds_on: Array<string>, 
/**
 * Nodes that are there and have not confirmed it in time.
 */
unconfirmed_on: Array<string>, 
/**
 * The storage that nodes share is away: what other nodes there are is not known, and they hear of it
 * when it is back.
 */
degraded: boolean, };

/**
 * The settings that are in effect, secrets masked.
 */
export type ConfigView = { 
/**
 * The file that was read, if there was one.
 */
file?: string, 
/**
 * What holds up and may still be a mistake.
 */
warning?: string, 
/**
 * One after the other, by section.
 */
settings: Array<SettingView>, };

/**
 * A setting.
 */
export type SettingView = { 
/**
 * Its key, such as `http.listen`.
 */
key: string, 
/**
 * Its value; null where it is not set.
 */
value: unknown, 
/**
 * Where it came from: `default`, a file, an environment variable, a flag, or what made it less; absent
 * where that is not known.
 */
origin?: string, };

/**
 * `GET /api/providers` and `/api/active-orders`.
 */
export type RecordList = { 
/**
 * The records, as they were written.
 */
records: Array<Record<string, unknown>>, 
/**
 * The version of each, for `If-Match`.
 */
versions: Array<string>, 
/**
 * How many records fit the filter.
 */
total: number, 
/**
 * There are more: repeat with `after=` this.
 */
next?: string, 
/**
 * Whether what other gateways wrote is known: it is where this is `healthy`.
 */
state: BackendState | (string & {}), };

/**
 * `PUT /api/providers` and `DELETE /api/providers`, and the same of `/api/active-orders`.
 */
export type RecordsSet = { 
/**
 * How many records there are now.
 */
records: number, 
/**
 * How many there were.
 */
before: number, };

/**
 * `GET /api/registry`.
 */
export type RegistryStatus = { 
/**
 * The node that says so.
 */
node: string, 
/**
 * Online providers.
 */
providers: RegistryView, 
/**
 * Orders that are under way.
 */
active_orders: RegistryView, };

/**
 * `POST /api/registry/sync`.
 */
export type RegistrySync = { 
/**
 * Of each registry, what its Redis key held.
 */
synced: Array<RegistrySynced>, };

/**
 * What the Redis key of a registry held.
 */
export type RegistrySynced = { 
/**
 * `providers` or `active-orders`.
 */
registry: string, 
/**
 * Records in the key.
 */
found: number, 
/**
 * Those of them that were taken.
 */
taken: number, 
/**
 * Those of them that are no records.
 */
invalid: number, };

/**
 * `POST /api/jobs/{jobId}/release`.
 */
export type ReleaseRequest = { 
/**
 * From the claim.
 */
token: number, };

/**
 * `POST /api/jobs/{jobId}/fail`.
 */
export type FailRequest = { 
/**
 * From the claim.
 */
token: number, 
/**
 * What went wrong.
 */
error: Failure, 
/**
 * Another try may succeed.
 */
retry?: boolean, };

/**
 * Why an order failed.
 */
export type Failure = { 
/**
 * A word such as `no_liquidity`.
 */
code: string, 
/**
 * For people.
 */
message: string, };

/**
 * A report was taken.
 */
export type ReportAccepted = { 
/**
 * Always true.
 */
accepted: boolean, };

/**
 * What became of a job that its worker did not carry out.
 */
export type JobOutcome = { "outcome": "released" } | { "outcome": "retry", 
/**
 * After so many milliseconds.
 */
retryInMs: number, } | { "outcome": "failed" };

/**
 * `GET /health/live`.
 */
export type Live = { 
/**
 * `live`.
 */
status: string, };

/**
 * Where the storage stands, as every endpoint says it.
 */
export type StorageView = { 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well.
 */
state: BackendState | (string & {}), 
/**
 * Since when.
 */
since: string, 
/**
 * Which channels it is about.
 */
scope: Scope | (string & {}), 
/**
 * Why, as a word.
 */
reason_code: string, 
/**
 * Why, for people; may name what the server said.
 */
reason: string, 
/**
 * Servers that share the channels among them.
 */
primaries: number, 
/**
 * Those of them that do not serve.
 */
primaries_away: number, };

/**
 * `GET /health`, `/ws/health` and `/health/ready`.
 */
export type HealthView = { 
/**
 * `healthy`, `degraded`, `recovering` or `stopping`.
 */
status: string, 
/**
 * The process works.
 */
live: boolean, 
/**
 * It may be sent traffic; degraded is ready.
 */
ready: boolean, 
/**
 * Redis is configured or required, and does not serve as it should.
 */
degraded: boolean, 
/**
 * How the journal's copy on disk does, where there is one.
 */
spool?: string, 
/**
 * What is wrong with it.
 */
spool_reason?: string, 
/**
 * Channels that cannot be put in order while Redis serves all others, and why: some of them.
 */
channels_set_aside?: Array<ChannelSetAside>, 
/**
 * Which process it is; another one after each start.
 */
node: string, 
/**
 * Of the program.
 */
version: string, 
/**
 * Seconds since its start.
 */
uptime_s: number, 
/**
 * WebSockets that are open.
 */
connections: number, 
/**
 * What WebSockets did since the start.
 */
websocket: WebSocketView, 
/**
 * The kind of executor that carries out what is placed here.
 */
executor: string, 
/**
 * The kinds that other nodes with the same storage have: orders that are placed there are not
 * carried out by workers of this kind. Absent where there are none.
 */
other_executors?: Array<string>, 
/**
 * How the gateway's knowledge of tokens does, where it asks who one is.
 */
authentication?: AuthenticationView, 
/**
 * How the gateway's own certificate does, where it speaks TLS.
 */
tls?: TlsHealth, 
/**
 * When this was said.
 */
timestamp: string, 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well.
 */
state: BackendState | (string & {}), 
/**
 * Since when.
 */
since: string, 
/**
 * Which channels it is about.
 */
scope: Scope | (string & {}), 
/**
 * Why, as a word.
 */
reason_code: string, 
/**
 * Why, for people; may name what the server said.
 */
reason: string, 
/**
 * Servers that share the channels among them.
 */
primaries: number, 
/**
 * Those of them that do not serve.
 */
primaries_away: number, };

/**
 * How a gateway's knowledge of tokens does.
 */
export type AuthenticationView = { 
/**
 * `known`, or `unknown` where there may be revocations that this node has not heard of.
 */
revocations: string, 
/**
 * `fresh`, or `stale` where a place of keys fails; the log says which.
 */
keys: string, };

/**
 * How a gateway's certificate does.
 */
export type TlsHealth = { 
/**
 * `fresh`, or `stale` where the files hold something that cannot be used, and what they held before
 * goes on; the log says why.
 */
files: string, 
/**
 * When it ceases to be valid.
 */
expires_at: string, };

/**
 * A channel that cannot be put in order.
 */
export type ChannelSetAside = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Why.
 */
reason: string, };

/**
 * What WebSockets did since the start.
 */
export type WebSocketView = { 
/**
 * Open now.
 */
open: number, 
/**
 * Opened.
 */
total: number, 
/**
 * Messages to clients.
 */
messages_sent: number, 
/**
 * Messages from clients.
 */
messages_received: number, 
/**
 * Messages that were answered with an error.
 */
errors: number, 
/**
 * As a part of those received.
 */
error_rate_percent: number, };

/**
 * `GET /health/redis`.
 */
export type RedisView = { 
/**
 * `healthy` (also where no Redis is configured), `degraded` (some primaries of a cluster are away, or a
 * connection of the bridge is) or `unhealthy`.
 */
status: string, 
/**
 * What is counted of the bridge.
 */
metrics: RedisMetrics, 
/**
 * How the storage's Redis is: `up` (also while channels are put in order), `partial` (some primaries of
 * a cluster are away), `down` or `not_configured`.
 */
link: string, 
/**
 * Redis serves.
 */
serving: boolean, 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well.
 */
state: BackendState | (string & {}), 
/**
 * Since when.
 */
since: string, 
/**
 * Which channels it is about.
 */
scope: Scope | (string & {}), 
/**
 * Why, as a word.
 */
reason_code: string, 
/**
 * Why, for people; may name what the server said.
 */
reason: string, 
/**
 * Servers that share the channels among them.
 */
primaries: number, 
/**
 * Those of them that do not serve.
 */
primaries_away: number, };

/**
 * What is counted of the bridge, which exchanges events with other gateways and processes; all is 0 where it
 * is off.
 */
export type RedisMetrics = { 
/**
 * Redis is connected: by the bridge, where it is on, else by the storage.
 */
connected: boolean, 
/**
 * Events published.
 */
publishedEvents: number, 
/**
 * Events of others heard and taken.
 */
receivedEvents: number, 
/**
 * Connections of the bridge lost, and calls that failed.
 */
errors: number, 
/**
 * Types that are to be subscribed to at the moment.
 */
subscriptions: number, 
/**
 * Of these, those that are.
 */
activeSubscriptions: number, };

/**
 * When a type of events of other processes is subscribed to.
 */
export type SubscriptionMode = "interest" | "always" | "never";

/**
 * What an operator says of a type of events, until the process ends.
 */
export type SetSubscription = { 
/**
 * The type, such as `ticker`.
 */
type: string, 
/**
 * When it is subscribed to from now on.
 */
mode: SubscriptionMode, };

/**
 * What this node publishes to other gateways and processes, what it hears of them, and what came of which.
 */
export type BridgeSubscriptions = { 
/**
 * Whether events are exchanged at all.
 */
enabled: boolean, 
/**
 * This node is the one that takes durable events of other processes in.
 */
takes_in: boolean, 
/**
 * All types.
 */
types: Array<BridgeSubscription>, 
/**
 * The gateways that were heard of.
 */
sources: Array<BridgeSource>, };

/**
 * A type of events.
 */
export type BridgeSubscription = { 
/**
 * Its name.
 */
type: string, 
/**
 * The pub/sub channel.
 */
channel: string, 
/**
 * `live` or `durable`.
 */
delivery: string, 
/**
 * What this node accepts of it is published.
 */
publishes: boolean, 
/**
 * The configuration lets it be subscribed to.
 */
subscribes: boolean, 
/**
 * When it is subscribed to.
 */
mode: SubscriptionMode | (string & {}), 
/**
 * Somebody on this node follows it.
 */
wanted_here: boolean, 
/**
 * It is to be subscribed to at the moment. A durable type is by one gateway only, which takes events of
 * other processes in; the others have them from the log.
 */
due: boolean, 
/**
 * It is.
 */
active: boolean, 
/**
 * Events published.
 */
published: number, 
/**
 * Events of others heard and taken.
 */
received: number, 
/**
 * Live events of other gateways that did not come.
 */
missed: number, };

/**
 * A gateway that was heard of.
 */
export type BridgeSource = { 
/**
 * Its node.
 */
source: string, 
/**
 * By type.
 */
types: { [key in string]: SourceCounts }, };

/**
 * What a gateway published of a live type, and what came of it.
 */
export type SourceCounts = { 
/**
 * The number of its newest event that is known here: it has published so many since its start.
 */
published: number, 
/**
 * Those that came, since this node began to listen.
 */
received: number, 
/**
 * Those that did not come, of those that this node listened to.
 */
missed: number, };

/**
 * The exchange of events with other gateways and processes by Redis pub/sub. Each map is by type of
 * events.
 */
export type BridgeView = { 
/**
 * Whether both connections of the bridge are there, or, where it is off, the storage's: 1, or 0.
 */
connected: number, 
/**
 * Events published to other gateways and processes.
 */
published_events: number, 
/**
 * Events of other gateways and processes that were heard and taken.
 */
received_events: number, 
/**
 * Connections of the bridge that were lost, and calls that failed.
 */
errors: number, 
/**
 * Types of events that are to be subscribed to at the moment.
 */
subscriptions: number, 
/**
 * Of these, those that are.
 */
active_subscriptions: number, 
/**
 * Whether this gateway is the one that takes durable events of other processes in: 1, or 0.
 */
takes_in: number, 
/**
 * Accepted events that wait to be published.
 */
waiting: number, 
/**
 * Events published, by type.
 */
published: { [key in string]: number }, 
/**
 * Events not published, since newer ones left no room for them in the queue.
 */
queue_full: { [key in string]: number }, 
/**
 * Events not published, since Redis was away.
 */
redis_away: { [key in string]: number }, 
/**
 * Events that may not have been published, since Redis did not answer. They are not sent again.
 */
not_answered: { [key in string]: number }, 
/**
 * Events heard and taken, by type.
 */
received: { [key in string]: number }, 
/**
 * Live events of other gateways that did not come.
 */
missed: { [key in string]: number }, 
/**
 * Messages that are no events: no envelope, no event of the type, or too large.
 */
invalid: { [key in string]: number }, 
/**
 * Live events that came after they were said to be missing, and were let go.
 */
stale: { [key in string]: number }, 
/**
 * This gateway's own events, as it hears them itself.
 */
own: { [key in string]: number }, 
/**
 * Durable events of other gateways, which come by the log.
 */
left_alone: { [key in string]: number }, 
/**
 * Events of gateways that have another setting `bridge.durable`, which were let go.
 */
other_delivery: { [key in string]: number }, 
/**
 * Live events heard that this gateway's own log did not take.
 */
not_taken: { [key in string]: number }, 
/**
 * Durable events of other processes that this gateway put into the log.
 */
taken_in: { [key in string]: number }, 
/**
 * Durable events of other processes that were in the log, by their own ids.
 */
taken_in_before: { [key in string]: number }, 
/**
 * Durable events of other processes let go, since too many waited for the log.
 */
intake_full: { [key in string]: number }, 
/**
 * Durable events of other processes that this gateway had heard when another one began to take them
 * in.
 */
lease_lost: { [key in string]: number }, 
/**
 * Times that messages of other processes may have been missed.
 */
gaps: number, 
/**
 * How long after their acceptance by another gateway live events were in this one's log. The clocks of
 * the two count.
 */
lag: Timing, };

/**
 * How an exchange is reached, and what came of it.
 */
export type ExchangeView = { 
/**
 * What the newest event says of how it is reached: `connected`, `disconnected` or `reconnecting`; absent
 * where none is known.
 */
state?: string, 
/**
 * The time of that event.
 */
since?: string, 
/**
 * Events of it that this node accepted, or heard of others, since its start, by type.
 */
events: { [key in string]: number }, };

/**
 * A feed of an exchange.
 */
export type FeedView = { 
/**
 * What it speaks.
 */
kind: string, 
/**
 * `standby` (another process has it, or nobody may), `connecting`, `connected` or `waiting`.
 */
state: string, 
/**
 * Why it is in that state, or what is wrong with its lease; empty where all is well.
 */
reason: string, 
/**
 * 1 while this process has the feed and is connected, else 0.
 */
connected: number, 
/**
 * Frames that came from exchanges.
 */
frames: number, 
/**
 * Requests to exchanges that ended, with an answer or without.
 */
requests: number, 
/**
 * Events and prices of exchanges that were published.
 */
events: number, 
/**
 * Frames, rows and events of exchanges that were not of the documented shape, and were left out.
 */
malformed: number, 
/**
 * Times that changes of a book were missing, and a fresh snapshot was asked for.
 */
gaps: number, 
/**
 * Trades that were missed, and that the exchange does not give again.
 */
trades_missed: number, 
/**
 * Subscriptions and requests that an exchange refused or did not answer.
 */
refused: number, 
/**
 * Times that a connection to an exchange was lost, or did not come about.
 */
reconnects: number, 
/**
 * Events and prices that the channels did not take.
 */
unpublished: number, 
/**
 * Times that a lease could not be renewed at once.
 */
lease_failures: number, 
/**
 * Times that a lease was lost, and the feed stopped here.
 */
leases_lost: number, };

/**
 * `GET /ws/stats?scope=fleet`: the nodes that share the storage.
 */
export type FleetView = { 
/**
 * `fleet`.
 */
scope: string, 
/**
 * Of which nodes it is known how they do.
 */
nodes_known: NodesKnown | (string & {}), 
/**
 * What is to be said of the list, for people; absent where that is nothing.
 */
note?: string, 
/**
 * Those that are there, the one that runs longest first; 1,024 at the most, the one that answers among them.
 */
nodes: Array<FleetNode>, 
/**
 * Of those that are listed.
 */
totals: FleetTotals, };

/**
 * Of which nodes it is known how they do.
 */
export type NodesKnown = "all" | "this_one";

/**
 * What a node tells of itself, each second.
 */
export type FleetNode = { 
/**
 * Its name, as in its `/ws/stats`; another one after each start.
 */
node: string, 
/**
 * It is the one that answers.
 */
here: boolean, 
/**
 * Of its program.
 */
version: string, 
/**
 * How it does.
 */
state: NodeState | (string & {}), 
/**
 * When it started, by its own clock.
 */
started_at: string, 
/**
 * When it told this, by its own clock.
 */
told_at: string, 
/**
 * Open WebSockets, and streams of events.
 */
connections: number, 
/**
 * Subscribers by zone: the 64 zones with most of them.
 */
zones: Array<ZoneConnections>, 
/**
 * Zones with subscribers besides these.
 */
zones_left_out: number, 
/**
 * How long entries took from the log to the kernel (`delivery_seconds`), of those in the last ten seconds.
 */
lag_ms: DeliveryLag, 
/**
 * The kind of executor that carries out orders which are placed there.
 */
executor: string, };

/**
 * How a node does.
 */
export type NodeState = "serving" | "degraded" | "draining";

/**
 * How many connections of a node are subscribed to a zone.
 */
export type ZoneConnections = { 
/**
 * Its name.
 */
zone: string, 
/**
 * So many.
 */
connections: number, };

/**
 * How long entries took, in milliseconds, as well as the buckets of the histogram tell; null where there were
 * none.
 */
export type DeliveryLag = { 
/**
 * Half of them took no longer.
 */
p50: number | null, 
/**
 * 99 of 100 took no longer.
 */
p99: number | null, };

/**
 * What the listed nodes have together.
 */
export type FleetTotals = { 
/**
 * How many there are.
 */
nodes: number, 
/**
 * Open WebSockets, and streams of events.
 */
connections: number, };

/**
 * `GET /ws/stats`: what was counted since the start, and how much there is of what. Fields of the
 * parts come and go with what is counted; who reads takes those that are missing for nothing.
 */
export type StatsView = { 
/**
 * Which process it is; another one after each start.
 */
node: string, 
/**
 * Of the program.
 */
version: string, 
/**
 * Seconds since its start.
 */
uptime_s: number, 
/**
 * When this was said.
 */
timestamp: string, 
/**
 * How full this process' own logs are.
 */
memory: MemoryUsage, 
/**
 * What waits for Redis, and what became of channels that went on without it.
 */
outage: OutageView, 
/**
 * WebSockets.
 */
connections: ConnectionsView, 
/**
 * What crossed them.
 */
messages: MessagesView, 
/**
 * Channels, and their entries.
 */
channels: ChannelsView, 
/**
 * What this node did with orders, and how many there are on all nodes.
 */
orders: OrdersView, 
/**
 * The exchange with workers outside that use Redis lists.
 */
interop: InteropCounts, 
/**
 * The exchange of events with other gateways and processes by Redis pub/sub.
 */
redis: BridgeView, 
/**
 * How exchanges are reached, and what came of them, by exchange; `*` are those beyond the first 256. What
 * the log says of how they are reached is left out where it cannot be read in time.
 */
exchanges: { [key in string]: ExchangeView }, 
/**
 * The feeds of exchanges that this process is configured with, by the names that events call them.
 */
feeds: { [key in string]: FeedView }, 
/**
 * Who is online, and which orders are under way.
 */
registries: RegistriesView, 
/**
 * The nodes that share the storage; `?scope=fleet` lists them.
 */
fleet: NodesView, 
/**
 * Limits of principals and tenants.
 */
limits: LimitsView, 
/**
 * Requests, and the TCP connections that bring them.
 */
http: HttpView, 
/**
 * The states that the storage was in, the newest first; the first one lasts.
 */
storage_history: Array<StateSpell>, 
/**
 * Some of the open connections, in the order of their ids.
 */
connection_list: Array<ConnectionInfo>, 
/**
 * There are more connections of those that were asked for: repeat with `after=` this; absent where
 * there are none.
 */
connections_next?: string, 
/**
 * Shards too busy to say how many connections each zone has.
 */
silent_shards: number, 
/**
 * Which storage serves.
 */
storage_backend: BackendName | (string & {}), 
/**
 * How well.
 */
state: BackendState | (string & {}), 
/**
 * Since when.
 */
since: string, 
/**
 * Which channels it is about.
 */
scope: Scope | (string & {}), 
/**
 * Why, as a word.
 */
reason_code: string, 
/**
 * Why, for people; may name what the server said.
 */
reason: string, 
/**
 * Servers that share the channels among them.
 */
primaries: number, 
/**
 * Those of them that do not serve.
 */
primaries_away: number, };

/**
 * What a node knows of those that share its storage.
 */
export type NodesView = { 
/**
 * Nodes with this storage by their state, this one among them, as they were listed last; while Redis is
 * away, and with memory as the storage, this one alone.
 */
nodes_by_state: { [key in string]: number }, 
/**
 * Times that this node told others of itself.
 */
told: number, 
/**
 * Times that it could not, as while Redis is away; it tells again a second later.
 */
untold: number, 
/**
 * Times that it read what others tell.
 */
lists: number, 
/**
 * Times that it could not.
 */
lists_failed: number, 
/**
 * Records of nodes that could not be read, each time that they were listed.
 */
unreadable: number, };

/**
 * How long something took, each time since the start.
 */
export type Timing = { 
/**
 * How many times it took longer than the bucket before says, and at the most as long as this one says:
 * 50, 100, 250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100 and 250 ms, 1 and 5 s, or longer.
 */
buckets: Array<number>, 
/**
 * All of them together, in microseconds.
 */
sum_us: number, };

/**
 * How full this process' own logs are.
 */
export type MemoryUsage = { 
/**
 * What the entries in this process cost, the latest ones of keys included, in bytes.
 */
bytes: number, 
/**
 * The bound of that.
 */
bytes_max: number, 
/**
 * Of these bytes, what the latest entries of keys cost.
 */
latest_bytes: number, 
/**
 * Entries of logs that went because the bound was passed; readers who ask for them are told of the
 * gap.
 */
evicted_entries: number, 
/**
 * Latest entries of keys that did.
 */
evicted_latest: number, 
/**
 * What memory keeps on disk (`storage.memory.data_dir`): `off`, `working`, `failed`, `stalled` or
 * `closed`.
 */
disk: string, 
/**
 * What is wrong with it; absent while nothing is.
 */
disk_reason: string | null, 
/**
 * The length of its files; room inside is used again.
 */
disk_bytes: number, 
/**
 * Transactions that it wrote for somebody who waited: with `fsync = "always"` as many fsyncs.
 */
disk_commits: number, 
/**
 * What was refused because the disk did not take it, or not in time; each try counted.
 */
disk_refused: number, 
/**
 * Its files that could not be read and were put aside, since the start of the process.
 */
disk_set_aside: number, };

/**
 * How long the storage was in each state, what waits for Redis, and what became of channels that went
 * on without it.
 */
export type OutageView = { 
/**
 * Changes of the storage's state.
 */
switches: number, 
/**
 * Time spent in each state of the storage, in seconds.
 */
seconds_in_state: { [key in string]: number }, 
/**
 * Channels that go on without Redis now.
 */
channels_alone: number, 
/**
 * Channels to be put in order with Redis, those included.
 */
channels_waiting: number, 
/**
 * Of these, those that cannot be put in order while Redis serves all others (a key of theirs holds
 * something else, say): health names them and why, they go on without Redis, and are tried again
 * every 10 s.
 */
channels_set_aside: number, 
/**
 * Accepted entries that wait for Redis.
 */
journal_entries: number, 
/**
 * What they cost, in bytes.
 */
journal_bytes: number, 
/**
 * How long the oldest of them has waited, in milliseconds; absent when none waits.
 */
journal_oldest_ms: number | null, 
/**
 * Accepted entries that the log will not have, since a newer price of the key took their place for
 * want of room.
 */
journal_thinned: number, 
/**
 * Entries of zones that waited too long.
 */
journal_aged: number, 
/**
 * Updates of orders beyond those that are kept of each.
 */
journal_order_overflow: number, 
/**
 * Entries refused, because the journal was full.
 */
journal_refused_full: number, 
/**
 * Of the entries in the journal, those that would be lost with the process: there is no spool, or
 * they are not in it.
 */
journal_in_memory_only: number, 
/**
 * The journal's copy on disk: `off`, `working`, `failed`, `stalled` or `closed`.
 */
spool: string, 
/**
 * What is wrong with it; absent while nothing is.
 */
spool_reason: string | null, 
/**
 * Entries in the journal's copy on disk, also those of former lives of this gateway.
 */
spool_entries: number, 
/**
 * What they cost, in bytes.
 */
spool_bytes: number, 
/**
 * Entries that the spool had no room for, each try counted.
 */
spool_full: number, 
/**
 * Entries that it did not take in time: the disk hangs.
 */
spool_slow: number, 
/**
 * Entries that it could not write: the disk is full or fails.
 */
spool_failed: number, 
/**
 * Jobs of this node that Redis does not have yet.
 */
jobs_waiting: number, 
/**
 * Small records (that a zone exists, say) that waited for Redis and were one too many.
 */
records_let_go: number, 
/**
 * How long Redis took to answer a beat: a script that writes, five times a second, to each primary.
 */
redis_round_trip: Timing, 
/**
 * Times that a channel went on alone.
 */
forks: number, 
/**
 * Of these, because an append was late while Redis served.
 */
forks_late: number, 
/**
 * Times that a channel came back in step with Redis.
 */
rejoins: number, 
/**
 * Times that this was tried again.
 */
rejoin_retries: number, 
/**
 * Entries sent to the log when Redis was back.
 */
replayed: number, 
/**
 * Entries put back into logs that had lost them.
 */
put_back: number, 
/**
 * Accepted entries that the log refused when it was back: the order had ended, or was somebody
 * else's.
 */
superseded: number, 
/**
 * Logs that had lost what they acknowledged.
 */
lost_logs: number, 
/**
 * Jobs that this node took on without Redis.
 */
jobs_taken: number, 
/**
 * Of these, those that Redis has had since.
 */
jobs_recorded: number, 
/**
 * Times that recording one failed, and was tried again.
 */
job_retries: number, 
/**
 * Of these jobs, those whose idempotency key led to another job in Redis.
 */
key_conflicts: number, };

/**
 * WebSockets.
 */
export type ConnectionsView = { 
/**
 * Open WebSockets, and streams of events.
 */
open: number, 
/**
 * Of these, streams of events.
 */
event_streams: number, 
/**
 * WebSockets opened.
 */
total: number, 
/**
 * WebSockets that have ended.
 */
total_disconnections: number, 
/**
 * Open ones by zone.
 */
by_zone: { [key in string]: number }, 
/**
 * WebSockets that have ended, by the reason of the close code.
 */
closed_by_reason: { [key in string]: number }, 
/**
 * Connections refused by a limit: `full` (`connections.max`), `tcp` (`connections.tcp_max`),
 * `address` (`connections.per_address_max`), `rate` (`connections.connects_per_s`).
 */
refused_by_limit: { [key in string]: number }, 
/**
 * How long ended ones lasted, in seconds.
 */
average_duration_s: number, 
/**
 * For how long the one that is open longest has been so, in seconds.
 */
longest_open_s: number, 
/**
 * Ended ones by how long they lasted.
 */
durations: Array<DurationBucket>, };

/**
 * Ended connections that lasted longer than the bucket before, and at the most this.
 */
export type DurationBucket = { 
/**
 * In seconds.
 */
up_to_s: number, 
/**
 * So many.
 */
connections: number, };

/**
 * What crossed WebSockets.
 */
export type MessagesView = { 
/**
 * Messages answered with `error`.
 */
errors: number, 
/**
 * In percent of those received.
 */
error_rate_percent: number, 
/**
 * Messages answered with `error`, by its code.
 */
errors_by_code: { [key in string]: number }, 
/**
 * Bytes of these pages that wait for clients, or are kept for 2 s for others; past
 * `channels.replay_bytes_max` pages are small.
 */
replay_bytes: number, 
/**
 * Messages whose last byte was handed to the kernel.
 */
sent: number, 
/**
 * Text messages from clients.
 */
received: number, 
/**
 * Bytes from clients.
 */
bytes_received: number, 
/**
 * Waiting messages that a newer one replaced.
 */
conflated: number, 
/**
 * Waiting messages that were never sent, by reason.
 */
dropped_by_reason: DroppedMessages, 
/**
 * Entries that clients published over their WebSockets.
 */
published: number, 
/**
 * Pages of the log that clients who catch up were given.
 */
replays: number, 
/**
 * Entries sent from the log.
 */
replayed: number, 
/**
 * Times that a client was sent the latest entry of each key, or began to be.
 */
snapshots: number, 
/**
 * Entries sent so.
 */
snapshot_entries: number, 
/**
 * Times that a client was told of missing entries.
 */
gaps_told: number, 
/**
 * Times that a channel waited for readers far behind.
 */
paced: number, 
/**
 * How long entries waited in a shard's mailbox; one observation for each batch of a channel and each
 * shard. Those in the first bucket were taken as good as at once.
 */
mailbox_wait: Timing, 
/**
 * From when the log had taken entries of this node, or they were heard from another one, until a
 * shard had handed them to the kernel for all its subscribers; one observation for each batch of a
 * channel and each shard. What waits for a reader that is behind is not in it.
 */
delivery_duration: Timing, 
/**
 * From when a client began to be brought up to date until it was.
 */
replay_duration: Timing, 
/**
 * Panics (bugs) that ended one connection; everything else goes on.
 */
panics: number, 
/**
 * Pages of logs, and of latest entries for snapshots, read for clients: what many want at about
 * the same time is read once.
 */
replay_reads: number, 
/**
 * Times that a reader was given a page that was read for another one.
 */
replay_reads_shared: number, };

/**
 * Waiting messages that were never sent.
 */
export type DroppedMessages = { 
/**
 * Messages that waited for a reader which was closed as too slow.
 */
slow_consumer: number, 
/**
 * Messages that waited when a connection ended for another reason.
 */
connection_ended: number, };

/**
 * Channels, and their entries.
 */
export type ChannelsView = { 
/**
 * Channels in use.
 */
active: number, 
/**
 * Views of events that somebody follows.
 */
views: number, 
/**
 * Types of events of which somebody follows all, or a view.
 */
followed_events: number, 
/**
 * Entries that the log took.
 */
entries_accepted: number, 
/**
 * Entries refused for want of storage.
 */
entries_unavailable: number, 
/**
 * Updates of orders that the log refused for good.
 */
entries_refused_by_reason: RefusedEntries, 
/**
 * Entries handed to shards, in order.
 */
entries_delivered: number, 
/**
 * Entries that left the log before this node saw them.
 */
entries_missed: number, 
/**
 * Entries of followed channels that this build cannot show.
 */
entries_skipped_by_reason: SkippedEntries, 
/**
 * Appends sent to the storage.
 */
appends: number, 
/**
 * How long appends took that the storage answered; of up to 50 entries each.
 */
append_duration: Timing, 
/**
 * Storage calls (appends and reads) that failed and were repeated.
 */
storage_retries: number, 
/**
 * Times that the log was read for missing entries.
 */
holes_repaired: number, 
/**
 * Times that a log began a new life.
 */
epoch_changes: number, 
/**
 * Storage events let go because a channel was busy; the log was read instead.
 */
echoes_dropped: number, };

/**
 * Updates of orders that the log takes neither now nor later.
 */
export type RefusedEntries = { 
/**
 * Updates of orders that were written under a lease that was lost.
 */
stale_lease: number, 
/**
 * Updates that came after the end of their order.
 */
order_ended: number, };

/**
 * Entries that this build cannot show.
 */
export type SkippedEntries = { 
/**
 * Entries of followed channels whose kind a newer build knows, and this one does not.
 */
unknown_kind: number, 
/**
 * Entries whose stored form is another one, or damaged: also data that is no JSON object, as
 * somebody else may write it to the same Redis.
 */
unreadable: number, };

/**
 * What this node did with orders, and how many there are on all nodes.
 */
export type OrdersView = { 
/**
 * The kind of executor that carries out what is placed here.
 */
executor: string, 
/**
 * The kinds that other nodes with the same storage have.
 */
other_executors: Array<string>, 
/**
 * Jobs on all nodes; while the storage is degraded those that this node knows. Null when the
 * storage did not say in time.
 */
jobs: JobsView | null, 
/**
 * Orders queued by this node.
 */
placed: number, 
/**
 * Requests that repeated an idempotency key.
 */
repeated: number, 
/**
 * Orders refused because the queue was full.
 */
refused_full: number, 
/**
 * Updates of orders accepted.
 */
updates: number, 
/**
 * Updates that came too late: of a stale worker, or after the end.
 */
updates_refused: number, 
/**
 * Outside updates taken in an outage, while nobody could say whether their order has a job.
 */
updates_unchecked: number, 
/**
 * Jobs claimed through this node.
 */
runs: number, 
/**
 * Requests of workers outside that ask for orders, or wait for some, at the moment.
 */
claims_under_way: number, 
/**
 * Orders that were carried out here.
 */
confirmed: number, 
/**
 * Orders that failed here.
 */
failed: number, 
/**
 * Runs that ended with another try to come.
 */
retried: number, 
/**
 * Runs that were given back, which uses up no attempt: at a stop, by a worker's `release`, or
 * because nobody took what was claimed.
 */
given_back: number, 
/**
 * Orders that became dead letters.
 */
dead: number, 
/**
 * Runs that stopped because their order had become somebody else's.
 */
leases_lost: number, 
/**
 * Storage calls about jobs that failed; each was repeated, or told.
 */
storage_failures: number, 
/**
 * Panics (bugs) that ended one try of an order; everything else goes on.
 */
panics: number, };

/**
 * Jobs by state.
 */
export type JobsView = { 
/**
 * They wait for a worker.
 */
waiting: number, 
/**
 * They are tried again after a while.
 */
delayed: number, 
/**
 * A worker has them.
 */
claimed: number, 
/**
 * Their orders have ended.
 */
done: number, 
/**
 * Dead letters.
 */
dead: number, };

/**
 * What the exchange with workers outside did since the start.
 */
export type InteropCounts = { 
/**
 * Orders whose outside updates are followed.
 */
followed: number, 
/**
 * Outside updates that this node put into the log.
 */
accepted: number, 
/**
 * Outside updates that the log had already: other nodes watch the same order.
 */
duplicates: number, 
/**
 * Outside updates that cannot be told, by reason.
 */
invalid: OutsideInvalid, 
/**
 * Outside updates that the log did not take, by reason.
 */
refused: OutsideRefused, 
/**
 * Outside updates heard and let go, for want of memory or a log that takes them. The next one of
 * the order is marked.
 */
lost: number, 
/**
 * Times that outside updates may have been missed.
 */
gaps: number, 
/**
 * Times that the list of an order was something else than a list.
 */
unreadable: number, 
/**
 * Storage calls for outside workers that failed and were repeated.
 */
retries: number, 
/**
 * Own updates written for outside consumers.
 */
mirrored: number, 
/**
 * Own updates, or orders with some, that could not be written for them and were given up.
 */
mirror_failures: number, };

/**
 * Outside updates that cannot be told.
 */
export type OutsideInvalid = { 
/**
 * Outside updates that are no JSON.
 */
not_json: number, 
/**
 * They are no object.
 */
not_an_object: number, 
/**
 * They name no stage of an order.
 */
no_stage: number, 
/**
 * They are too large.
 */
too_large: number, };

/**
 * Outside updates that the log did not take.
 */
export type OutsideRefused = { 
/**
 * Outside updates that came after the last one of their order.
 */
closed: number, 
/**
 * Somebody held a lease.
 */
stale_fence: number, 
/**
 * The order is carried out by the gateway's workers.
 */
has_job: number, };

/**
 * How the registries of a node do.
 */
export type RegistriesView = { 
/**
 * Online providers.
 */
providers: RegistryView, 
/**
 * Orders that are under way.
 */
active_orders: RegistryView, };

/**
 * How a registry does on one node.
 */
export type RegistryView = { 
/**
 * `healthy`; `degraded` while Redis is away, and what other nodes write is not known here; `recovering`
 * until it was compared with the log after that.
 */
state: string, 
/**
 * Records.
 */
records: number, 
/**
 * Removals that are remembered, so that nothing older brings them back.
 */
removals: number, 
/**
 * Records that were written here and are not in the log yet.
 */
waiting: number, 
/**
 * How long the first of them has waited, in milliseconds; null where none waits.
 */
waiting_for_ms: number | null, 
/**
 * That is 5 seconds or longer.
 */
is_lagging: boolean, 
/**
 * Records written here, renewals included.
 */
written: number, 
/**
 * Records removed here.
 */
removed: number, 
/**
 * Records whose time had run out, as this node found first.
 */
expired: number, 
/**
 * Records and removals appended to the log; several writings of a record may be one.
 */
appended: number, 
/**
 * Times that the log did not take them; each was tried again.
 */
append_failures: number, 
/**
 * Entries of the log that lost to a newer writing of their record.
 */
superseded: number, 
/**
 * Entries of the log that are no records.
 */
unreadable: number, 
/**
 * Times that what is held here was compared with the log.
 */
compared: number, 
/**
 * Providers taken offline, since their connection or their node was gone.
 */
went_offline: number, 
/**
 * Records taken from the Redis keys of other programs.
 */
imported: number, 
/**
 * Times that these keys could not be written.
 */
mirror_failures: number, 
/**
 * Orders under way here that the registry had no room for.
 */
orders_left_out: number, 
/**
 * How long what was written waited for the log.
 */
behind_duration: Timing, };

/**
 * Requests, and the TCP connections that bring them.
 */
export type HttpView = { 
/**
 * Open TCP connections, WebSockets among them.
 */
open: number, 
/**
 * What the bodies of requests hold that are being read, of all requests together, in bytes
 * (`http.bodies_bytes_max`).
 */
body_bytes: number, 
/**
 * What lists, `/latest`, `/history`, orders with their updates, and all compressed answers hold
 * that their clients have not taken yet, in bytes (`http.answers_bytes_max`).
 */
answer_bytes: number, 
/**
 * Requests answered with a problem, by its code, such as `unknown_host` and `origin_not_allowed`,
 * or `busy`: one of the bounds of bytes leaves no room for what they brought.
 */
requests_refused_by_reason: { [key in string]: number }, 
/**
 * Tokens and API keys that held.
 */
tokens_accepted: number, 
/**
 * Tokens, API keys and clients' certificates that did not hold, by reason.
 */
tokens_refused_by_reason: { [key in string]: number }, 
/**
 * Revocations that are remembered.
 */
revocations: number, 
/**
 * Places of keys (files, addresses) that at the moment give nothing that can be used; what they gave
 * before goes on. Health says `"keys":"stale"` then, and the log which and why.
 */
key_places_stale: number, 
/**
 * TLS of the gateway's own; absent where it speaks none.
 */
tls: TlsView | null, 
/**
 * TCP connections accepted.
 */
accepted: number, 
/**
 * Of these, those that a limit refused.
 */
refused: number, 
/**
 * Of the refused ones, those closed without a word, since more came than `http.refusals_per_s`
 * are told why.
 */
refused_unanswered: number, 
/**
 * Failed accepts, such as no open files left.
 */
accept_failures: number, 
/**
 * Connections that ended without a whole request.
 */
bad_requests: number, 
/**
 * Connections of trusted proxies that were closed since they did not begin with a header of the
 * PROXY protocol (`http.proxy_protocol`), but with something else.
 */
proxy_garbage: number, 
/**
 * The same, since the header was not whole in time.
 */
proxy_timeout: number, 
/**
 * The same, since the proxy closed it before.
 */
proxy_closed: number, 
/**
 * Panics (bugs) that ended one request; everything else goes on.
 */
panics: number, 
/**
 * Requests that post prices.
 */
price_requests: number, 
/**
 * Those with a fault.
 */
price_requests_refused: number, 
/**
 * Prices accepted over HTTP.
 */
prices_accepted: number, 
/**
 * Requests that post events.
 */
event_requests: number, 
/**
 * Those with a fault.
 */
event_requests_refused: number, 
/**
 * Events accepted over HTTP.
 */
events_accepted: number, };

/**
 * Handshakes of TLS since the start, and the certificate.
 */
export type TlsView = { 
/**
 * Handshakes of TLS that clients and gateway completed.
 */
handshakes: number, 
/**
 * Of these, those that went on with a session of before.
 */
resumed: number, 
/**
 * Those that came to nothing, by reason: `plain` is plain HTTP, which is told so, `alert` a client
 * that refuses, mostly since it does not trust the certificate, `no_certificate` and `certificate` one
 * that shows none although it must, or one that does not hold.
 */
failed_by_reason: { [key in string]: number }, 
/**
 * Handshakes in which a client showed a certificate that holds, where clients are asked who they are,
 * by `result`: `listed` in `auth.certificates`, or `unlisted`, which gives no right.
 */
certificates_by_result: { [key in string]: number }, 
/**
 * How often certificate and key were read anew, by `result`: `good`, or `failed`, where those of
 * before go on.
 */
reloads_by_result: { [key in string]: number }, 
/**
 * How long the certificate is still valid, in seconds; below 0 once it has expired.
 */
certificate_left_s: number, };

/**
 * What limits of principals, of tenants and of readers that are behind have refused.
 */
export type LimitsView = { 
/**
 * What was refused, closed or held back, by the setting that did: `principal.orders_per_s` for
 * `limits.principal.orders_per_s`, and so on. Absent where nothing is limited.
 */
refused: { [key in string]: number }, 
/**
 * What would have been, but for `limits.dry_run`.
 */
dry_run: { [key in string]: number }, 
/**
 * Principals whose use of limits is remembered; past 65,536 others share one allowance.
 */
principals: number, 
/**
 * The same of tenants.
 */
tenants: number, 
/**
 * Connections that have been behind for a second or more, where that is limited.
 */
behind: number, };

/**
 * A state that the storage was in, or is, from when it went over into it, and what it cost meanwhile.
 */
export type StateSpell = { 
/**
 * Which one.
 */
state: BackendState | (string & {}), 
/**
 * Which backend served.
 */
storage_backend: BackendName | (string & {}), 
/**
 * Whether it was about all channels, as it began.
 */
scope: Scope | (string & {}), 
/**
 * When it began.
 */
since: string, 
/**
 * When it ended; absent for the one that lasts.
 */
until?: string, 
/**
 * How long it lasted, or has so far, in milliseconds, by a clock that nobody sets.
 */
lasted_ms: number, 
/**
 * A stable word for why, as it began.
 */
reason_code: string, 
/**
 * Why, for people.
 */
reason: string, 
/**
 * Accepted entries that Redis was sent late, meanwhile.
 */
entries_late: number, 
/**
 * Entries that were put back into logs which had lost them.
 */
entries_put_back: number, 
/**
 * Accepted entries that the log will not have: they were too old or too many, or it refused them.
 */
entries_let_go: number, 
/**
 * Entries that were refused, because the journal was full.
 */
entries_refused: number, 
/**
 * Logs that had lost what they acknowledged.
 */
logs_lost: number, };

/**
 * An open connection.
 */
export type ConnectionInfo = { 
/**
 * As said in `connection_established`.
 */
connection_id: string, 
/**
 * How well it does.
 */
health: ConnectionHealth | (string & {}), 
/**
 * What it is subscribed to.
 */
channels: Array<string>, 
/**
 * How long it has been open, in seconds.
 */
connected_s: number, 
/**
 * When anything was last heard from it, in seconds before now; of a stream of events, for how long it has
 * taken nothing of what waits for it.
 */
last_heard_s_ago: number, 
/**
 * Text messages that it sent.
 */
messages_received: number, 
/**
 * Messages that wait for it.
 */
waiting_messages: number, 
/**
 * Their bytes.
 */
waiting_bytes: number, 
/**
 * How its client is reached.
 */
transport: TransportKind | (string & {}), 
/**
 * Who its client is, where that was shown.
 */
subject?: string, };

/**
 * How well a connection does.
 */
export type ConnectionHealth = "healthy" | "behind" | "silent" | "closing";

/**
 * How the client of a connection is reached.
 */
export type TransportKind = "websocket" | "events";

/**
 * `GET /ws/stats/{connection}`: all that is known of an open connection.
 */
export type ConnectionStory = { 
/**
 * Which process has it.
 */
node: string, 
/**
 * When it was opened.
 */
connected_at: string, 
/**
 * The address that it comes from, or the network of that; absent where a proxy does not say.
 */
source?: string, 
/**
 * The channel of the order that it was opened on, with which it ends.
 */
opened_on?: string, 
/**
 * When what its client has shown expires.
 */
token_expires_at?: string, 
/**
 * The rights of its client; absent where nobody is asked.
 */
rights?: Array<string>, 
/**
 * Channels wait for it, since it reads more slowly than they go.
 */
waited_for: boolean, 
/**
 * The reason of the close code, where its close is under way.
 */
closing?: string, 
/**
 * What it is subscribed to, and how far that has come.
 */
subscriptions: Array<SubscriptionInfo>, 
/**
 * As said in `connection_established`.
 */
connection_id: string, 
/**
 * How well it does.
 */
health: ConnectionHealth | (string & {}), 
/**
 * What it is subscribed to.
 */
channels: Array<string>, 
/**
 * How long it has been open, in seconds.
 */
connected_s: number, 
/**
 * When anything was last heard from it, in seconds before now; of a stream of events, for how long it has
 * taken nothing of what waits for it.
 */
last_heard_s_ago: number, 
/**
 * Text messages that it sent.
 */
messages_received: number, 
/**
 * Messages that wait for it.
 */
waiting_messages: number, 
/**
 * Their bytes.
 */
waiting_bytes: number, 
/**
 * How its client is reached.
 */
transport: TransportKind | (string & {}), 
/**
 * Who its client is, where that was shown.
 */
subject?: string, };

/**
 * A subscription of a connection.
 */
export type SubscriptionInfo = { 
/**
 * To what.
 */
channel: string, 
/**
 * How far it has come.
 */
phase: SubscriptionPhase | (string & {}), 
/**
 * The life of the log that it reads; absent until it has begun.
 */
epoch?: Epoch, 
/**
 * The newest offset of it that was sent, or had before.
 */
offset?: number, };

/**
 * How far a subscription has come.
 */
export type SubscriptionPhase = "catching_up" | "live" | "finished";

/**
 * A price. The publisher's own fields follow those of the envelope.
 */
export type PriceUpdate = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What within the zone it is of.
 */
key: string, 
/**
 * The price; absent of a quote, which has `bid` and `ask`.
 */
price?: number | null, 
/**
 * What buyers offer.
 */
bid?: number | null, 
/**
 * What sellers ask for.
 */
ask?: number | null, 
/**
 * A part of the price.
 */
energy?: number | null, 
/**
 * A part of the price.
 */
congestion?: number | null, 
/**
 * A part of the price.
 */
loss?: number | null, 
/**
 * How much.
 */
quantity?: number | null, };

/**
 * A key that was removed.
 */
export type KeyRemoved = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * The key.
 */
key: string, 
/**
 * In a registry: of two entries of a key the one with the greater version counts, as texts are compared.
 */
version?: string, };

/**
 * A zone that was removed.
 */
export type ZoneRemoved = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, };

/**
 * A record of a registry, which takes the place of the one before it of its key.
 */
export type RecordUpdate = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * When it was written, by the clock of the gateway that wrote it, or a faster one that it heard of.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * Its `userId` or `orderId` as a text.
 */
key: string, 
/**
 * Of two entries of a key the one with the greater version counts, as texts are compared.
 */
version: string, 
/**
 * The record, as it was written.
 */
record: Record<string, unknown>, };

/**
 * An update of an order. What its worker told besides follows.
 */
export type OrderUpdate = { 
/**
 * The order whose channel it is.
 */
orderId: OrderId, 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * How far it is, 0 to 100.
 */
progress: number, 
/**
 * Which try it is, counting from 1.
 */
attempt?: number, 
/**
 * How many there are.
 */
maxAttempts?: number, 
/**
 * How many times a worker took the order up.
 */
run?: number, 
/**
 * Who carries it out.
 */
executor?: string, 
/**
 * For people.
 */
message?: string, 
/**
 * Where it was, or is to be, carried out.
 */
dex?: string, 
/**
 * The transaction.
 */
txHash?: string, };

/**
 * The end of an order that was not carried out.
 */
export type OrderFailed = { 
/**
 * The order whose channel it is.
 */
orderId: OrderId, 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * How far it is, 0 to 100.
 */
progress: number, 
/**
 * Which try it is, counting from 1.
 */
attempt?: number, 
/**
 * How many there are.
 */
maxAttempts?: number, 
/**
 * How many times a worker took the order up.
 */
run?: number, 
/**
 * Who carries it out.
 */
executor?: string, 
/**
 * For people.
 */
message?: string, 
/**
 * Where it was, or is to be, carried out.
 */
dex?: string, 
/**
 * The transaction.
 */
txHash?: string, 
/**
 * Why.
 */
error: Failure, };

/**
 * What is known of an entry that the gateway cannot show.
 */
export type Skipped = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * The order whose channel it is.
 */
orderId?: OrderId, 
/**
 * Its place in the log.
 */
offset: number, 
/**
 * Absent where it could not be read.
 */
id?: string, 
/**
 * Absent where it could not be read.
 */
timestamp?: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * `unknown_kind` or `unreadable`.
 */
reason: string, 
/**
 * Its own type, where that is known.
 */
kind?: string, 
/**
 * Nothing follows it.
 */
terminal?: boolean, };

/**
 * Events of other processes that did not come, in the channel of a live type.
 */
export type Missed = { 
/**
 * The channel.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch.
 */
offset: number, 
/**
 * Names it for good.
 */
id: string, 
/**
 * When that was noticed.
 */
timestamp: string, 
/**
 * What is missing.
 */
data: MissedEvents, };

/**
 * What is missing; without fields, programs that do not number their events may have published some.
 */
export type MissedEvents = { 
/**
 * The gateway whose events they are.
 */
source?: string, 
/**
 * How many they are.
 */
count?: number, };

/**
 * A ticker.
 */
export type TickerEvent = { 
/**
 * The channel: that of the type, or the view of it that was subscribed to.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What its publisher gave.
 */
data: Ticker, };

/**
 * A trade.
 */
export type TradeEvent = { 
/**
 * The channel: that of the type, or the view of it that was subscribed to.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What its publisher gave.
 */
data: Trade, };

/**
 * A book, or what has changed in one.
 */
export type OrderbookEvent = { 
/**
 * The channel: that of the type, or the view of it that was subscribed to.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What its publisher gave.
 */
data: Orderbook, };

/**
 * A candle.
 */
export type CandleEvent = { 
/**
 * The channel: that of the type, or the view of it that was subscribed to.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What its publisher gave.
 */
data: Candle, };

/**
 * How an exchange is reached.
 */
export type ExchangeEvent = { 
/**
 * The channel: that of the type, or the view of it that was subscribed to.
 */
channel: ChannelName, 
/**
 * Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
 */
offset: number, 
/**
 * Names it for good, in every epoch and on every gateway.
 */
id: string, 
/**
 * Its own time, to the millisecond.
 */
timestamp: string, 
/**
 * It comes after its time.
 */
late?: boolean, 
/**
 * Entries of its gateway before it are gone.
 */
missedBefore?: boolean, 
/**
 * It is the latest one of its key, sent because a client begins.
 */
snapshot?: boolean, 
/**
 * What its publisher gave.
 */
data: Exchange, };

/**
 * A decimal as its publisher wrote it: a number, or a text that is one.
 */
export type Digits = number | string;

/**
 * What a ticker says: a `price`, or a `bid` and an `ask`.
 */
export type Ticker = { 
/**
 * The exchange.
 */
exchange: string, 
/**
 * The symbol, such as `BTC-USDT`.
 */
symbol: string, 
/**
 * The last price.
 */
price?: Digits, 
/**
 * The best bid.
 */
bid?: Digits, 
/**
 * The best ask.
 */
ask?: Digits, 
/**
 * How much is bid there.
 */
bidSize?: Digits, 
/**
 * How much is asked there.
 */
askSize?: Digits, 
/**
 * The first price of the day.
 */
open?: Digits, 
/**
 * The highest.
 */
high?: Digits, 
/**
 * The lowest.
 */
low?: Digits, 
/**
 * How much was traded.
 */
volume?: Digits, 
/**
 * For how much.
 */
quoteVolume?: Digits, };

/**
 * What a trade says.
 */
export type Trade = { 
/**
 * The exchange.
 */
exchange: string, 
/**
 * The symbol, such as `BTC-USDT`.
 */
symbol: string, 
/**
 * The price.
 */
price: Digits, 
/**
 * How much.
 */
size: Digits, 
/**
 * What the exchange calls it.
 */
tradeId?: Digits, 
/**
 * `buy` or `sell`: the taker's.
 */
side?: string, };

/**
 * A whole book, or what has changed in it: a size of 0 takes a level away.
 */
export type Orderbook = { 
/**
 * The exchange.
 */
exchange: string, 
/**
 * The symbol, such as `BTC-USDT`.
 */
symbol: string, 
/**
 * `snapshot` or `delta`.
 */
kind: string, 
/**
 * Price and size of each level.
 */
bids: Array<[Digits, Digits]>, 
/**
 * Price and size of each level.
 */
asks: Array<[Digits, Digits]>, 
/**
 * Counts the changes of the book.
 */
sequence: number, 
/**
 * Of a delta, the `sequence` that it follows on.
 */
previousSequence?: number, };

/**
 * What a candle says.
 */
export type Candle = { 
/**
 * The exchange.
 */
exchange: string, 
/**
 * The symbol, such as `BTC-USDT`.
 */
symbol: string, 
/**
 * How long it is, such as `1m`.
 */
interval: string, 
/**
 * When it begins.
 */
openTime: Digits, 
/**
 * The first price.
 */
open: Digits, 
/**
 * The highest.
 */
high: Digits, 
/**
 * The lowest.
 */
low: Digits, 
/**
 * The last price.
 */
close: Digits, 
/**
 * How much was traded.
 */
volume: Digits, 
/**
 * Nothing more is expected.
 */
closed: boolean, 
/**
 * It takes the place of one that was closed.
 */
correction?: boolean, };

/**
 * How an exchange is reached.
 */
export type Exchange = { 
/**
 * The exchange.
 */
exchange: string, 
/**
 * Why, for people.
 */
reason?: string, 
/**
 * Of `exchange:reconnecting`, which try it is.
 */
attempt?: number, 
/**
 * Of `exchange:reconnecting`, in how many milliseconds.
 */
delayMs?: number, 
/**
 * Of `exchange:error`, what sort of error.
 */
code?: string, };
