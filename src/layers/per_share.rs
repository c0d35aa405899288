//! What is learned of the calls of an operation, for all of them and for some shares apart.
//!
//! The calls of one tenant can take a thousand times as long as those of another, of the same operation. What is learned
//! from the one must not decide about the other.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::service::Share;

/// How many shares have a value of their own. Of two that fall on the same place the one that was called last has it.
const PLACES: usize = 16;

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
}

#[derive(Debug, Default)]
struct Own<T> {
    /// Of the share; zero, which is the common one's, where there is none.
    key: AtomicU64,
    value: T,
}

impl<T: Forget> PerShare<T> {
    /// The value of a share, if it has one of its own; that of all for the common share.
    #[inline]
    pub(super) fn get(&self, share: Share) -> Option<&T> {
        if share.is_common() {
            return Some(&self.all);
        }
        let own = self.place(share);
        (own.key.load(Ordering::Relaxed) == u64::from(share.key())).then_some(&own.value)
    }

    /// The value of a share, which it has from now on. `None` for the common share, whose value is that of all.
    ///
    /// Of two threads that take one place at the same time, one may add to what the other has just forgotten, which a value
    /// that is learned on and on can do without.
    #[inline]
    pub(super) fn get_or_take(&self, share: Share) -> Option<&T> {
        if share.is_common() {
            return None;
        }
        let own = self.place(share);
        if own.key.swap(u64::from(share.key()), Ordering::Relaxed) != u64::from(share.key()) {
            own.value.forget();
        }
        Some(&own.value)
    }

    fn place(&self, share: Share) -> &Own<T> {
        // The keys are hashes, or few.
        &self.own[share.key() as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    impl Forget for AtomicU64 {
        fn forget(&self) {
            self.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_share_has_its_own_value_until_another_takes_its_place() {
        let values = PerShare::<AtomicU64>::default();
        let share = |key| Share::new(key, NonZeroU16::MIN);
        assert!(values.get(share(5)).is_none() && values.get_or_take(Share::COMMON).is_none());
        values.get_or_take(share(5)).unwrap().store(7, Ordering::Relaxed);
        values.get_or_take(share(6)).unwrap().store(8, Ordering::Relaxed);
        assert_eq!(values.get(share(5)).unwrap().load(Ordering::Relaxed), 7);
        assert!(values.get(share(5 + PLACES as u32)).is_none());
        assert_eq!(values.get_or_take(share(5 + PLACES as u32)).unwrap().load(Ordering::Relaxed), 0);
        assert!(values.get(share(5)).is_none());
        assert_eq!(values.get(share(6)).unwrap().load(Ordering::Relaxed), 8);
        assert_eq!(values.get(Share::COMMON).unwrap().load(Ordering::Relaxed), 0);
    }
}
