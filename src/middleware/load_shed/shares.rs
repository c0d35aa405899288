//! What each share has been let in with, and what of it is served before a call under fair queueing.

use std::collections::HashMap;

use crate::request::Share;
use crate::sync::Mutex;

/// The shares with calls in flight, but for the common one, whose calls are the rest.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<u32, InFlight>>);

#[derive(Debug)]
struct InFlight {
    weight: u64,
    calls: usize,
    /// Nanoseconds of estimates, by priority.
    backlog: [u64; 3],
}

impl Shares {
    pub(super) fn enter(&self, share: Share, priority: usize, estimate: u64) {
        let mut shares = self.0.lock();
        let weight = share.weight().get().into();
        let own = shares.entry(share.key()).or_insert(InFlight { weight, calls: 0, backlog: [0; 3] });
        own.weight = weight;
        own.calls += 1;
        own.backlog[priority] += estimate;
    }

    pub(super) fn leave(&self, share: u32, priority: usize, estimate: u64) {
        let mut shares = self.0.lock();
        let Some(own) = shares.get_mut(&share) else { return };
        own.calls -= 1;
        own.backlog[priority] -= estimate;
        if own.calls == 0 {
            shares.remove(&share);
        }
    }

    /// Nanoseconds of estimates that are served before a call of this share and priority: what the share has itself that is as
    /// urgent, and of each other what it is served meanwhile, which is as much for its weight, or all that it has.
    pub(super) fn before(&self, share: Share, priority: usize, all: &[u64; 3]) -> u64 {
        let shares = self.0.lock();
        let sum = |backlog: &[u64]| backlog.iter().fold(0_u64, |sum, one| sum.saturating_add(*one));
        // What is in flight changes while it is looked at: the parts may be more than the whole.
        let mut rest = *all;
        for other in shares.values() {
            rest.iter_mut().zip(other.backlog).for_each(|(rest, other)| *rest = rest.saturating_sub(other));
        }
        let own = match shares.get(&share.key()) {
            Some(own) => sum(&own.backlog[priority..]),
            None if share.is_common() => sum(&rest[priority..]),
            None => 0,
        };
        let weight = u64::from(share.weight().get());
        let meanwhile = |backlog: u64, other: u64| backlog.min((own / weight).saturating_mul(other));
        let common = if share.is_common() { 0 } else { meanwhile(sum(&rest), 1) };
        let others = shares.iter().filter(|(key, _)| **key != share.key());
        others.fold(own.saturating_add(common), |before, (_, other)| {
            before.saturating_add(meanwhile(sum(&other.backlog), other.weight))
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
        let shares = Shares::default();
        let [flood, light, heavy] = [share(1, 1), share(2, 1), share(3, 3)];
        for _ in 0..100 {
            shares.enter(flood, 1, 10);
            shares.enter(heavy, 2, 10);
        }
        shares.enter(light, 1, 20);
        // 50 of those that have no share of their own.
        let all = [50, 1000 + 20, 1000];
        assert_eq!(shares.before(light, 1, &all), 20 + 20 + 60 + 20);
        assert_eq!(shares.before(light, 2, &all), 0, "nothing as urgent of its own");
        assert_eq!(shares.before(share(4, 1), 0, &all), 0, "who comes is next");
        assert_eq!(shares.before(flood, 0, &all), 1000 + 20 + 1000 + 50);
        assert_eq!(shares.before(heavy, 0, &all), 1000 + 333 + 20 + 50);
        assert_eq!(shares.before(Share::COMMON, 0, &all), 50 + 50 + 20 + 150);
        for _ in 0..100 {
            shares.leave(1, 1, 10);
            shares.leave(3, 2, 10);
        }
        shares.leave(2, 1, 20);
        assert!(shares.0.lock().is_empty());
    }
}
