//! The reconcile queue: channels that wait to be reconciled with their logs, by failure domain, so that those
//! of one that is away cost the others nothing.

use std::collections::BTreeMap;

use crate::model::ChannelName;
use crate::storage::primary::Area;

/// The channels that wait, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    areas: Vec<Waiting>,
    /// The newest turn that was given.
    turns: u64,
    /// Channels that cannot be reconciled, and why: no recovery waits for them, and they go on being tried.
    set_aside: BTreeMap<ChannelName, String>,
}

/// The channels of a failure domain.
#[derive(Debug, Default)]
struct Waiting {
    channels: BTreeMap<ChannelName, Ticket>,
    /// How many of them are awaited.
    awaited: usize,
}

/// How a channel waits.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    /// Another one each time that there is a reason to look at the log anew: a look before that has not seen
    /// it.
    turn: u64,
    /// The recovery that is going on waits for the channel. It does not wait for channels that fork because of
    /// a late append in the meantime.
    is_awaited: bool,
}

impl Queue {
    /// Has a channel wait. False when it waits already.
    pub(super) fn add(&mut self, channel: &ChannelName, area_of: impl Fn(&ChannelName) -> Area) -> bool {
        if self.contains(channel) {
            return false;
        }
        self.look_anew(channel, area_of);
        true
    }

    /// Has a channel wait, and its log be looked at after this: what has been found in the log does not count.
    pub(super) fn look_anew(&mut self, channel: &ChannelName, area_of: impl Fn(&ChannelName) -> Area) {
        self.turns += 1;
        let turn = self.turns;
        match self.ticket_mut(channel) {
            Some(ticket) => ticket.turn = turn,
            None => {
                let fresh = Ticket { turn, is_awaited: false };
                self.area(area_of(channel)).channels.insert(channel.clone(), fresh);
            }
        }
    }

    /// Grows each time that there is reason to look at the log of a channel anew.
    pub(super) fn turn(&self, channel: &ChannelName) -> u64 {
        self.ticket(channel).map_or(0, |ticket| ticket.turn)
    }

    /// A channel has been reconciled.
    pub(super) fn reconciled(&mut self, channel: &ChannelName) {
        if self.forget(channel) {
            tracing::info!(%channel, "the channel that was set aside is in order again");
        }
    }

    /// Takes a channel out. Whether it was set aside.
    pub(super) fn forget(&mut self, channel: &ChannelName) -> bool {
        for area in &mut self.areas {
            if let Some(ticket) = area.channels.remove(channel) {
                area.awaited -= usize::from(ticket.is_awaited);
            }
        }
        self.set_aside.remove(channel).is_some()
    }

    pub(super) fn contains(&self, channel: &ChannelName) -> bool {
        self.ticket(channel).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.areas.iter().map(|area| area.channels.len()).sum()
    }

    /// Those that wait in certain failure domains.
    pub(super) fn within(&self, is_one: impl Fn(Area) -> bool) -> impl Iterator<Item = &ChannelName> {
        let areas = (0..).map(Area::new).zip(&self.areas).filter(move |(area, _)| is_one(*area));
        areas.flat_map(|(_, held)| held.channels.keys())
    }

