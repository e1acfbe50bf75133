//! The log role.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::replica::Replica;
use super::{Switching, away};
use crate::model::{ChannelName, Epoch, NodeId, Position};
use crate::storage::{
    AppendAnswer, AppendBatch, LatestPage, LatestQuery, Log, LogEvent, LogState, OpenLog, Page, PageLimit,
    Result,
};

#[async_trait]
impl Log for Switching {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let (breaker, replicas) = (&self.core.breaker, &self.core.replicas);
        loop {
            {
                let state = replicas.lock();
                let replica = state.replicas.get(channel);
                let is_here = replica.is_some_and(Replica::is_forked) || !breaker.has_log(channel);
                if is_here {
                    let epoch = replica.and_then(|replica| replica.epoch().cloned());
                    let top = replicas.memory.mirrored(channel).map_or(0, |mirrored| mirrored.top);
                    let last_seq = if producer == replicas.node {
                        replica.map_or(0, Replica::newest)
                    } else {
                        replicas.memory.last_seq(channel, producer)
                    };
                    return Ok(LogState { epoch, top, last_seq });
                }
            }
            if let Some(answer) = breaker.ask_log(channel, breaker.primary.state(channel, producer)).await {
                return answer;
            }
        }
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.core.replicas.open_or_find(channel, producer, None).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        let opened = self.core.replicas.open_or_find(channel, producer, Some(minted)).await?;
        opened.ok_or_else(|| away("open"))
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.core.appender.append(batch).await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.core.appender.begin(batch).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.core.replicas.read_within(channel, after, limit).await
    }

    async fn fork_for_readers(&self, channel: &ChannelName) {
        let core = &self.core;
        let is_primary = core.breaker.has_log(channel);
        {
            let mut state = core.replicas.lock();
            let is_in_log = |replica: &Replica| replica.log().is_some() && !replica.is_forked();
            if is_primary || !state.replicas.get(channel).is_some_and(is_in_log) {
                return;
            }
            state.fork(channel, None, false);
        }
        core.incoming.tell(LogEvent::Changed(channel.clone()));
    }

    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage> {
        let core = &self.core;
        let asked = core.breaker.primary.latest_within(channel, query);
        match core.replicas.ask_about_log(channel, asked).await {
            Some(page) => {
                let page = page?;
                core.replicas.mirror_latest(channel, &page);
                Ok(page)
            }
            None => Ok(core.replicas.latest_here(channel, query)),
        }
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        let core = &self.core;
        match core.replicas.ask_about_log(channel, core.breaker.primary.keys(channel)).await {
            Some(keys) => keys,
            None => core.replicas.memory.keys(channel).await,
        }
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        let (breaker, replicas) = (&self.core.breaker, &self.core.replicas);
        if replicas.lock().replica(channel).follow() {
            return Ok(());
        }
        let answer = breaker.ask_log(channel, breaker.primary.follow(channel)).await;
        let mut state = replicas.lock();
        match answer {
            Some(Ok(())) => {
                if let Some(replica) = state.replicas.get_mut(channel) {
                    replica.set_confirmed(true);
                }
                Ok(())
            }
            Some(Err(error)) if !error.is_outage() => Err(error),
            // The reconciler follows the log, and has readers told to look at it then.
            Some(Err(_)) | None => {
                state.suspect(channel);
                Ok(())
            }
        }
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        let core = &self.core;
        {
            let mut state = core.replicas.lock();
            if let Some(replica) = state.replicas.get_mut(channel) {
                replica.unfollowed();
            }
            state.forget_if_blank(channel);
        }
        // A recovery may have waited for the channel.
        core.replicas.in_order.notify_waiters();
        // A subscriber that is not connected forgets the channel all the same.
        match core.breaker.primary.unfollow(channel).await {
            Err(error) if error.is_outage() => Ok(()),
            answer => answer,
        }
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming.lock().take()
    }
}
