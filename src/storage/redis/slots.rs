//! Assigns the slots of a cluster to domains, as the cluster's map changes.

use std::sync::Arc;

use fred::types::config::Server;

use crate::storage::primary::Domain;

/// The number of slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// The most domains; beyond it, the number of a domain without slots is reused.
const AREAS_MAX: usize = 4_096;

/// The owner of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Server(Server),
    /// No server has its slots.
    Nobody,
}

/// The domain of each slot, and the owner of each domain.
///
/// A domain keeps its number as long as it has slots, even if another server takes over all of them from one
/// that is gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    domains: Arc<[u16]>,
    /// By domain; `None`: it has no slots any more.
    owners: Vec<Option<Owner>>,
}

impl Slots {
    /// The domain of a slot; the first domain while nothing is known.
    pub(super) fn domain(&self, slot: u16) -> Domain {
        Domain::new(self.domains.get(usize::from(slot)).copied().unwrap_or(0))
    }

    pub(super) fn owners(&self) -> &[Option<Owner>] {
        &self.owners
    }

    /// Applies a new map: the server of each slot. Returns whether a slot that had a domain before is now in
    /// another one.
    pub(super) fn update(&mut self, servers: &[Option<Server>]) -> bool {
        let mut present: Vec<Owner> = Vec::new();
        let mut of_slot = Vec::with_capacity(SLOTS);
        for slot in 0..SLOTS {
            let owner = match servers.get(slot) {
                Some(Some(server)) => Owner::Server(server.clone()),
                _ => Owner::Nobody,
            };
            // Slots come in ranges, so the previous owner is the likeliest.
            let known = present.iter().rposition(|held| *held == owner);
            of_slot.push(known.unwrap_or_else(|| {
                present.push(owner);
                present.len() - 1
            }));
        }
        let numbers = self.numbers(&present, &of_slot);
        let domains: Arc<[u16]> = of_slot.iter().map(|at| numbers[*at]).collect();
        let has_moved = !self.domains.is_empty() && self.domains != domains;
        for owner in &mut self.owners {
            *owner = None;
        }
        for (owner, number) in present.into_iter().zip(&numbers) {
            let at = usize::from(*number);
            if self.owners.len() <= at {
                self.owners.resize(at + 1, None);
            }
            self.owners[at] = Some(owner);
        }
        self.domains = domains;
        has_moved
    }

    /// The number of each owner's domain.
    fn numbers(&self, present: &[Owner], of_slot: &[usize]) -> Vec<u16> {
        let mut numbers: Vec<Option<usize>> = present
            .iter()
            .map(|owner| self.owners.iter().position(|held| held.as_ref() == Some(owner)))
            .collect();
        for at in 0..present.len() {
            if numbers[at].is_some() || present[at] == Owner::Nobody {
                continue;
            }
            // A new server takes over the domain of a server that is gone, if most of its slots come from
            // there.
            let mut overlaps = vec![0_usize; self.owners.len()];
            for (slot, owner) in of_slot.iter().enumerate() {
                if *owner == at
                    && let Some(domain) = self.domains.get(slot)
                {
                    overlaps[usize::from(*domain)] += 1;
                }
            }
            let is_left = |domain: &usize| {
                let is_server = matches!(self.owners[*domain], Some(Owner::Server(_)));
                is_server && !numbers.contains(&Some(*domain)) && overlaps[*domain] > 0
            };
            numbers[at] = (0..self.owners.len()).filter(is_left).max_by_key(|domain| overlaps[*domain]);
        }
        let mut taken: Vec<usize> = numbers.iter().flatten().copied().collect();
        let numbers = numbers.into_iter().map(|number| {
            let number = number.unwrap_or_else(|| {
                let next = self.owners.len().max(taken.iter().max().map_or(0, |most| most + 1));
                let is_free = |domain: &usize| self.owners[*domain].is_none() && !taken.contains(domain);
                let number = if next < AREAS_MAX {
                    next
                } else {
                    (0..self.owners.len()).find(is_free).unwrap_or(next)
                };
                taken.push(number);
                number
            });
            u16::try_from(number).unwrap_or(u16::MAX)
        });
        numbers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u16, usize)]) -> Vec<Option<Server>> {
        let slots = ranges.iter().flat_map(|(port, count)| {
            let server = (*port != 0).then(|| Server::new("127.0.0.1", *port));
            std::iter::repeat_n(server, *count)
        });
        slots.collect()
    }

    fn owners(slots: &Slots) -> Vec<u16> {
        let port = |owner: &Option<Owner>| match owner {
            None => 1,
            Some(Owner::Nobody) => 0,
            Some(Owner::Server(server)) => server.port,
        };
        slots.owners().iter().map(port).collect()
    }

    #[test]
    fn a_replica_that_takes_over_has_the_same_domain() {
        let mut slots = Slots::default();
        assert_eq!(slots.domain(9_000), Domain::ONLY);
        assert!(!slots.update(&map(&[(10, 5_000), (20, 5_000), (30, 6_384)])));
        assert_eq!(owners(&slots), [10, 20, 30]);
        assert_eq!(slots.domain(9_000), Domain::new(1));
        assert!(!slots.update(&map(&[(10, 5_000), (21, 5_000), (30, 6_384)])), "no slot changed its domain");
        assert_eq!(owners(&slots), [10, 21, 30]);
    }

    #[test]
    fn slots_change_their_domain_when_they_go_to_another_primary() {
        let mut slots = Slots::default();
        slots.update(&map(&[(10, 8_000), (20, 8_384)]));
        assert!(slots.update(&map(&[(10, 7_999), (20, 8_385)])));
        assert_eq!(slots.domain(7_999), Domain::new(1));
        assert!(slots.update(&map(&[(10, 7_999), (20, 8_000), (30, 385)])), "a primary more");
        assert_eq!(owners(&slots), [10, 20, 30]);
        assert!(slots.update(&map(&[(20, 15_999), (30, 385)])), "one is emptied");
        assert_eq!(owners(&slots), [1, 20, 30]);
        assert!(slots.update(&map(&[(40, 7_999), (20, 8_000), (30, 385)])), "a number is not used again");
        assert_eq!(owners(&slots), [1, 20, 30, 40]);
    }

    #[test]
    fn slots_without_a_server_are_an_domain_of_their_own() {
        let mut slots = Slots::default();
        slots.update(&map(&[(10, 8_000), (0, 384), (20, 8_000)]));
        assert_eq!(owners(&slots), [10, 0, 20]);
        assert!(slots.update(&map(&[(10, 8_384), (20, 8_000)])));
        assert_eq!(owners(&slots), [10, 1, 20]);
        assert!(slots.update(&map(&[])));
        assert_eq!(owners(&slots), [1, 1, 1, 0]);
    }

    #[test]
    fn two_servers_that_replace_one_are_two_domains() {
        let mut slots = Slots::default();
        slots.update(&map(&[(10, 10_000), (20, 6_384)]));
        assert!(slots.update(&map(&[(30, 4_000), (40, 6_000), (20, 6_384)])));
        assert_eq!(owners(&slots), [30, 20, 40]);
    }
}
