//! Names that are patterns, paths, protocol lines or code to some other program, in every request that takes
//! a name.

use anyhow::{bail, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::Target;
use super::wire::{Socket, ask, exchange, request, statuses, upgrade};

/// Such names. Each contains the word `hostile`, by which it can be found.
pub const NAMES: [&str; 24] = [
    "hostile*",
    "zone:*hostile",
    "hostile[a-z]?",
    "hostile\0",
    "hostile\r\nX-Injected: yes\r\n\r\n<script>",
    "hostile\nERROR forged: a line of its own",
    "hostile\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "hostile\u{1b}[2J\u{1b}[31mforged",
    "hostile\u{7f}\u{9b}31m",
    "../hostile",
    "hostile/../../etc/passwd",
    "hostile/prices",
    "hostile\\..\\x",
    "..",
    ".",
    "hostile{x}",
    "hostile'); redis.call('FLUSHALL') --",
    "hostile\") return redis.call(\"KEYS\", \"*\") --",
    "hostile\u{202e}txt.exe",
    "hostile%s%n%00",
    "hostile$(id)`id`",
    "=cmd|' /C calc'!A0 hostile",
    "hostile\u{fffe}\u{10ffff}",
    "hostile;SELECT 1",
];

/// Whether it is a valid name of a zone.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// Addresses with a name in them, and whether any text without control characters is a valid name there.
const ADDRESSES: [(&str, &str, bool); 30] = [
    ("GET /api/zones/{}/latest", "", false),
    ("GET /api/zones/{}/history", "", false),
    ("POST /api/zones/{}/prices", r#"{"key":"A","price":1}"#, false),
    ("DELETE /api/zones/{}", "", false),
    ("DELETE /api/zones/hostile/keys/{}", "", true),
    ("GET /api/zones/hostile/latest?after={}", "", true),
    ("GET /api/zones/hostile/history?after={}", "", false),
    ("POST /api/events/{}", "{}", false),
    ("GET /api/events/{}/latest", "", false),
    ("GET /api/orders/{}", "", false),
    ("GET /api/orders?status={}", "", false),
    ("GET /api/orders?after={}", "", false),
    ("GET /api/orders/dead-letters?after={}", "", false),
    ("POST /api/orders/{}/cancel", "", false),
    ("POST /api/orders/{}/updates", "[]", false),
    ("POST /api/orders/dead-letters/{}/retry", "", false),
    ("POST /api/jobs/{}/complete", "{}", false),
    ("PUT /api/providers/{}", r#"{"note":1}"#, true),
    ("GET /api/providers/{}", "", true),
    ("POST /api/providers/{}/heartbeat", "", true),
    ("GET /api/providers?userId={}", "", true),
    ("DELETE /api/providers/{}", "", true),
    ("PUT /api/active-orders/{}", r#"{"note":1}"#, true),
    ("DELETE /api/active-orders/{}", "", true),
    ("GET /ws/stats/{}", "", false),
    ("DELETE /ws/stats/{}", "", false),
    ("GET /ws/stats?zone={}", "", false),
    ("GET /sse?channels={}", "", false),
    ("GET /assets/{}", "", false),
    ("GET /{}", "", false),
];

pub(super) async fn round(target: &Target) -> anyhow::Result<u64> {
    let mut count = 0;
    for name in NAMES {
        // Once percent-encoded, and once as raw bytes of the request line.
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        for (address, body, is_text) in ADDRESSES {
            let sent = request(&address.replace("{}", &encoded), "application/json", body.as_bytes());
            let (status, answer) = ask(target.address, &sent).await?;
            let what = format!("{address} of {name:?}: {answer}");
            let may_be = is_text || (is_plain(name) && address.contains("zone"));
            ensure!((200..500).contains(&status) && (may_be || status >= 400), "{what}");
            ensure!(status < 300 || answer.contains("problem+json"), "{what}");
            ensure!(!has_injected(&answer), "{what}");
            let raw = request(&address.replace("{}", name), "application/json", body.as_bytes());
            let answered = exchange(target.address, &raw).await?;
            let refused = |status: &u16| (200..500).contains(status);
            ensure!(statuses(&answered).iter().all(refused), "{address} of {name:?}, as it is");
            count += 2;
        }
        count += fields(target, name).await? + headers(target, name).await? + messages(target, name).await?;
    }
    Ok(count)
}

/// Whether an answer contains the name as a header, or control characters.
fn has_injected(answer: &str) -> bool {
    let injected = |line: &str| line.to_ascii_lowercase().starts_with("x-injected");
    answer.lines().any(injected) || answer.bytes().any(|b| b == 0x1b || b == 0)
}

/// Sends the name in JSON fields.
async fn fields(target: &Target, name: &str) -> anyhow::Result<u64> {
    let order = |field: &str| {
        let mut order = json!({ "tokenIn": "A", "tokenOut": "B", "amount": 1 });
        order[field] = name.into();
        order
    };
    let bodies = [
        ("POST /api/zones/hostile/prices", json!({ "key": name, "price": 1, name: name, "timestamp": name })),
        ("POST /api/zones/hostile/prices", json!({ "key": name, "price": 1, name: name })),
        ("POST /api/events/ticker", json!({ "exchange": name, "symbol": "A" })),
        ("POST /api/events/ticker", json!({ "exchange": "x", "symbol": name })),
        ("POST /api/events/candle", json!({ "exchange": "x", "symbol": "A", "interval": name })),
        ("POST /api/orders/execute", order("tokenIn")),
        ("POST /api/orders/execute", order("executor")),
        ("POST /api/orders/execute", order(name)),
        ("POST /api/providers", json!({ "userId": name, name: name })),
        ("PATCH /api/providers/hostile", json!({ name: name })),
        ("POST /api/active-orders", json!({ "orderId": name })),
        ("POST /api/jobs/claim", json!({ "worker": name, "executors": [name] })),
        ("POST /api/jobs/1/progress", json!({ "lease": name, "status": name })),
        ("POST /api/auth/revoke", json!({ "jti": name })),
        ("POST /api/bridge/subscriptions", json!({ "event": name, "mode": name })),
    ];
    for (address, body) in &bodies {
        let kind =
            if address.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" };
        let (status, answer) =
            ask(target.address, &request(address, kind, body.to_string().as_bytes())).await?;
        ensure!((200..500).contains(&status) && !has_injected(&answer), "{address} {body}: {answer}");
    }
    Ok(bodies.len() as u64)
}

/// Sends the name in headers, unencoded: an invalid value must end the request.
async fn headers(target: &Target, name: &str) -> anyhow::Result<u64> {
    let headers = [
        "Idempotency-Key",
        "If-Match",
        "Last-Event-ID",
        "Authorization",
        "Origin",
        "User-Agent",
        "X-Request-Id",
    ];
    for header in headers {
        let order = r#"{"tokenIn":"A","tokenOut":"B","amount":0}"#;
        let sent = request("POST /api/orders/execute", "application/json", order.as_bytes());
        let sent = String::from_utf8_lossy(&sent).replacen("\r\n", &format!("\r\n{header}: {name}\r\n"), 1);
        let answered = exchange(target.address, sent.as_bytes()).await?;
        let is_refused = |status: &u16| (400..500).contains(status);
        ensure!(statuses(&answered).iter().all(is_refused), "{header}: {name:?} with a wrong order");
        ensure!(!has_injected(&String::from_utf8_lossy(&answered)), "{header}: {name:?}");
    }
    Ok(headers.len() as u64)
}

/// Sends the name in messages of a WebSocket, whose connection must stay open.
async fn messages(target: &Target, name: &str) -> anyhow::Result<u64> {
    let channels =
        ["zone:", "order:", "registry:", "event:ticker:", "event:", ""].map(|of| format!("{of}{name}"));
    let messages = [
        json!({ "type": "subscribe", "id": name, "channels": channels }),
        json!({ "type": "subscribe", "channels": ["zone:hostile"], "since": { "zone:hostile": name } }),
        json!({ "type": "subscribe", "channels": ["zone:hostile"],
                "since": { "zone:hostile": { "epoch": name, "offset": 0 }, name: name } }),
        json!({ "type": "unsubscribe", "channels": channels }),
        json!({ "type": name, "id": name, name: name }),
        json!({ "type": "publish", "event": name, "data": { "exchange": name } }),
        json!({ "type": "auth", "token": name }),
    ];
    let mut socket = Socket::open(target.address, &upgrade("/ws")).await?;
    for message in &messages {
        socket.send(message.to_string().as_bytes()).await?;
    }
    socket.send(br#"{"type":"ping","id":7}"#).await?;
    while let Some((opcode, payload)) = socket.frame().await? {
        let text = String::from_utf8_lossy(&payload);
        ensure!(!has_injected(&text), "messages with {name:?}: {text}");
        if opcode == 8 || text.contains("\"pong\"") {
            ensure!(opcode == 1, "messages with {name:?} closed the connection: {text}");
            return Ok(messages.len() as u64);
        }
    }
    bail!("messages with {name:?} ended the connection")
}
