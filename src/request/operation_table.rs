//! What a layer keeps of each operation, found by the operation's name without a lock.
//!
//! Names come from clients, and what is put in stays, so a name must not take a place before the inner service has shown
//! that it knows it. What that takes is for the layer to say: an output does, and a rejection that may have been made
//! without a look at the name does not, nor one that says that there is no such operation (404, `UNIMPLEMENTED`), be it an
//! error or a response. Until then a layer keeps the name in the call itself.

use std::fmt;
use std::ops::Index;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::request::limits::MAX_NAME_BYTES;
use crate::sync::Mutex;

/// A hash table with open addressing. Looking up reads one slot or a few, without a lock; names are put in one at a time.
pub(crate) struct OperationTable<T> {
    /// At least twice as many as there may be entries, so that there is always a free one to end a search.
    slots: Box<[OnceLock<Box<Entry<T>>>]>,
    len: AtomicUsize,
    max: usize,
    inserting: Mutex<()>,
}

struct Entry<T> {
    key: Key,
    name: Box<str>,
    of: T,
}

/// As much of a name as a call keeps until it is known whether the name gets an entry: all of it, unless it is too long for
/// one, which the rest shows as well.
pub(crate) fn to_keep(name: &str) -> &str {
    if name.len() <= MAX_NAME_BYTES {
        return name;
    }
    let end = (MAX_NAME_BYTES + 1..name.len()).find(|&at| name.is_char_boundary(at));
    &name[..end.unwrap_or(name.len())]
}

/// Where an operation is found again, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationIndex(u32);

impl<T> OperationTable<T> {
    /// For `max` operations.
    pub(crate) fn new(max: usize) -> Self {
        // Of more slots than memory has room for the allocation fails before a place has no number.
        let slots = (2 * max).next_power_of_two();
        Self { slots: free(slots), len: AtomicUsize::new(0), max, inserting: Mutex::new(()) }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Whether there is no room for another.
    pub(crate) fn is_full(&self) -> bool {
        // Acquire: whoever sees that it is full also finds all that is in it.
        self.len.load(Ordering::Acquire) >= self.max
    }

    /// What is kept of the operation of this name.
    #[inline]
    pub(crate) fn find(&self, name: &str) -> Option<(OperationIndex, &T)> {
        let key = Key::of(name);
        if key.len > Key::WHOLE {
            return self.find_long(key, name);
        }
        self.probe(key, |_| true)
    }

    // Apart, so that the search for a short name calls nothing.
    #[inline(never)]
    fn find_long(&self, key: Key, name: &str) -> Option<(OperationIndex, &T)> {
        self.probe(key, |entry| *entry.name == *name)
    }

    #[inline]
    fn probe(&self, key: Key, is: impl Fn(&Entry<T>) -> bool) -> Option<(OperationIndex, &T)> {
        let mut at = key.hash();
        loop {
            at &= self.slots.len() - 1;
            let entry = self.slots[at].get()?;
            if entry.key == key && is(entry) {
                return Some((OperationIndex(at as u32), &entry.of));
            }
            at += 1;
        }
    }

    /// What is kept of the operation of this name, made now if there is room for it. Of a name that is longer than
    /// [`MAX_NAME_BYTES`] nothing is kept, as if there were no room.
    pub(crate) fn find_or_insert(&self, name: &str, make: impl FnOnce() -> T) -> Option<(OperationIndex, &T)> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
        // Without the lock: once the table is full, every call with a name that is not in it comes here.
        if self.is_full() {
            return self.find(name);
        }
        let _alone = self.inserting.lock();
        // Another thread may have just put it there.
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        if self.is_full() {
            return None;
        }
        self.put(Box::new(Entry { key: Key::of(name), name: name.into(), of: make() }));
        self.len.fetch_add(1, Ordering::Release);
        self.find(name)
    }

    /// Puts an entry, of a name that is not there, into the first free slot on its way.
    fn put(&self, mut entry: Box<Entry<T>>) {
        let mut at = entry.key.hash();
        while let Err(taken) = self.slots[at & (self.slots.len() - 1)].set(entry) {
            entry = taken;
            at += 1;
        }
    }

    /// All of them with their names, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.slots.iter().filter_map(OnceLock::get).map(|entry| (&*entry.name, &entry.of))
    }

    /// Forgets those that `keep` does not say are to be kept. Where the others are found changes: no [`OperationIndex`] of before holds.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let slots = free(self.slots.len());
        let kept = std::mem::replace(&mut self.slots, slots).into_iter().filter_map(OnceLock::into_inner);
        let mut len = 0;
        for entry in kept.filter(|entry| keep(&entry.of)) {
            self.put(entry);
            len += 1;
        }
        self.len = AtomicUsize::new(len);
    }
}

