//! What is learned of the calls of an operation, for all of them and for some shares apart.
//!
//! The calls of one tenant can take a thousand times as long as those of another, of the same operation. What is learned
//! from the one must not decide about the other.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::request::Share;

/// How many shares have a value of their own. Past it, one that comes takes the place of the one that came the longest ago.
const PLACES: usize = 32;

/// What can be forgotten.
pub(super) trait Forget {
    /// Back to where nothing is known.
    fn forget(&self);
}

/// A value for all shares, and one for each of some.
#[derive(Debug, Default)]
pub(super) struct PerShare<T> {
    /// Of all calls, whatever their share.
    pub(super) all: T,
    own: [Own<T>; PLACES],
    /// The place that is taken next.
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Own<T> {
    /// Of the share; zero, which is the common one's, where there is none.
    key: AtomicU32,
    value: T,
}

impl<T: Forget> PerShare<T> {
    /// The value of a share, if it has one of its own; that of all for the common share.
    #[inline]
    pub(super) fn get(&self, share: Share) -> Option<&T> {
        if share.is_common() {
            return Some(&self.all);
        }
        self.find(share)
    }

    /// The value of a share, which it has from now on. `None` for the common share, whose value is that of all.
    ///
    /// Of two threads that do this at the same time one may lose what it adds, which a value that is learned on and on can do
    /// without.
    #[inline]
    pub(super) fn get_or_take(&self, share: Share) -> Option<&T> {
        if share.is_common() {
            return None;
        }
        self.find(share).or_else(|| Some(self.take(share)))
    }

    fn find(&self, share: Share) -> Option<&T> {
        self.own.iter().find(|own| own.key.load(Ordering::Relaxed) == share.key()).map(|own| &own.value)
    }

    #[cold]
    fn take(&self, share: Share) -> &T {
        let own = &self.own[self.next.fetch_add(1, Ordering::Relaxed) % PLACES];
        own.value.forget();
        own.key.store(share.key(), Ordering::Relaxed);
        &own.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;
    use std::sync::atomic::AtomicU64;

    impl Forget for AtomicU64 {
        fn forget(&self) {
            self.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn shares_have_their_own_values_and_the_first_to_come_goes_where_there_are_too_many() {
        let values = PerShare::<AtomicU64>::default();
        let share = |key| Share::new(key, NonZeroU16::MIN);
        assert!(values.get(share(5)).is_none() && values.get_or_take(Share::COMMON).is_none());
        let keys = 1..=PLACES as u32;
        for key in keys.clone() {
            values.get_or_take(share(key * 1000)).unwrap().store(key.into(), Ordering::Relaxed);
        }
        for key in keys {
            assert_eq!(values.get(share(key * 1000)).unwrap().load(Ordering::Relaxed), u64::from(key));
        }
        assert_eq!(values.get_or_take(share(7)).unwrap().load(Ordering::Relaxed), 0);
        assert!(values.get(share(1000)).is_none());
        assert_eq!(values.get(share(2000)).unwrap().load(Ordering::Relaxed), 2);
        assert_eq!(values.get(Share::COMMON).unwrap().load(Ordering::Relaxed), 0);
    }
}
