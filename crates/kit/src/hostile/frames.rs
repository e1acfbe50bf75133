//! WebSocket frames that no client should send.

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time;

use super::Target;
use super::wire::{PATIENCE, Socket, masked, upgrade};

/// How many empty fragments are sent per unit of [`Target::many`].
const EMPTY_OF_MANY: usize = 200;
/// How many pings are sent per unit of [`Target::many`].
const PINGS_OF_MANY: usize = 100;

/// Sends frames on a new socket, and checks the code with which it is closed.
async fn closes(target: &Target, what: &str, frames: &[u8], code: u16) -> anyhow::Result<()> {
    let socket = Socket::open(target.address, &upgrade("/ws")).await?;
    let (closed, _texts) = socket.until_close(frames).await.with_context(|| what.to_owned())?;
    ensure!(closed == code, "{what}: closed with {closed} instead of {code}");
    Ok(())
}

/// Frames that violate the RFC.
pub(super) async fn wrong(target: &Target) -> anyhow::Result<u64> {
    // An `é` whose second byte is in the next fragment, and is wrong.
    let broken = [masked(0x01, b"{\"\xc3"), masked(0x80, b"\x28\"}")].concat();
    let cases: [(&str, Vec<u8>, u16); 11] = [
        ("no mask", b"\x81\x02hi".to_vec(), 1002),
        ("the first reserved bit", masked(0xc1, b"{}"), 1002),
        ("the second one", masked(0xa1, b"{}"), 1002),
        ("the third one", masked(0x91, b"{}"), 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a reserved opcode of control", masked(0x8b, b""), 1002),
        ("a rest of nothing", masked(0x80, b"x"), 1002),
        ("a ping in fragments", masked(0x09, b"x"), 1002),
        ("broken UTF-8 across fragments", broken, 1007),
        ("UTF-8 that ends too early", [masked(0x01, b"\"\xe2"), masked(0x80, b"\x82")].concat(), 1007),
        ("2^62 bytes, it says", b"\x81\xff\x40\0\0\0\0\0\0\0\x01\x02\x03\x04".to_vec(), 1009),
    ];
    for (what, frames, code) in &cases {
        closes(target, what, frames, *code).await?;
    }
    Ok(cases.len() as u64)
}

/// Messages without an end.
pub(super) async fn endless(target: &Target) -> anyhow::Result<u64> {
    let empty = [masked(0x01, b""), masked(0x00, b"").repeat(target.many * EMPTY_OF_MANY)].concat();
    let full = [masked(0x01, b"\""), masked(0x00, &[b'x'; 30_000]).repeat(100)].concat();
    let half = [masked(0x01, b"{\"type\":\"ping\""), b"\x80\xfe\xff\xff\0\0\0\0\"".to_vec()].concat();
    closes(target, "empty fragments", &empty, 1009).await?;
    closes(target, "full fragments", &full, 1009).await?;
    closes(target, "half a message", &half, 4002).await?;
    Ok(3)
}

/// Pings from a client that reads nothing: the pongs that wait for it must be bounded.
pub(super) async fn pings(target: &Target) -> anyhow::Result<u64> {
    let socket = TcpSocket::new_v4().context("cannot make a socket")?;
    socket.set_recv_buffer_size(4_096).context("cannot set up a socket")?;
    let stream = socket.connect(target.address).await.context("cannot connect to the gateway")?;
    let mut stream = Socket::over(stream, &upgrade("/ws")).await?.stream;
    let some = masked(0x89, &[b'x'; 125]).repeat(PINGS_OF_MANY);
    let flood = async {
        for _ in 0..target.many {
            if stream.write_all(&some).await.is_err() {
                break;
            }
        }
    };
    time::timeout(PATIENCE, flood)
        .await
        .context("the gateway neither reads pings nor ends the connection")?;
    let mut came = 0;
    let mut buffer = vec![0; 16 << 10];
    let reading = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            came += read;
        }
    };
    time::timeout(PATIENCE, reading).await.context("one that floods with pings is left open")?;
    // The rate limit lets 200 through at once, and a few more each second.
    ensure!(came < 256 << 10, "{came} bytes waited for a client that reads nothing");
    Ok((target.many * PINGS_OF_MANY) as u64)
}