    /// All that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = &ChannelName> {
        self.areas.iter().flat_map(|area| area.channels.keys())
    }

    /// How many the recovery of a failure domain waits for.
    pub(super) fn awaited(&self, area: Area) -> usize {
        self.areas.get(area.index()).map_or(0, |area| area.awaited)
    }

    /// A recovery of a failure domain begins: it waits for all that wait there now.
    pub(super) fn await_all(&mut self, area: Area) {
        let held = self.area(area);
        held.awaited = held.channels.len();
        held.channels.values_mut().for_each(|ticket| ticket.is_awaited = true);
    }

    /// No recovery of the failure domain waits for anything any more.
    pub(super) fn await_none(&mut self, area: Area) {
        let held = self.area(area);
        held.awaited = 0;
        held.channels.values_mut().for_each(|ticket| ticket.is_awaited = false);
    }

    /// No recovery waits for this channel any more, which stays in the queue. False when it was set aside
    /// before.
    pub(super) fn set_aside(&mut self, channel: &ChannelName, why: String) -> bool {
        for area in &mut self.areas {
            if let Some(ticket) = area.channels.get_mut(channel).filter(|ticket| ticket.is_awaited) {
                ticket.is_awaited = false;
                area.awaited -= 1;
            }
        }
        self.set_aside.insert(channel.clone(), why).is_none()
    }

    pub(super) fn is_set_aside(&self, channel: &ChannelName) -> bool {
        self.set_aside.contains_key(channel)
    }

    /// The channels that are set aside, and why.
    pub(super) fn all_set_aside(&self) -> impl ExactSizeIterator<Item = (&ChannelName, &String)> {
        self.set_aside.iter()
    }

    /// Those that a recovery waits for.
    pub(super) fn all_awaited(&self) -> impl Iterator<Item = &ChannelName> {
        let tickets = self.areas.iter().flat_map(|area| &area.channels);
        tickets.filter(|(_, ticket)| ticket.is_awaited).map(|(channel, _)| channel)
    }

    /// Channels went from one failure domain to another.
    pub(super) fn rearrange(&mut self, area_of: impl Fn(&ChannelName) -> Area) {
        let waiting: Vec<_> = self.areas.drain(..).flat_map(|area| area.channels).collect();
        for (channel, ticket) in waiting {
            let held = self.area(area_of(&channel));
            held.awaited += usize::from(ticket.is_awaited);
            held.channels.insert(channel, ticket);
        }
    }

    fn area(&mut self, area: Area) -> &mut Waiting {
        if self.areas.len() <= area.index() {
            self.areas.resize_with(area.index() + 1, Waiting::default);
        }
        &mut self.areas[area.index()]
    }

    fn ticket(&self, channel: &ChannelName) -> Option<&Ticket> {
        self.areas.iter().find_map(|area| area.channels.get(channel))
    }

    fn ticket_mut(&mut self, channel: &ChannelName) -> Option<&mut Ticket> {
        self.areas.iter_mut().find_map(|area| area.channels.get_mut(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_found_before_there_is_reason_to_look_anew_does_not_count() {
        let (mut queue, a) = (Queue::default(), name("zone:a"));
        let area = |_: &ChannelName| Area::ONLY;
        assert!(queue.add(&a, area) && !queue.add(&a, area));
        let turn = queue.turn(&a);
        queue.add(&a, area);
        assert_eq!(queue.turn(&a), turn, "another entry that was accepted is no reason");
        queue.look_anew(&a, area);
        assert!(queue.turn(&a) > turn, "a loss was found while it was looked at");
        queue.forget(&a);
        queue.look_anew(&a, area);
        assert!(queue.contains(&a) && queue.turn(&a) > turn);
    }

    #[test]
    fn a_recovery_waits_for_what_waits_when_it_begins() {
        let (mut queue, one, two) = (Queue::default(), Area::new(1), Area::new(2));
        let [a, b, c] = ["zone:a", "zone:b", "zone:c"].map(name);
        queue.add(&a, |_| one);
        queue.add(&b, |_| two);
        queue.await_all(one);
        queue.add(&c, |_| one);
        assert_eq!((queue.awaited(one), queue.awaited(two), queue.awaited(Area::ONLY)), (1, 0, 0));
        assert_eq!(queue.all_awaited().collect::<Vec<_>>(), [&a]);
        queue.rearrange(|channel| if *channel == a { two } else { one });
        assert_eq!((queue.awaited(one), queue.awaited(two), queue.len()), (0, 1, 3));
        assert_eq!(queue.within(|area| area == one).collect::<Vec<_>>(), [&b, &c]);
        queue.await_all(two);
        assert!(queue.set_aside(&a, "why".to_owned()) && !queue.set_aside(&a, "why".to_owned()));
        assert_eq!((queue.awaited(two), queue.contains(&a), queue.is_set_aside(&a)), (0, true, true));
        assert!(queue.forget(&a) && !queue.is_set_aside(&a));
        queue.add(&a, |_| two);
        queue.await_all(one);
        queue.forget(&b);
        assert_eq!(queue.awaited(one), 1);
        queue.await_none(one);
        assert_eq!((queue.awaited(one), queue.len()), (0, 2));
    }
}
