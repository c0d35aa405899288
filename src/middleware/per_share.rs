//! Times learned from the calls of each operation: one over all calls, and one for each of a bounded number of
//! [shares](crate::request::Share).
//!
//! Calls of one tenant can take a thousand times as long as another tenant's calls of the same operation, so what is
//! learned from one share must not decide about another.

use std::collections::VecDeque;

use crate::request::Share;
use crate::request::operation_table::{OperationIndex, OperationTable, insertable_name};
use crate::sync::Mutex;

/// A statistic of how long calls take. The default knows nothing.
pub(super) trait LearnedTime: Copy + Default {
    /// Learns from a call, in nanoseconds.
    fn observe(&mut self, nanos: u64);

    /// Lowers the value, after a call was rejected because of it: if it is too high, no call may come to correct it.
    fn decay(&mut self);
}

/// Operations with an entry of their own.
pub(super) const MAX_OPERATIONS: usize = 512;

/// What is learned of each operation, and of all calls.
#[derive(Debug)]
pub(super) struct OperationTimes<T> {
    operations: OperationTable<PerShare<T>>,
    overall: Mutex<T>,
}

/// The operation of a call.
#[derive(Debug)]
pub(super) enum Operation {
    /// Has an entry.
    Known(OperationIndex),
    /// Gets an entry once a call has succeeded, as names come from clients.
    New(Box<str>),
    /// Gets no entry, as there are too many.
    Unlisted,
}

impl<T: LearnedTime> OperationTimes<T> {
    pub(super) fn new() -> Self {
        Self { operations: OperationTable::new(MAX_OPERATIONS), overall: Mutex::default() }
    }

    pub(super) fn operation(&self, name: &str) -> Operation {
        match self.operations.find(name) {
            Some((index, _)) => Operation::Known(index),
            None if self.operations.is_full() => Operation::Unlisted,
            None => Operation::New(insertable_name(name).into()),
        }
    }

    /// Returns what is known of an operation. It may have got its entry since the call arrived.
    pub(super) fn get(&self, operation: &Operation) -> Option<&PerShare<T>> {
        match operation {
            Operation::Known(index) => Some(&self.operations[*index]),
            Operation::New(name) => self.operations.find(name).map(|(_, times)| times),
            Operation::Unlisted => None,
        }
    }

    /// Returns what is known of all calls.
    pub(super) fn overall(&self) -> T {
        *self.overall.lock()
    }

    /// Creates the entry of an operation if it is new.
    pub(super) fn insert(&self, operation: &Operation) {
        if let Operation::New(name) = operation {
            self.operations.find_or_insert(name, PerShare::default);
        }
    }

    /// Learns from a call, in nanoseconds.
    pub(super) fn observe(&self, operation: &Operation, share: Share, nanos: u64) {
        self.overall.lock().observe(nanos);
        if let Some(times) = self.get(operation) {
            times.observe(share, |time| time.observe(nanos));
        }
    }

    /// Lowers what calls like one that was rejected are expected to take.
    pub(super) fn decay(&self, operation: &Operation, share: Share) {
        match self.get(operation) {
            Some(times) => times.update(share, T::decay),
            None => self.overall.lock().decay(),
        }
    }
}

/// Shares with an entry of their own. A further share replaces the oldest one.
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
