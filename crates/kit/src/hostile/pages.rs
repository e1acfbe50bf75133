//! Pages of other origins, host names that were made to resolve to this machine, and headers that only a
//! proxy may send.

use anyhow::{Context as _, ensure};

use super::Target;
use super::wire::{Socket, ask, exchange, request, statuses, upgrade};

/// Lines that replace the `Host` line, and the status that must answer them.
const CASES: [(&str, u16); 8] = [
    ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
    ("Host: localhost\r\nOrigin: null\r\n", 403),
    ("Host: localhost\r\nOrigin: http://localhost.evil.example\r\n", 403),
    ("Host: localhost\r\nOrigin: http://localhost@evil.example\r\n", 403),
    ("Host: evil.example\r\nOrigin: http://evil.example\r\n", 421),
    ("Host: 127.0.0.1.evil.example\r\n", 421),
    (
        "Host: evil.example\r\nOrigin: http://evil.example\r\nX-Forwarded-Host: localhost\r\n\
         X-Forwarded-Proto: http\r\nForwarded: for=127.0.0.1;host=localhost\r\n",
        421,
    ),
    (
        "Host: localhost\r\nOrigin: https://evil.example\r\nX-Forwarded-Host: evil.example\r\n\
         X-Forwarded-Proto: https\r\nForwarded: host=evil.example;proto=https\r\n",
        403,
    ),
];

pub(super) async fn round(target: &Target) -> anyhow::Result<u64> {
    let kinds = [
        upgrade("/ws/market/pjm").into_bytes(),
        request("POST /api/zones/hostile/prices", "application/json", br#"{"key":"A","price":1}"#),
        request("GET /api/zones", "", b""),
        request("DELETE /api/zones/pjm", "", b""),
    ];
    for (lines, expected) in CASES {
        for kind in &kinds {
            let sent = String::from_utf8_lossy(kind).replacen("Host: localhost\r\n", lines, 1);
            // After a refused upgrade the connection stays open, so a last request follows that closes it.
            let last = request("GET /health/live", "", b"");
            let all =
                [sent.as_bytes(), if sent.contains("Upgrade") { last.as_slice() } else { b"" }].concat();
            let answered = exchange(target.address, &all).await?;
            ensure!(
                statuses(&answered).first() == Some(&expected),
                "{sent:?}: {}",
                String::from_utf8_lossy(&answered)
            );
        }
    }
    // A client's forged claims about its own address.
    let forged = "Host: localhost\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\
                  X-Real-IP: 203.0.113.9\r\n";
    let head = upgrade("/ws").replacen("Host: localhost\r\n", forged, 1);
    let mut socket = Socket::open(target.address, &head).await?;
    let greeting = socket.text_with("connection_id").await?;
    let id = greeting.split("\"connection_id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let path = format!("GET /ws/stats/{}", id.context("a greeting without an id")?);
    let (_status, story) = ask(target.address, &request(&path, "", b"")).await?;
    ensure!(story.contains(r#""source":"127.0.0.1""#), "a forged address was believed: {story}");
    Ok((CASES.len() * kinds.len()) as u64 + 1)
}
