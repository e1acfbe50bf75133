//! Requests whose head never ends or is too large.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;

use super::Target;
use super::wire::{PATIENCE, ask, connect, exchange, request, statuses, upgrade};

/// How many connections are open at once; a larger attack continues one after the other.
const AT_ONCE_MAX: usize = 1_000;
/// The pause between two bytes of a slow head.
const DRIP: Duration = Duration::from_millis(50);

/// Reads until the gateway closes the connection, and returns what was read.
async fn until_end(mut stream: impl AsyncRead + Unpin) -> anyhow::Result<Vec<u8>> {
    let mut came = Vec::new();
    let reading = async { while stream.read_buf(&mut came).await.is_ok_and(|read| read > 0) {} };
    time::timeout(PATIENCE, reading).await.context("a connection without a request is left open")?;
    Ok(came)
}

/// Sends heads one byte at a time.
pub(super) async fn slow(target: &Target) -> anyhow::Result<u64> {
    each(target, |stream| async move {
        let (from, mut to) = stream.into_split();
        let dripping = async {
            let mut head =
                b"GET /ws/market/pjm HTTP/1.1\r\nX-Slow: ".iter().copied().chain(std::iter::repeat(b'x'));
            let mut pace = time::interval(DRIP);
            while let Some(byte) = head.next()
                && to.write_all(&[byte]).await.is_ok()
            {
                pace.tick().await;
            }
            std::future::pending::<()>().await;
        };
        let came = tokio::select! { came = until_end(from) => came?, () = dripping => Vec::new() };
        ensure!(statuses(&came).iter().all(|status| *status == 408), "{}", String::from_utf8_lossy(&came));
        Ok(())
    })
    .await
}

pub(super) async fn silent(target: &Target) -> anyhow::Result<u64> {
    each(target, |stream| async move {
        let came = until_end(stream).await?;
        ensure!(came.is_empty(), "silence is answered: {}", String::from_utf8_lossy(&came));
        Ok(())
    })
    .await
}

/// Does something on many connections at once, and waits for all of them.
async fn each<F>(target: &Target, act: impl Fn(TcpStream) -> F) -> anyhow::Result<u64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for _ in 0..target.many.min(AT_ONCE_MAX) {
        all.spawn(act(connect(target.address).await?));
    }
    let count = all.len();
    while let Some(ended) = all.join_next().await {
        ended.context("an attacker panicked")??;
    }
    Ok(count as u64)
}

/// Sends heads that are too large, and one that just fits.
pub(super) async fn large(target: &Target) -> anyhow::Result<u64> {
    let many = |count: usize, len: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "x".repeat(len))).collect()
    };
    let with = |headers: &str| format!("GET /health/live HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let fits = with(&format!("Connection: close\r\n{}", many(80, 10)));
    let (status, answer) = ask(target.address, fits.as_bytes()).await?;
    ensure!(status == 200, "a head that fits: {answer}");
    let bombs = [
        ("10,000 headers", with(&many(10_000, 1))),
        ("1 MiB", with(&many(1, 1 << 20))),
        ("100 of 10 KiB", with(&many(100, 10 << 10))),
        ("a target", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1 << 20))),
        ("a method", format!("{} / HTTP/1.1\r\nHost: localhost\r\n\r\n", "X".repeat(1 << 20))),
        ("no end of a line", "x".repeat(1 << 20)),
    ];
    for (what, head) in &bombs {
        let came = exchange(target.address, head.as_bytes()).await?;
        // If the gateway closes the connection while this side still sends, the answer may be lost.
        let refused = statuses(&came).iter().all(|status| [400, 414, 431].contains(status));
        ensure!(refused, "{what}: {}", String::from_utf8_lossy(&came));
    }
    Ok(bombs.len() as u64)
}

/// Breaks off upgrades at every length, one after the other.
pub(super) async fn half_open(target: &Target) -> anyhow::Result<u64> {
    let whole = upgrade("/ws/market/pjm");
    for n in 0..target.many {
        let mut stream = connect(target.address).await?;
        let _gone = stream.write_all(&whole.as_bytes()[..n * 7 % whole.len()]).await;
        if n % 8 != 0 {
            // By RST, which also leaves no port of this machine in TIME_WAIT.
            stream.set_zero_linger().context("cannot set up a socket")?;
        }
    }
    let (status, answer) = ask(target.address, &request("GET /health/live", "", b"")).await?;
    ensure!(status == 200, "{answer}");
    Ok(target.many as u64)
}
