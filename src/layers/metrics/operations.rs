//! From an operation's name to its figures, without a lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::series::Operation;

/// A hash table with open addressing whose entries are never removed. Looking up reads one slot or a few; a new name is
/// put into the first free slot on its way, and of two threads that want the same slot one finds the other's entry.
#[derive(Debug)]
pub(super) struct Operations {
    /// At least twice as many as there may be entries, so that there is always a free one to end a search.
    slots: Box<[OnceLock<Arc<Operation>>]>,
    len: AtomicUsize,
    max: usize,
    /// Calls whose name nothing has shown to be known.
    unknown: Arc<Operation>,
    /// Calls whose name came too late to have series of its own.
    other: Arc<Operation>,
}

impl Operations {
    pub(super) fn new(max: usize) -> Self {
        let slots = (2 * max).next_power_of_two();
        Self {
            slots: std::iter::repeat_with(OnceLock::new).take(slots).collect(),
            len: AtomicUsize::new(0),
            max,
            unknown: Arc::new(Operation::new("unknown")),
            other: Arc::new(Operation::new("other")),
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn unknown(&self) -> &Arc<Operation> {
        &self.unknown
    }

    /// The operation of this name, where it has series of its own.
    #[inline]
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Operation>> {
        let key = Key::of(name);
        if key.len > Key::WHOLE {
            return self.find_long(key, name);
        }
        self.probe(key, |_| true)
    }

    // Apart, so that the search for a short name calls nothing.
    #[inline(never)]
    fn find_long(&self, key: Key, name: &str) -> Option<&Arc<Operation>> {
        self.probe(key, |operation| *operation.name == *name)
    }

    #[inline]
    fn probe(&self, key: Key, is: impl Fn(&Operation) -> bool) -> Option<&Arc<Operation>> {
        let mut at = key.hash();
        loop {
            let operation = self.slots[at & (self.slots.len() - 1)].get()?;
            if operation.key == key && is(operation) {
                return Some(operation);
            }
            at = at.wrapping_add(1);
        }
    }

    /// The operation of this name, with series of its own if there is room for them.
    pub(super) fn find_or_insert(&self, name: &str) -> &Arc<Operation> {
        if let Some(found) = self.find(name) {
            return found;
        }
        let take = |len| (len < self.max).then_some(len + 1);
        if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return &self.other;
        }
        let mut at = Key::of(name).hash();
        loop {
            let slot = &self.slots[at & (self.slots.len() - 1)];
            let mut ours = false;
            let operation = slot.get_or_init(|| {
                ours = true;
                Arc::new(Operation::new(name))
            });
            if *operation.name == *name {
                if !ours {
                    // Another thread has just put it there; the room that was taken for it is not needed.
                    self.len.fetch_sub(1, Ordering::Relaxed);
                }
                return operation;
            }
            at = at.wrapping_add(1);
        }
    }

    /// Every operation that has been called or announced, and how many of its calls are in flight.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Operation, u64)> {
        self.slots.iter().filter_map(OnceLock::get).chain([&self.unknown, &self.other]).map(|operation| {
            // The table's own share is not a call.
            (&**operation, Arc::strong_count(operation) as u64 - 1)
        })
    }
}

/// A name in words: its first, middle and last eight bytes, which overlap where it is short, and its length. They are all
/// of a name of up to [`WHOLE`](Self::WHOLE) bytes, which is most, so that one is compared without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    first: u64,
    middle: u64,
    last: u64,
    len: usize,
}

impl Key {
    const WHOLE: usize = 24;

    #[inline]
    pub(super) fn of(name: &str) -> Self {
        let (name, len) = (name.as_bytes(), name.len());
        if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk())
            && let Some(middle) = name.get((len - size_of::<u64>()) / 2..).and_then(<[u8]>::first_chunk)
        {
            let [first, middle, last] = [first, middle, last].map(|bytes| u64::from_le_bytes(*bytes));
            return Self { first, middle, last, len };
        }
        let first = name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { first, middle: 0, last: 0, len }
    }

    /// It need be no better: the table has few names, the owner of the service chose them, and two that collide cost one
    /// comparison more.
    #[inline]
    fn hash(self) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.first ^ self.middle.rotate_left(23) ^ self.last.rotate_left(46) ^ self.len as u64;
        (mixed.wrapping_mul(ODD) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Operations;
    use std::sync::Arc;

    #[test]
    fn a_name_is_found_once_it_is_put_in_and_past_the_bound_it_is_other() {
        let operations = Operations::new(3);
        assert!(operations.find("a").is_none());
        for name in ["a", "b", "a rather longer name", "a"] {
            assert_eq!(&*operations.find_or_insert(name).name, name);
            assert!(operations.find(name).is_some());
        }
        assert_eq!(&*operations.find_or_insert("one too many").name, "other");
        assert!(operations.find("one too many").is_none());
    }

    #[test]
    fn names_that_differ_in_one_byte_are_not_taken_for_each_other() {
        for len in 0..40 {
            let name = "a".repeat(len);
            let others = (0..len).map(|at| format!("{}b{}", &name[..at], &name[at + 1..]));
            let operations = Operations::new(64);
            operations.find_or_insert(&name);
            for other in others.chain([format!("{name}a"), format!("\0{name}")]) {
                assert!(operations.find(&other).is_none(), "{other:?} was taken for {name:?}");
                assert_eq!(&*operations.find_or_insert(&other).name, other);
            }
            assert_eq!(&*operations.find(&name).unwrap().name, name);
        }
    }

    #[test]
    fn none_at_all_is_a_bound_too() {
        let operations = Operations::new(0);
        assert!(operations.find("").is_none());
        assert_eq!(&*operations.find_or_insert("a").name, "other");
    }

    #[test]
    fn threads_that_put_in_the_same_names_agree() {
        let operations = Operations::new(64);
        let names: Vec<String> = (0..64).map(|i| format!("kernel/{i}")).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| names.iter().for_each(|name| drop(Arc::clone(operations.find_or_insert(name)))));
            }
        });
        for name in &names {
            assert_eq!(&*operations.find(name).unwrap().name, name.as_str());
        }
        assert_eq!(operations.iter().count(), 64 + 2);
        assert!(operations.iter().all(|(_, in_flight)| in_flight == 0));
    }
}
