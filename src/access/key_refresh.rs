//! Keeps keys current.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zonewire_access::{Due, Given, Place};

use super::fetch::{self, SourceText};
use super::{Gate, now_s};

/// How often the sources that are due are looked up.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Gate {
    /// Keeps keys and revocations up to date, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        if !self.is_on() {
            return stop.cancelled().await;
        }
        tokio::join!(self.keep_keys(&stop), self.keep_revocations(&stop));
    }

    async fn keep_keys(&self, stop: &CancellationToken) {
        let mut tick = time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Bounded: each configured source is in here at most once.
        let mut asking = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => asking.extend(self.access.due(now_s()).into_iter().map(ask)),
                Some((due, read)) = asking.next(), if !asking.is_empty() => self.take(&due, read),
            }
        }
    }

    fn take(&self, due: &Due, read: SourceText) {
        match self.access.given(due, read, now_s()) {
            Given::Same => {}
            Given::News => {
                info!(place = %due.place, "keys have changed");
                self.has_news();
            }
            Given::Problem { problem, is_news: true } => {
                warn!(place = %due.place, problem, "keys could not be read; the previous ones stay in effect");
            }
            Given::Problem { .. } => {}
        }
    }

    /// Reads all sources once, at the start. An unreadable file is a configuration error.
    pub(super) async fn read_files(&self) -> Result<(), String> {
        let due = self.access.due(now_s()).into_iter();
        let (files, others): (Vec<Due>, Vec<Due>) = due.partition(|due| matches!(due.place, Place::File(_)));
        for (due, read) in join_all(files.into_iter().map(ask)).await {
            if let Given::Problem { problem, .. } = self.access.given(&due, read, now_s()) {
                return Err(format!("{}: {problem}", due.place));
            }
        }
        // An unreachable address must not keep the gateway from starting: it is tried again later.
        for (due, read) in join_all(others.into_iter().map(ask)).await {
            self.take(&due, read);
        }
        Ok(())
    }
}

fn ask(due: Due) -> BoxFuture<'static, (Due, SourceText)> {
    let asking = async move {
        let read = fetch::ask(&due).await;
        (due, read)
    };
    asking.boxed()
}
