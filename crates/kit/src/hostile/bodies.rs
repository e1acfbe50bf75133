//! JSON that is too deep, too long or too wide, in every request that takes JSON.

use anyhow::{Context as _, ensure};

use super::Target;
use super::wire::{Socket, ask, masked, request, upgrade};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const PATCH: &str = "application/merge-patch+json";
/// The id of an order that does not exist.
const ORDER: &str = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";

/// The bodies, with their names.
fn shapes() -> [(&'static str, String); 7] {
    let price = r#""key":"A","price":1,"exchange":"x","symbol":"A""#;
    let nested = |open: &str, middle: &str, close: &str, deep: usize| {
        format!("{}{middle}{}", open.repeat(deep), close.repeat(deep))
    };
    let wide: Vec<String> = (0..60_000).map(|n| format!(r#""k{n}":{n}"#)).collect();
    [
        ("arrays in arrays", format!("{{{price},\"n\":{}}}", nested("[", "", "]", 20_000))),
        ("objects in objects", nested("{\"a\":", "1", "}", 20_000)),
        ("arrays that do not end", "[".repeat(50_000)),
        ("a giant text", format!("{{{price},\"n\":\"{}\"}}", "x".repeat(2_000_000))),
        ("a giant number", format!("{{\"key\":\"A\",\"price\":{}}}", "9".repeat(60_000))),
        ("a wide object", format!("{{{},{price}}}", wide.join(","))),
        ("a name twice and no end", format!("{{{price},\"key\":\"B\",\"n\":\"{}", "\\ud83d".repeat(5_000))),
    ]
}

pub(super) async fn round(target: &Target) -> anyhow::Result<u64> {
    let provider = "/api/providers/hostile";
    for path in [provider, "/api/active-orders/hostile"] {
        let put = request(&format!("PUT {path}"), JSON, br#"{"note":"as it was"}"#);
        let (status, answer) = ask(target.address, &put).await?;
        ensure!([200, 201].contains(&status), "{answer}");
    }
    let updates = format!("POST /api/orders/{ORDER}/updates");
    let places = [
        ("POST /api/zones/hostile/prices", JSON),
        ("POST /api/zones/hostile/prices", LINES),
        ("POST /api/events/ticker", JSON),
        ("POST /api/events/ticker", LINES),
        ("PUT /api/providers/hostile", JSON),
        ("PATCH /api/providers/hostile", PATCH),
        ("PUT /api/providers", JSON),
        ("POST /api/active-orders", JSON),
        ("PATCH /api/active-orders/hostile", PATCH),
        ("PUT /api/active-orders", JSON),
        ("POST /api/orders/execute", JSON),
        (updates.as_str(), JSON),
        ("POST /api/jobs/claim", JSON),
        ("POST /api/auth/revoke", JSON),
    ];
    let shapes = shapes();
    for (place, kind) in places {
        for (what, body) in &shapes {
            let (status, answer) = ask(target.address, &request(place, kind, body.as_bytes())).await?;
            // 404 and 409 mean that the resource does not exist or is not served; the body is not read then.
            ensure!([400, 404, 409, 413, 422].contains(&status), "{place}, {what}: {answer}");
            ensure!(answer.len() < 4_096, "{place}, {what}: an answer of {} bytes", answer.len());
        }
    }
    let (_status, answer) = ask(target.address, &request(&format!("GET {provider}"), "", b"")).await?;
    ensure!(answer.contains(r#""note":"as it was""#), "a record changed: {answer}");
    messages(target, &shapes).await?;
    Ok((places.len() as u64 + 1) * shapes.len() as u64)
}

/// The same bodies as messages: each leads to an `error`, or closes the connection if it is too long.
async fn messages(target: &Target, shapes: &[(&str, String)]) -> anyhow::Result<()> {
    for (what, text) in shapes {
        let mut socket = Socket::open(target.address, &upgrade("/ws")).await?;
        if text.len() > 1 << 16 {
            let (code, _texts) = socket.until_close(&masked(0x81, text.as_bytes())).await?;
            ensure!(code == 1009, "{what}, as a message: closed with {code}");
            continue;
        }
        socket.send(text.as_bytes()).await?;
        socket.send(br#"{"type":"ping","id":7}"#).await?;
        let error = socket.text_with("\"error\"").await.with_context(|| (*what).to_owned())?;
        ensure!(error.contains("invalid_") && error.len() < 1_024, "{what}, as a message: {error}");
        socket.text_with("\"pong\"").await.with_context(|| format!("after {what}"))?;
    }
    Ok(())
}
