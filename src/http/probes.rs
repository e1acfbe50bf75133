//! Probes of the parsers of PROXY headers, request headers, and NDJSON bodies: see [`crate::probes`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accepts::wanted;
use super::arrival::{Peer, Way};
use super::body_budget::BodyBudget;
use super::config::HttpConfig;
use super::forwarded::{Proxies, web_socket_base};
use super::names::{Known, Names, host_and_port, is_origin};
use super::prices::{Format, Intake, IntakeStats, Posted};
use super::proxy_header::{HEADER_LEN_MAX, Read, read};
use crate::channels::{Channels, ChannelsConfig, ChannelsParts};
use crate::model::{ChannelName, Lane, NodeId};
use crate::protocol::ProblemCode;
use crate::storage::{self, StorageChoice, StorageConfig};
use crate::support::panics::Vital;
use crate::support::probing::{cuts, text, told};

/// PROXY protocol headers.
pub(crate) fn proxy_headers(bytes: &[u8]) {
    let whole = read(bytes);
    match whole {
        Read::Part => assert!(bytes.len() < HEADER_LEN_MAX, "it would wait for more than the longest header"),
        Read::Whole { len, source } => {
            assert!(len <= bytes.len().min(HEADER_LEN_MAX));
            assert_eq!(read(&bytes[..len]), whole, "what comes after it does not matter");
            for cut in 0..len {
                assert_eq!(read(&bytes[..cut]), Read::Part, "{cut} of {len}");
            }
            if let Some(source) = source {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let (ip, port) = (source.ip(), source.port());
                let line = format!("PROXY {family} {ip} {ip} {port} {port}\r\n");
                let plain = SocketAddr::new(ip, port);
                assert_eq!(read(line.as_bytes()), Read::Whole { len: line.len(), source: Some(plain) });
            }
        }
        Read::Garbage => {
            // It becomes invalid at some byte, and stays so from there on.
            let first = (0..=bytes.len()).find(|cut| read(&bytes[..*cut]) == Read::Garbage);
            let first = first.expect("all of it is none");
            assert!((first..bytes.len()).all(|cut| read(&bytes[..cut]) == Read::Garbage));
        }
    }
}

/// Lines such as `X-Forwarded-For: 192.0.2.1`, as hyper has parsed them.
fn headers_of(text: &str) -> HeaderMap {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.filter_map(|(name, value)| {
        let name: HeaderName = name.trim().parse().ok()?;
        Some((name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?))
    });
    let mut headers = HeaderMap::new();
    // hyper accepts no more headers than that.
    lines.take(100).for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

/// Request headers.
pub(crate) fn headers(bytes: &[u8]) {
    let Some(given) = text(bytes) else { return };
    let headers = headers_of(given);
    let config = HttpConfig {
        trusted_proxies: vec!["10.0.0.0/8".to_owned(), "::1/128".to_owned()],
        hosts: vec!["stream.example.com".to_owned()],
        ..HttpConfig::default()
    };
    let proxies = Proxies::of(&config);
    let near = Peer::Net("10.0.0.1:5000".parse().expect("an address"));
    let far = Peer::Net("192.0.2.7:5000".parse().expect("an address"));
    assert_eq!(proxies.client(far, &headers), far.ip(), "a stranger is not believed");
    let client: IpAddr = proxies.client(near, &headers);
    if client != near.ip() {
        let is_said = headers.keys().any(|name| matches!(name.as_str(), "x-forwarded-for" | "forwarded"));
        assert!(is_said, "{client} was not said");
    }
    let said = proxies.said(Some(near), &headers);
    let names = Names::of(&config);
    let all = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    for (name, value) in all {
        match name {
            "host" => {
                let (host, _) = host_and_port(value);
                assert!(value.starts_with(host));
                let _known: Known = names.host(host);
            }
            "origin" => {
                let is_allowed =
                    names.allow(value, headers.get("host").and_then(|host| host.to_str().ok()), &said);
                assert!(!is_allowed || value.contains("://"), "{value} is no origin");
                let _is_one = is_origin(value);
            }
            _ => {}
        }
    }
    for (header, names) in [(&ACCEPT_ENCODING, &["gzip", "*"]), (&ACCEPT, &["text/html", "*/*"])] {
        assert!(wanted(&headers, header, names).is_none_or(|weight| (0.0..=1.0).contains(&weight)));
    }
    let base = web_socket_base(
        &config,
        Some(Way { peer: near, is_for_operators: false, is_secure: false }),
        &headers,
    );
    assert!(base.starts_with("ws://") || base.starts_with("wss://"), "{base}");
    told(&base);
    if let Err(problem) = Format::of(&headers) {
        told(problem.body.detail.as_deref().unwrap_or_default());
    }
}

/// The outcome of a body: how many of its lines were accepted; or the problem, how many were accepted
/// before it, and its line.
type Posting = Result<u64, (ProblemCode, Option<u64>, Option<u64>)>;

/// Posts lines in pieces, to a gateway made for this.
async fn post(pieces: Vec<Bytes>) -> (Posting, Vec<Bytes>) {
    let storage = StorageConfig { backend: StorageChoice::Memory, ..StorageConfig::default() };
    let node = NodeId::random();
    let opened = storage::open(&storage, node, Arc::new(|_| Lane::Every)).await.expect("memory is there");
    let parts = ChannelsParts {
        backend: opened.backend,
        node,
        config: ChannelsConfig::default(),
        shards: Vec::new(),
        runtime: Handle::current(),
        vital: Vital::default(),
        accepted: None,
    };
    let stopping = CancellationToken::new();
    let channels = Channels::new(parts, TaskTracker::new(), stopping.clone());
    let config = HttpConfig { line_bytes_max: 200, ..HttpConfig::default() };
    let channel: ChannelName = "zone:pjm".parse().expect("a name");
    let budget = Arc::new(BodyBudget::new(1 << 20));
    let intake = Intake {
        channels: &channels,
        config: &config,
        stats: &IntakeStats::default(),
        budget: &budget,
        posted: Posted::Price,
        channel: channel.clone(),
        share: None,
        stopping: &stopping,
    };
    let mut body = stream::iter(pieces.into_iter().map(Ok::<_, warp::Error>));
    let posted = intake.take_lines(&mut body).await;
    let posted = posted.map_err(|problem| {
        told(problem.body.detail.as_deref().unwrap_or_default());
        (problem.code, problem.body.accepted, problem.body.line)
    });
    let page = channels.newest(&channel, 10_000).await.expect("memory answers");
    stopping.cancel();
    (posted, page.entries.into_iter().map(|entry| entry.draft.data).collect())
}

/// An NDJSON body.
pub(crate) fn lines(bytes: &[u8]) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("threads are there");
    let of = |pieces: &[&[u8]]| {
        let pieces =
            pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| Bytes::copy_from_slice(piece));
        runtime.block_on(post(pieces.collect()))
    };
    let (posted, entries) = of(&[bytes]);
    let accepted = match &posted {
        Ok(accepted) => *accepted,
        Err((_, accepted, _)) => accepted.expect("the problem says how many lines were accepted"),
    };
    assert_eq!(entries.len() as u64, accepted, "what is accepted is in the log");
    for pieces in cuts(bytes) {
        assert_eq!(of(&pieces), (posted, entries.clone()), "in {} pieces", pieces.len());
    }
}
