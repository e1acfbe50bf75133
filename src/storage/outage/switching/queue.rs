//! The reconcile queue: channels that wait to be reconciled with their logs, by failure domain, so that those
//! of one that is away cost the others nothing.

use std::collections::BTreeMap;

use crate::model::ChannelName;
use crate::storage::primary::Domain;

/// The channels that wait to be reconciled, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    domains: Vec<DomainQueue>,
    /// The number of the newest reason to look at a log anew.
    looks: u64,
    /// Channels that cannot be reconciled, and why: they are still retried, but no recovery waits for them.
    set_aside: BTreeMap<ChannelName, String>,
}

/// The channels of a failure domain.
#[derive(Debug, Default)]
struct DomainQueue {
    channels: BTreeMap<ChannelName, Ticket>,
    /// How many of them are awaited.
    awaited: usize,
}

/// How a channel waits.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    /// A new number each time that there is a reason to look at the log again. A look that began under an
    /// older number does not count: it may not have seen what happened since.
    look: u64,
    /// The recovery that is going on waits for the channel. It does not wait for channels that fork because of
    /// a late append in the meantime.
    is_awaited: bool,
}

impl Queue {
    /// Adds a channel; false if it waits already.
    pub(super) fn add(&mut self, channel: &ChannelName, domain_of: impl Fn(&ChannelName) -> Domain) -> bool {
        if self.contains(channel) {
            return false;
        }
        self.look_anew(channel, domain_of);
        true
    }

    /// Adds a channel if it does not wait yet, and gives it a new number, so that a look at its log that
    /// began earlier does not count.
    pub(super) fn look_anew(&mut self, channel: &ChannelName, domain_of: impl Fn(&ChannelName) -> Domain) {
        self.looks += 1;
        let look = self.looks;
        match self.ticket_mut(channel) {
            Some(ticket) => ticket.look = look,
            None => {
                let fresh = Ticket { look, is_awaited: false };
                self.domain(domain_of(channel)).channels.insert(channel.clone(), fresh);
            }
        }
    }

    /// Grows each time that there is reason to look at the log of a channel anew.
    pub(super) fn look(&self, channel: &ChannelName) -> u64 {
        self.ticket(channel).map_or(0, |ticket| ticket.look)
    }

    /// A channel has been reconciled.
    pub(super) fn reconciled(&mut self, channel: &ChannelName) {
        if self.forget(channel) {
            tracing::info!(%channel, "the channel that was set aside is reconciled");
        }
    }

    /// Removes a channel. Returns whether it was set aside.
    pub(super) fn forget(&mut self, channel: &ChannelName) -> bool {
        for domain in &mut self.domains {
            if let Some(ticket) = domain.channels.remove(channel) {
                domain.awaited -= usize::from(ticket.is_awaited);
            }
        }
        self.set_aside.remove(channel).is_some()
    }

    pub(super) fn contains(&self, channel: &ChannelName) -> bool {
        self.ticket(channel).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.domains.iter().map(|domain| domain.channels.len()).sum()
    }

    /// The channels that wait in certain failure domains.
    pub(super) fn within(&self, is_one: impl Fn(Domain) -> bool) -> impl Iterator<Item = &ChannelName> {
        let domains = (0..).map(Domain::new).zip(&self.domains).filter(move |(domain, _)| is_one(*domain));
        domains.flat_map(|(_, held)| held.channels.keys())
    }

    /// All that wait.
    pub(super) fn all(&self) -> impl Iterator<Item = &ChannelName> {
        self.domains.iter().flat_map(|domain| domain.channels.keys())
    }

    /// How many channels the recovery of a failure domain waits for.
    pub(super) fn awaited(&self, domain: Domain) -> usize {
        self.domains.get(domain.index()).map_or(0, |domain| domain.awaited)
    }

    /// A recovery of a failure domain begins: it waits for all that wait there now.
    pub(super) fn await_all(&mut self, domain: Domain) {
        let held = self.domain(domain);
        held.awaited = held.channels.len();
        held.channels.values_mut().for_each(|ticket| ticket.is_awaited = true);
    }

    /// Makes the recovery of a failure domain wait for no channel any more.
    pub(super) fn await_none(&mut self, domain: Domain) {
        let held = self.domain(domain);
        held.awaited = 0;
        held.channels.values_mut().for_each(|ticket| ticket.is_awaited = false);
    }

    /// Sets a channel aside: recoveries no longer wait for it, and if it is in the queue, it stays there.
    /// False if it was set aside before.
    pub(super) fn set_aside(&mut self, channel: &ChannelName, why: String) -> bool {
        for domain in &mut self.domains {
            if let Some(ticket) = domain.channels.get_mut(channel).filter(|ticket| ticket.is_awaited) {
                ticket.is_awaited = false;
                domain.awaited -= 1;
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

    /// The channels that a recovery waits for.
    pub(super) fn all_awaited(&self) -> impl Iterator<Item = &ChannelName> {
        let tickets = self.domains.iter().flat_map(|domain| &domain.channels);
        tickets.filter(|(_, ticket)| ticket.is_awaited).map(|(channel, _)| channel)
    }

    /// Sorts the waiting channels into their present failure domains, after some have moved.
    pub(super) fn rearrange(&mut self, domain_of: impl Fn(&ChannelName) -> Domain) {
        let waiting: Vec<_> = self.domains.drain(..).flat_map(|domain| domain.channels).collect();
        for (channel, ticket) in waiting {
            let held = self.domain(domain_of(&channel));
            held.awaited += usize::from(ticket.is_awaited);
            held.channels.insert(channel, ticket);
        }
    }

    fn domain(&mut self, domain: Domain) -> &mut DomainQueue {
        if self.domains.len() <= domain.index() {
            self.domains.resize_with(domain.index() + 1, DomainQueue::default);
        }
        &mut self.domains[domain.index()]
    }

    fn ticket(&self, channel: &ChannelName) -> Option<&Ticket> {
        self.domains.iter().find_map(|domain| domain.channels.get(channel))
    }

    fn ticket_mut(&mut self, channel: &ChannelName) -> Option<&mut Ticket> {
        self.domains.iter_mut().find_map(|domain| domain.channels.get_mut(channel))
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
        let domain = |_: &ChannelName| Domain::ONLY;
        assert!(queue.add(&a, domain) && !queue.add(&a, domain));
        let look = queue.look(&a);
        queue.add(&a, domain);
        assert_eq!(queue.look(&a), look, "another entry that was accepted is no reason");
        queue.look_anew(&a, domain);
        assert!(queue.look(&a) > look, "a loss was found while it was looked at");
        queue.forget(&a);
        queue.look_anew(&a, domain);
        assert!(queue.contains(&a) && queue.look(&a) > look);
    }

    #[test]
    fn a_recovery_waits_for_what_waits_when_it_begins() {
        let (mut queue, one, two) = (Queue::default(), Domain::new(1), Domain::new(2));
        let [a, b, c] = ["zone:a", "zone:b", "zone:c"].map(name);
        queue.add(&a, |_| one);
        queue.add(&b, |_| two);
        queue.await_all(one);
        queue.add(&c, |_| one);
        assert_eq!((queue.awaited(one), queue.awaited(two), queue.awaited(Domain::ONLY)), (1, 0, 0));
        assert_eq!(queue.all_awaited().collect::<Vec<_>>(), [&a]);
        queue.rearrange(|channel| if *channel == a { two } else { one });
        assert_eq!((queue.awaited(one), queue.awaited(two), queue.len()), (0, 1, 3));
        assert_eq!(queue.within(|domain| domain == one).collect::<Vec<_>>(), [&b, &c]);
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
