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
        let mut at = hash(name);
        loop {
            let operation = self.slots[at & (self.slots.len() - 1)].get()?;
            if *operation.name == *name {
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
        let mut at = hash(name);
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

/// Of the length, and of up to 24 bytes: the first, the middle and the last eight. It need be no better: the table has few
/// names, the owner of the service chose them, and two that collide cost one comparison more.
#[inline]
fn hash(name: &str) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let name = name.as_bytes();
    let mixed = match (name.first_chunk(), name[name.len() / 2..].first_chunk(), name.last_chunk()) {
        (Some(first), Some(middle), Some(last)) => {
            let [first, middle, last] = [first, middle, last].map(|bytes| u64::from_le_bytes(*bytes));
            first ^ middle.rotate_left(23) ^ last.rotate_left(46)
        }
        _ => name.iter().fold(0, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)),
    };
    let product = (mixed ^ name.len() as u64).wrapping_mul(ODD);
    (product >> 32) as usize
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
