//! The environments in which a gateway is tested: Redis in every deployment, gateways as processes, proxies
//! between them, stand-ins for exchanges, adjustable clocks, and attacks.
//!
//! The tests and the laboratory share it. It knows of a gateway only what its users see, and does not use its
//! library. Everything it starts ends with its owner.

pub mod certificates;
pub mod clock;
pub mod dir;
pub mod exchange;
pub mod hostile;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod resp;

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{self, Instant};

/// A free port of this machine; another process may take it before it is used.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

/// Polls 100 times a second until `look` finds something; fails if that takes longer than `patience`. With
/// tokio's time paused it takes no real time.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("not within {patience:?}: {what}");
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// Prints that a test is skipped because something is missing; panics instead if the environment variable
/// named by `require` is set, as in continuous integration.
pub fn skip<T>(require: &str, missing: &str) -> Option<T> {
    assert!(std::env::var_os(require).is_none(), "{require} is set, and {missing}");
    println!("skipped: {missing}");
    None
}
