//! The views of a channel: those of its entries that match a pattern, under a separate name.
//!
//! A view has no log of its own. Its positions are those of the channel's log, and of a range of offsets it
//! shows the entries that match. For each view that is followed, the channel's actor encodes the matching
//! entries once, and tells its shards which range of the log they cover; pages are filtered where they are
//! encoded. The views that show an entry are found by look-up: each segment of a key is itself or `*`, so
//! there are at most seven names, however many views there are.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::Semaphore;
use zonewire_protocol::SEGMENTS_MAX;

use super::live::{Live, LiveBatch};
use crate::model::{ChannelName, Entry, Epoch, Lane};
use crate::protocol::{Segments, segments_of};
use crate::support::chance::Hashing;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// Stands for any one segment.
const ANY: &str = "*";

/// How many ways there are to replace segments of a key by `*`, or not.
const SHAPES: usize = 1 << SEGMENTS_MAX;

/// What a view shows; everything, if the channel is not a view.
#[derive(Debug)]
pub(super) struct Filter<'a>(Option<&'a str>);

impl<'a> Filter<'a> {
    pub(super) fn of(channel: &'a ChannelName) -> Self {
        Self(channel.as_event().and_then(|(_, pattern)| pattern))
    }

    pub(super) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it shows an entry. An entry whose key cannot be read might belong to any view, so every view
    /// shows it as skipped.
    pub(super) fn shows(&self, entry: &Entry) -> bool {
        let Some(pattern) = self.0 else { return true };
        segments_of(&entry.draft).is_none_or(|segments| {
            pattern.split(':').zip(segments).all(|(wanted, found)| wanted == ANY || wanted == found)
        })
    }

    /// The common prefix of the keys that it shows.
    pub(super) fn prefix(&self) -> String {
        let Some(pattern) = self.0 else { return String::new() };
        match pattern.split(':').position(|segment| segment == ANY) {
            None => pattern.to_owned(),
            Some(count) => pattern.split_inclusive(':').take(count).collect(),
        }
    }
}

/// A view that somebody on this node follows.
#[derive(Debug)]
struct View {
    channel: ChannelName,
    /// For each shard, whether it follows the view.
    joined: Vec<bool>,
    /// For each shard, once it was sent a message: the credits for messages on their way to it.
    credits: Vec<Option<Arc<Semaphore>>>,
    /// Its shards were told that the view covers the log up to here.
    covered: u64,
    /// The indices of the current entries that it shows.
    found: Vec<usize>,
}

/// For each shard, whether it follows the channel or view, and its credits.
pub(super) type Shards<'a> = (&'a mut [bool], &'a mut [Option<Arc<Semaphore>>]);

/// All views of one channel that somebody on this node follows.
#[derive(Debug, Default)]
pub(super) struct Views {
    by_pattern: HashMap<Arc<str>, View, Hashing>,
    /// How many views there are of each shape, which says which segments are `*`.
    shapes: [usize; SHAPES],
}

impl Views {
    pub(super) fn is_empty(&self) -> bool {
        self.by_pattern.is_empty()
    }

    pub(super) fn holds(&self, channel: &ChannelName) -> bool {
        pattern_of(channel).is_some_and(|pattern| self.by_pattern.contains_key(pattern))
    }

    /// Makes a shard follow a view. A new view covers the log from after this offset.
    pub(super) fn join(&mut self, channel: &ChannelName, shard: usize, shards: usize, offset: u64) {
        let Some(pattern) = pattern_of(channel) else { return };
        let view = self.by_pattern.entry(pattern.into()).or_insert_with(|| {
            self.shapes[shape_of(pattern)] += 1;
            View {
                channel: channel.clone(),
                joined: vec![false; shards],
                credits: vec![None; shards],
                covered: offset,
                found: Vec::new(),
            }
        });
        view.joined[shard] = true;
    }

    /// A shard no longer follows a view. Returns whether no shard does.
    pub(super) fn leave(&mut self, channel: &ChannelName, shard: usize) -> bool {
        let Some(pattern) = pattern_of(channel) else { return false };
        let Some(view) = self.by_pattern.get_mut(pattern) else { return false };
        view.joined[shard] = false;
        let is_left = !view.joined.contains(&true);
        if is_left {
            self.shapes[shape_of(pattern)] -= 1;
            self.by_pattern.remove(pattern);
        }
        is_left
    }

