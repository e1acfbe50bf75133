//! Requests whose end is ambiguous. If a proxy before the gateway sees one end and the gateway another, one
//! request becomes two, and the second is attributed to another client.

use anyhow::ensure;

use super::Target;
use super::wire::{exchange, request, statuses};

/// An ambiguous request, with another one behind it that may be hidden in it.
#[derive(Debug)]
pub struct Smuggled {
    /// What is ambiguous about it.
    pub what: &'static str,
    /// All bytes that are sent.
    pub bytes: Vec<u8>,
    /// The statuses of the gateway's answers. Each 200 is an accepted price.
    pub statuses: &'static [u16],
}

const PRICE: &str = r#"{"key":"A","price":1}"#;
const CHUNKS: &str = "15\r\n{\"key\":\"A\",\"price\":1}\r\n0\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const LENGTH: &str = "Content-Length: 21\r\n";

/// Posts a price with these header lines about its body, and then another price.
fn twice(host: &str, lines: &str, body: &str) -> Vec<u8> {
    let first = format!(
        "POST /api/zones/smuggled/prices HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{lines}\r\n{body}"
    );
    let behind = request("POST /api/zones/smuggled/prices", "application/json", PRICE.as_bytes());
    let behind = String::from_utf8_lossy(&behind).replacen("localhost", host, 1);
    [first, behind].concat().into_bytes()
}

/// All ambiguous requests, for a host. Those answered with 200 twice are unambiguously two requests.
pub fn smuggled(host: &str) -> Vec<Smuggled> {
    const NO: &[u16] = &[400];
    const ONE: &[u16] = &[200];
    const TWO: &[u16] = &[200, 200];
    const CODING: &[u16] = &[501];
    let chunks = |chunk: &str| format!("{chunk}\r\n{PRICE}\r\n0\r\n\r\n");
    let huge = chunks(&format!("15;{}", "a".repeat(40_000)));
    let of_get = format!("GET /health/live HTTP/1.1\r\nHost: {host}\r\n");
    let rows: Vec<(&'static str, String, String, &'static [u16])> = vec![
        ("one length", LENGTH.into(), PRICE.into(), TWO),
        ("one length in two lines", LENGTH.repeat(2), PRICE.into(), TWO),
        ("two lengths", format!("{LENGTH}Content-Length: 0\r\n"), PRICE.into(), NO),
        ("two lengths the other way round", format!("Content-Length: 0\r\n{LENGTH}"), PRICE.into(), NO),
        ("a list of lengths", "Content-Length: 21, 21\r\n".into(), PRICE.into(), NO),
        ("a length with a sign", "Content-Length: +21\r\n".into(), PRICE.into(), NO),
        ("a length of another base", "Content-Length: 0x15\r\n".into(), PRICE.into(), NO),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551637\r\n".into(), PRICE.into(), NO),
        ("a space before the colon", "Content-Length : 21\r\n".into(), PRICE.into(), NO),
        ("chunks", CHUNKED.into(), CHUNKS.into(), TWO),
        ("a length, and chunks", format!("Content-Length: 4\r\n{CHUNKED}"), CHUNKS.into(), ONE),
        ("chunks, and a length", format!("{CHUNKED}Content-Length: 4\r\n"), CHUNKS.into(), ONE),
        ("chunked twice", CHUNKED.repeat(2), CHUNKS.into(), CODING),
        ("chunked twice in a line", "Transfer-Encoding: chunked, chunked\r\n".into(), CHUNKS.into(), CODING),
        (
            "chunked, and then another coding",
            "Transfer-Encoding: chunked, identity\r\n".into(),
            CHUNKS.into(),
            NO,
        ),
        (
            "another coding, and then chunked",
            "Transfer-Encoding: identity, chunked\r\n".into(),
            CHUNKS.into(),
            CODING,
        ),
        ("gzip, and then chunked", "Transfer-Encoding: gzip, chunked\r\n".into(), CHUNKS.into(), CODING),
        (
            "another coding, and a length",
            format!("Transfer-Encoding: xchunked\r\n{LENGTH}"),
            PRICE.into(),
            NO,
        ),
        ("a coding in quotes", "Transfer-Encoding: \"chunked\"\r\n".into(), CHUNKS.into(), NO),
        ("a coding behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n".into(), CHUNKS.into(), NO),
        ("a coding in a folded line", "Transfer-Encoding:\r\n chunked\r\n".into(), CHUNKS.into(), NO),
        ("a length in a folded line", format!("X: a\r\n {LENGTH}"), PRICE.into(), NO),
        ("a length behind a bare CR", format!("X: a\r{LENGTH}"), PRICE.into(), NO),
        ("a NUL in a header", format!("X: a\0b\r\n{LENGTH}"), PRICE.into(), NO),
        ("an extension of a chunk", CHUNKED.into(), chunks("15;a=b"), TWO),
        ("an extension with a bare LF", CHUNKED.into(), chunks("15;a\n"), NO),
        ("an extension of 40 KB", CHUNKED.into(), huge, NO),
        ("a size that ends in a bare LF", CHUNKED.into(), format!("15\n{PRICE}\r\n0\r\n\r\n"), NO),
        ("a chunk longer than its size", CHUNKED.into(), format!("15\r\n{PRICE}XX0\r\n\r\n"), NO),
        ("a size below nothing", CHUNKED.into(), chunks("-15"), NO),
        ("a size with its base", CHUNKED.into(), chunks("0x15"), NO),
        ("a size beyond 64 bits", CHUNKED.into(), chunks("10000000000000015"), NO),
        (
            "a length in a trailer",
            CHUNKED.into(),
            CHUNKS.replace("\r\n0\r\n", "\r\n0\r\nContent-Length: 5\r\n"),
            TWO,
        ),
    ];
    let of = |(what, lines, body, statuses): (&'static str, String, String, _)| Smuggled {
        what,
        bytes: twice(host, &lines, &body),
        statuses,
    };
    let mut all: Vec<Smuggled> = rows.into_iter().map(of).collect();
    let old = String::from_utf8_lossy(&twice(host, CHUNKED, CHUNKS)).replacen("HTTP/1.1", "HTTP/1.0", 1);
    all.push(Smuggled { what: "chunks of HTTP/1.0", bytes: old.into_bytes(), statuses: NO });
    // A request in the body of a GET is part of that body.
    let hidden = twice(host, LENGTH, PRICE);
    let head = format!("{of_get}Connection: close\r\nContent-Length: {}\r\n\r\n", hidden.len());
    all.push(Smuggled {
        what: "requests as the body of a GET",
        bytes: [head.as_bytes(), &hidden].concat(),
        statuses: ONE,
    });
    let chunk = format!("{of_get}Connection: close\r\n{CHUNKED}\r\n{:x}\r\n", hidden.len());
    all.push(Smuggled {
        what: "requests as a chunk of a GET",
        bytes: [chunk.as_bytes(), &hidden, b"\r\n0\r\n\r\n"].concat(),
        statuses: ONE,
    });
    all
}

pub(super) async fn round(target: &Target) -> anyhow::Result<u64> {
    let all = smuggled("localhost");
    for Smuggled { what, bytes, statuses: expected } in &all {
        let answered = exchange(target.address, bytes).await?;
        let found = statuses(&answered);
        ensure!(
            found == *expected,
            "{what}: {found:?} instead of {expected:?}: {}",
            String::from_utf8_lossy(&answered)
        );
    }
    Ok(all.len() as u64)
}
