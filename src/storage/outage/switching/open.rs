//! Opens logs: takes over the state in which a log is found, and answers from the local replica while the log
//! cannot be reached.

use tokio::time::Instant;

use super::away;
use super::replica::{Known, Replica};
use super::replicas::Replicas;
use crate::model::{ChannelName, Epoch, NodeId, new_epoch};
use crate::storage::{Anchor, LatestPage, LatestQuery, OpenLog, Result};

impl Replicas {
    /// What the log answers, unless its failure domain is away or this node goes on without it.
    pub(super) async fn ask_about_log<T>(
        &self,
        channel: &ChannelName,
        asked: impl Future<Output = Result<T>>,
    ) -> Option<Result<T>> {
        let is_here = !self.breaker.has_log(channel) || self.replica_is(channel, Replica::is_forked);
        if is_here { None } else { self.breaker.ask_log(channel, asked).await }
    }

    /// Copies the log's latest entries, for when the log cannot be reached. Releases the lock now and then,
    /// so that a long page does not block others.
    pub(super) fn mirror_latest(&self, channel: &ChannelName, page: &LatestPage) {
        const AT_ONCE: usize = 256;
        for entries in page.entries.chunks(AT_ONCE) {
            let state = self.lock();
            // In another epoch these offsets mean something else.
            let is_another = |replica: &Replica| {
                replica.is_forked() || (page.epoch.is_some() && replica.log() != page.epoch.as_ref())
            };
            if state.replicas.get(channel).is_some_and(is_another) {
                return;
            }
            self.memory.mirror_latest(channel, entries);
        }
    }

    /// The latest entries that this node keeps.
    pub(super) fn latest_here(&self, channel: &ChannelName, query: LatestQuery<'_>) -> LatestPage {
        let mut state = self.lock();
        let replica = state.replicas.get_mut(channel);
        let has_all =
            self.breaker.is_standalone() || replica.as_ref().is_some_and(|replica| replica.has_had_nothing());
        let epoch = replica.and_then(|replica| {
            replica.keep_mirror();
            replica.epoch().cloned()
        });
        let page = self.memory.latest_now(channel, query);
        LatestPage { epoch, is_copy: !has_all, ..page }
    }

    /// Opens a log in its present state. A log without an epoch begins with `minted`; without `minted`, the
    /// result is then `None`.
    pub(super) async fn open_or_find(
        &self,
        channel: &ChannelName,
        producer: NodeId,
        minted: Option<&Epoch>,
    ) -> Result<Option<OpenLog>> {
        let primary = &self.breaker.primary;
        let asked = async |at: u64, minted: Option<&Epoch>| {
            // If there is no known entry to compare with the log's, one call examines the log and opens it.
            if let Some(minted) = minted.filter(|_| at == u64::MAX) {
                return primary.open(channel, producer, minted).await.map(Some);
            }
            match (primary.examine(channel, producer, at).await?, minted) {
                (Some(log), _) => Ok(Some(log)),
                (None, Some(minted)) => primary.open(channel, producer, minted).await.map(Some),
                (None, None) => Ok(None),
            }
        };
        if producer != self.node {
            let answer = self.breaker.ask_log(channel, asked(u64::MAX, minted)).await;
            return answer.unwrap_or_else(|| Err(away("open")));
        }
        let mut minted = minted.cloned();
        loop {
            if let Some(open) = self.open_here(channel, minted.is_some()) {
                return Ok(open);
            }
            let known = self.lock().replicas.get(channel).map(Replica::known).unwrap_or_default();
            let answer = self.breaker.ask_log(channel, asked(known.at(), minted.as_ref())).await;
            // The call may have begun a log that is lost by the next attempt, and two logs must not have the
            // same epoch.
            minted = minted.map(|_| new_epoch());
            match answer {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(None)) if self.has_no_log(channel) => return Ok(None),
                Some(Ok(log)) => {
                    if log.as_ref().is_some_and(|log| self.take_up(channel, log, &known)) {
                        return Ok(log);
                    }
                    self.until_in_order(channel).await;
                    let mut state = self.lock();
                    if state.replicas.get(channel).is_some_and(Replica::is_suspect) {
                        state.fork(channel, None, false);
                    }
                }
            }
        }
    }

    /// Handles the answer that the log has no epoch. Returns false if this node knows an epoch of it, or has
    /// forked it meanwhile: the caller then tries again.
    fn has_no_log(&self, channel: &ChannelName) -> bool {
        let mut state = self.lock();
        let Some(replica) = state.replicas.get_mut(channel) else { return true };
        if !replica.is_forked() && replica.log().is_none() {
            replica.found_unborn();
            return true;
        }
        if !replica.is_forked() {
            state.suspect(channel);
        }
        false
    }

    /// The answer for a channel whose log must not be asked; `None` if the log has to be asked. `Some(None)`
    /// means that the channel has no epoch; for a caller that `appends` it is forked instead, to have one.
    fn open_here(&self, channel: &ChannelName, appends: bool) -> Option<Option<OpenLog>> {
        let is_primary = self.breaker.has_log(channel);
        let mut state = self.lock();
        let replica = state.replica(channel);
        replica.used = Instant::now();
        if !replica.is_forked() {
            if is_primary {
                return None;
            }
            if replica.log().is_none() {
                if replica.is_unborn() && !appends {
                    // No reader can have been told of anything in it.
                    return Some(None);
                }
                state.fork(channel, None, false);
            }
        }
        let replica = state.replicas.get_mut(channel)?;
        replica.keep_mirror();
        let top = self.memory.mirrored(channel).map_or(replica.highest(), |mirrored| mirrored.top);
        let producers = self.memory.recent_producers(channel);
        let (epoch, last_seq) = (replica.epoch()?.clone(), replica.newest());
        let anchor = self.memory.last_ids(channel, top, 1).pop().map(|id| Anchor { offset: top, id });
        Some(Some(OpenLog { epoch, top, last_seq, producers, anchor }))
    }

    /// Takes over the state in which the log was found; false if the channel is forked or suspect, or if this
    /// is not the log with which this node was in step. `known` is what this node knew before it asked.
    pub(super) fn take_up(&self, channel: &ChannelName, log: &OpenLog, known: &Known) -> bool {
        let mut state = self.lock();
        let replica = state.replica(channel);
        if replica.is_forked() {
            return false;
        }
        replica.expire_retransmit();
        let is_same = replica.log().is_none_or(|known| *known == log.epoch);
        if is_same && !replica.is_set_back(log, known) && !replica.is_suspect() {
            replica.opened(log);
            return true;
        }
        state.suspect(channel);
        false
    }
}