fn free<T>(slots: usize) -> Box<[OnceLock<Box<Entry<T>>>]> {
    std::iter::repeat_with(OnceLock::new).take(slots).collect()
}

/// # Panics
/// Where it is of another table, or of before this one has forgotten some.
impl<T> Index<OperationIndex> for OperationTable<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: OperationIndex) -> &T {
        &self.slots[at.0 as usize].get().expect("what was found is there").of
    }
}

impl<T: fmt::Debug> fmt::Debug for OperationTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A name in words: its first, middle and last eight bytes, which overlap where it is short, and its length. They are all
/// of a name of up to [`WHOLE`](Self::WHOLE) bytes, which is most, so that one is compared without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    first: u64,
    middle: u64,
    last: u64,
    len: usize,
}

impl Key {
    const WHOLE: usize = 24;

    #[inline]
    fn of(name: &str) -> Self {
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

    /// It need be no better: the table has few names, nearly all of them chosen by the owner of the service, and two that
    /// collide cost one comparison more.
    #[inline]
    fn hash(self) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.first ^ self.middle.rotate_left(23) ^ self.last.rotate_left(46) ^ self.len as u64;
        (mixed.wrapping_mul(ODD) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::OperationTable;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Puts in each name with itself.
    fn put<'a>(operations: &'a OperationTable<String>, name: &str) -> Option<&'a str> {
        operations.find_or_insert(name, || name.to_owned()).map(|(_, of)| of.as_str())
    }

    #[test]
    fn a_name_is_found_once_it_is_put_in_and_past_the_bound_it_is_not() {
        let operations = OperationTable::new(3);
        assert!(operations.find("a").is_none());
        for name in ["a", "b", "a rather longer name than those", "a"] {
            assert_eq!(put(&operations, name), Some(name));
            let (at, of) = operations.find(name).unwrap();
            assert_eq!((&*operations[at], &**of), (name, name));
        }
        assert!(operations.is_full());
        assert_eq!(put(&operations, "one too many"), None);
        assert!(operations.find("one too many").is_none());
    }

    #[test]
    fn names_that_differ_in_one_byte_are_not_taken_for_each_other() {
        for len in 0..40 {
            let name = "a".repeat(len);
            let others = (0..len).map(|at| format!("{}b{}", &name[..at], &name[at + 1..]));
            let operations = OperationTable::new(64);
            put(&operations, &name);
            for other in others.chain([format!("{name}a"), format!("\0{name}")]) {
                assert!(operations.find(&other).is_none(), "{other:?} was taken for {name:?}");
                assert_eq!(put(&operations, &other), Some(&*other));
            }
            assert_eq!(operations.find(&name).unwrap().1, &name);
        }
    }

    #[test]
    fn none_at_all_is_a_bound_too() {
        let operations = OperationTable::new(0);
        assert!(operations.find("").is_none());
        assert_eq!(put(&operations, "a"), None);
    }

    /// Up to the last name that there is room for, all at the same time.
    #[test]
    fn threads_that_put_in_the_same_names_agree() {
        for _ in 0..50 {
            let operations = OperationTable::new(64);
            let names: Vec<String> = (0..64).map(|i| format!("kernel/{i}")).collect();
            let at_once = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        at_once.wait();
                        for name in &names {
                            let (_, calls) = operations.find_or_insert(name, AtomicUsize::default).unwrap();
                            calls.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            let all: Vec<_> = operations.iter().map(|(_, calls)| calls.load(Ordering::Relaxed)).collect();
            assert_eq!(all, [4; 64]);
            assert!(operations.is_full());
        }
    }

    #[test]
    fn what_is_forgotten_makes_room_and_the_rest_is_found_as_before() {
        let mut operations = OperationTable::new(64);
        let names: Vec<String> = (0..64).map(|i| format!("a name of more than its words/{i}")).collect();
        names.iter().for_each(|name| assert!(put(&operations, name).is_some()));
        operations.retain(|name| !name.ends_with('7'));
        for name in &names {
            assert_eq!(operations.find(name).is_some(), !name.ends_with('7'));
        }
        let more = (0..).map(|i| format!("another/{i}")).take_while(|name| put(&operations, name).is_some()).count();
        assert_eq!(more, 6);
    }
}