    /// Encodes contiguous entries for each view that shows any of them. `whole_from`: no offset since this
    /// one was left out.
    pub(super) fn encode(
        &mut self,
        epoch: &Epoch,
        lane: Lane,
        late: bool,
        entries: &[Entry],
        whole_from: u64,
    ) -> Vec<(Arc<str>, Live)> {
        let (false, Some(last)) = (self.is_empty(), entries.last()) else { return Vec::new() };
        let mut found = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match segments_of(&entry.draft) {
                Some(segments) => self.find(&segments, index, &mut found),
                // Nobody can tell which views it belongs to.
                None => {
                    for (pattern, view) in &mut self.by_pattern {
                        note(pattern, view, index, &mut found);
                    }
                }
            }
        }
        let batches = found.into_iter().filter_map(|pattern| {
            let view = self.by_pattern.get_mut(&pattern)?;
            let shown: Vec<&Entry> = view.found.drain(..).map(|index| &entries[index]).collect();
            let covers = whole_from.max(view.covered + 1)..=last.offset;
            view.covered = last.offset;
            let batch = LiveBatch::encode_view(&view.channel, epoch, lane, late, covers, &shown);
            Some((pattern, Live::Batch(Arc::new(batch))))
        });
        batches.collect()
    }

    /// Finds the views that show an entry.
    fn find(&mut self, segments: &Segments<'_>, index: usize, found: &mut Vec<Arc<str>>) {
        let mut name = String::new();
        #[cfg(test)]
        let before = found.len();
        for shape in (0..1 << segments.len()).filter(|shape| self.shapes[*shape] > 0) {
            name.clear();
            for (place, segment) in segments.iter().enumerate() {
                name.push_str(if place == 0 { "" } else { ":" });
                name.push_str(if shape & (1 << place) == 0 { segment } else { ANY });
            }
            if let Some((pattern, _)) = self.by_pattern.get_key_value(name.as_str()) {
                let pattern = Arc::clone(pattern);
                if let Some(view) = self.by_pattern.get_mut(&pattern) {
                    note(&pattern, view, index, found);
                }
                #[cfg(test)]
                if found.len() > before && mutant::is(Mutant::OneViewOfEach) {
                    return;
                }
            }
        }
    }

    /// For each view that was not told so yet: an empty batch which says that the view covers the log up to
    /// `passed`.
    pub(super) fn catch_up(&mut self, epoch: &Epoch, whole_from: u64, passed: u64) -> Vec<(Arc<str>, Live)> {
        let behind = self.by_pattern.iter_mut().filter(|(_, view)| view.covered < passed);
        let messages = behind.map(|(pattern, view)| {
            let covers = whole_from.max(view.covered + 1)..=passed;
            let batch = LiveBatch::encode_view(&view.channel, epoch, Lane::Every, false, covers, &[]);
            view.covered = passed;
            (Arc::clone(pattern), Live::Batch(Arc::new(batch)))
        });
        messages.collect()
    }

    /// The shards of a view.
    pub(super) fn shards(&mut self, pattern: &str) -> Option<Shards<'_>> {
        let view = self.by_pattern.get_mut(pattern)?;
        Some((&mut view.joined, &mut view.credits))
    }

    /// The message for each view, under the view's name. It concerns the log as a whole, so each view then
    /// covers the log up to `offset`.
    pub(super) fn for_all(
        &mut self,
        offset: u64,
        message: impl Fn(&ChannelName) -> Live,
    ) -> Vec<(Arc<str>, Live)> {
        let messages = self.by_pattern.iter_mut().map(|(pattern, view)| {
            view.covered = offset;
            (Arc::clone(pattern), message(&view.channel))
        });
        messages.collect()
    }
}

fn note(pattern: &Arc<str>, view: &mut View, index: usize, found: &mut Vec<Arc<str>>) {
    if view.found.is_empty() {
        found.push(Arc::clone(pattern));
    }
    view.found.push(index);
}

fn pattern_of(channel: &ChannelName) -> Option<&str> {
    channel.as_event()?.1
}

/// Which segments of a pattern are `*`.
fn shape_of(pattern: &str) -> usize {
    pattern.split(':').enumerate().filter(|(_, segment)| *segment == ANY).map(|(place, _)| 1 << place).sum()
}

/// The range of offsets that a batch of a log covers: all of its entries.
pub(super) fn range_of(entries: &[Entry]) -> RangeInclusive<u64> {
    let (first, last) = (entries.first(), entries.last());
    first.map_or(1, |first| first.offset)..=last.map_or(0, |last| last.offset)
}

/// The entries of a list that pass the filter, in order.
pub(super) fn shown<'a>(filter: &Filter<'_>, entries: &'a [Entry]) -> Vec<&'a Entry> {
    #[cfg(test)]
    if mutant::is(Mutant::PagesOfViewsNotFiltered) {
        return entries.iter().collect();
    }
    entries.iter().filter(|entry| filter.shows(entry)).collect()
}

#[cfg(test)]
mod tests;
