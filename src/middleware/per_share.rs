//! A value learned for each operation: one over all calls, and one for each of a bounded number of
//! [shares](crate::request::Share).
//!
//! Calls of one tenant can take a thousand times as long as another tenant's calls of the same operation, so what is
//! learned from one share must not decide about another.

use std::collections::VecDeque;

use crate::request::Share;
use crate::sync::Mutex;

/// Shares with a value of their own. A further share replaces the oldest one.
const MAX_SHARES: usize = 32;

/// A value over all shares, and one each for the last [`MAX_SHARES`] shares.
#[derive(Debug, Default)]
pub(super) struct PerShare<T>(Mutex<Values<T>>);

#[derive(Debug, Default)]
struct Values<T> {
    overall: T,
    /// By the key of the share, the oldest first.
    shares: VecDeque<(u32, T)>,
}

impl<T: Copy + Default> PerShare<T> {
    /// Returns the value over all shares.
    pub(super) fn overall(&self) -> T {
        self.0.lock().overall
    }

    /// Returns the value of `share` if it has one. The common share has the overall value.
    pub(super) fn get(&self, share: Share) -> Option<T> {
        self.0.lock().of(share).copied()
    }

    /// Changes the value of `share` if it has one.
    pub(super) fn update(&self, share: Share, change: impl FnOnce(&mut T)) {
        if let Some(value) = self.0.lock().of(share) {
            change(value);
        }
    }

    /// Changes the overall value, and that of `share`, which is created if there is none.
    pub(super) fn observe(&self, share: Share, change: impl Fn(&mut T)) {
        let mut values = self.0.lock();
        change(&mut values.overall);
        if share.is_common() {
            return;
        }
        if values.of(share).is_none() {
            if values.shares.len() == MAX_SHARES {
                values.shares.pop_front();
            }
            values.shares.push_back((share.key(), T::default()));
        }
        if let Some(value) = values.of(share) {
            change(value);
        }
    }
}

impl<T> Values<T> {
    fn of(&mut self, share: Share) -> Option<&mut T> {
        if share.is_common() {
            return Some(&mut self.overall);
        }
        self.shares.iter_mut().find(|(key, _)| *key == share.key()).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    #[test]
    fn shares_have_their_own_values_and_the_oldest_is_replaced() {
        let values = PerShare::<u32>::default();
        let share = |key| Share::new(key, NonZeroU16::MIN);
        let set = |share, to| values.observe(share, |value| *value = to);
        assert_eq!((values.get(share(5)), values.get(Share::COMMON)), (None, Some(0)));
        let keys = 1..=MAX_SHARES as u32;
        keys.clone().for_each(|key| set(share(key * 1000), key));
        for key in keys {
            assert_eq!(values.get(share(key * 1000)), Some(key));
        }
        set(share(7), 70);
        assert_eq!((values.get(share(7)), values.get(share(1000)), values.get(share(2000))), (Some(70), None, Some(2)));
        assert_eq!((values.get(Share::COMMON), values.overall()), (Some(70), 70));
        set(Share::COMMON, 80);
        values.update(share(1000), |value| *value = 90);
        assert_eq!((values.overall(), values.get(share(7)), values.get(share(1000))), (80, Some(70), None));
    }
}
