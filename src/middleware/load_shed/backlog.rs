//! The work of the calls in flight, and how much of it is served before a further call.

use std::collections::HashMap;

use crate::request::{Priority, Share};

/// Estimated work of the calls in flight, in nanoseconds, by priority.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    by_priority: [u64; 3],
    /// The part of it that is of assigned shares, by their key.
    shares: HashMap<u32, ShareBacklog>,
}

#[derive(Debug)]
struct ShareBacklog {
    weight: u64,
    calls: usize,
    by_priority: [u64; 3],
}

fn sum(work: &[u64]) -> u64 {
    work.iter().fold(0, |sum, work| sum.saturating_add(*work))
}

impl Backlog {
    pub(super) fn add(&mut self, share: Option<Share>, priority: Priority, estimate: u64) {
        self.by_priority[priority as usize] += estimate;
        if let Some(share) = share {
            let weight = share.weight().get().into();
            let own = self.shares.entry(share.key()).or_insert(ShareBacklog { weight, calls: 0, by_priority: [0; 3] });
            own.weight = weight;
            own.calls += 1;
            own.by_priority[priority as usize] += estimate;
        }
    }

    /// Removes a call; `share` is the key of the share that it was added with.
    pub(super) fn remove(&mut self, share: Option<u32>, priority: Priority, estimate: u64) {
        self.by_priority[priority as usize] -= estimate;
        if let Some(key) = share
            && let Some(own) = self.shares.get_mut(&key)
        {
            own.calls -= 1;
            own.by_priority[priority as usize] -= estimate;
            if own.calls == 0 {
                self.shares.remove(&key);
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.at_or_above(Priority::Low)
    }

    /// The work of `priority` and above.
    pub(super) fn at_or_above(&self, priority: Priority) -> u64 {
        sum(&self.by_priority[priority as usize..])
    }

    /// The work that fair queueing serves before a call of this share and priority: what its own share has of this priority
    /// and above, and what each other share is served meanwhile, which is as much for its weight, or all that it has.
    pub(super) fn before(&self, share: Share, priority: Priority) -> u64 {
        let mut common = self.by_priority;
        for other in self.shares.values() {
            common.iter_mut().zip(other.by_priority).for_each(|(common, other)| *common -= other);
        }
        let own = match self.shares.get(&share.key()) {
            Some(own) => sum(&own.by_priority[priority as usize..]),
            None if share.is_common() => sum(&common[priority as usize..]),
            None => 0,
        };
        let per_weight = own / u64::from(share.weight().get());
        let meanwhile = |work: u64, weight: u64| work.min(per_weight.saturating_mul(weight));
        let common = if share.is_common() { 0 } else { meanwhile(sum(&common), 1) };
        let others = self.shares.iter().filter(|(key, _)| **key != share.key());
        others.fold(own.saturating_add(common), |before, (_, other)| {
            before.saturating_add(meanwhile(sum(&other.by_priority), other.weight))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    fn share(key: u32, weight: u16) -> Share {
        Share::new(key, NonZeroU16::new(weight).unwrap())
    }

    #[test]
    fn before_a_call_is_what_its_share_has_and_what_the_others_are_served_meanwhile() {
        let mut backlog = Backlog::default();
        let [flood, light, heavy] = [share(1, 1), share(2, 1), share(3, 3)];
        for _ in 0..100 {
            backlog.add(Some(flood), Priority::Normal, 10);
            backlog.add(Some(heavy), Priority::High, 10);
        }
        backlog.add(Some(light), Priority::Normal, 20);
        backlog.add(None, Priority::Low, 50);
        assert_eq!(backlog.before(light, Priority::Normal), 20 + 20 + 60 + 20);
        assert_eq!(backlog.before(light, Priority::High), 0, "nothing as urgent of its own");
        assert_eq!(backlog.before(share(4, 1), Priority::Low), 0, "a new share is next");
        assert_eq!(backlog.before(flood, Priority::Low), 1000 + 20 + 1000 + 50);
        assert_eq!(backlog.before(heavy, Priority::Low), 1000 + 333 + 20 + 50);
        assert_eq!(backlog.before(Share::COMMON, Priority::Low), 50 + 50 + 20 + 150);
        assert_eq!((backlog.total(), backlog.at_or_above(Priority::Normal)), (2070, 2020));
        for _ in 0..100 {
            backlog.remove(Some(1), Priority::Normal, 10);
            backlog.remove(Some(3), Priority::High, 10);
        }
        backlog.remove(Some(2), Priority::Normal, 20);
        backlog.remove(None, Priority::Low, 50);
        assert!(backlog.shares.is_empty());
        assert_eq!(backlog.total(), 0);
    }
}
