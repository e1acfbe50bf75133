//! Valid messages, far too many of them.

use anyhow::ensure;

use super::Target;
use super::wire::{Socket, masked, upgrade};

/// More than the rate limit permits, whatever the size of the attack.
const MESSAGES_MIN: usize = 2_000;

/// Sends messages on one socket as fast as possible; the gateway must close it for that, after at most so
/// many answers.
async fn storm(target: &Target, texts_max: usize, message: impl Fn(usize) -> String) -> anyhow::Result<u64> {
    let count = target.many.max(MESSAGES_MIN);
    let messages: Vec<u8> = (0..count).flat_map(|n| masked(0x81, message(n).as_bytes())).collect();
    let socket = Socket::open(target.address, &upgrade("/ws")).await?;
    let (code, texts) = socket.until_close(&messages).await?;
    ensure!(code == 4004, "{count} messages in a rush: closed with {code}");
    ensure!(texts <= texts_max, "{count} messages in a rush: {texts} were answered");
    Ok(count as u64)
}

/// The limit is 200 at once and 50 a second, and each message may get two answers.
const ANSWERS_MAX: usize = 4_000;

pub(super) async fn subscribing(target: &Target) -> anyhow::Result<u64> {
    storm(target, ANSWERS_MAX, |n| {
        let (word, zone) = (["subscribe", "unsubscribe"][n % 2], n / 2 % 100);
        format!(r#"{{"type":"{word}","channels":["zone:storm-{zone}"]}}"#)
    })
    .await
}

/// Subscribes to the zone `pjm`, to which somebody publishes.
pub(super) async fn resuming(target: &Target) -> anyhow::Result<u64> {
    storm(target, usize::MAX, |_| {
        r#"{"type":"subscribe","channels":["zone:pjm"],"since":{"zone:pjm":{"epoch":"x","offset":0}}}"#
            .to_owned()
    })
    .await
}

/// An `auth` counts as ten messages.
pub(super) async fn auth(target: &Target) -> anyhow::Result<u64> {
    storm(target, ANSWERS_MAX / 10, |n| format!(r#"{{"type":"auth","token":"zwk_{n}"}}"#)).await
}
