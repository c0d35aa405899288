//! A table of values by operation, for layers that keep state for each operation.
//!
//! Operation names come from clients and entries are never removed. So a layer must insert a name only after the inner
//! service has shown that it knows the operation. A response shows that. A rejection does not if it may have been made
//! without checking the name, or if it says that the operation does not exist (404, `UNIMPLEMENTED`). Until then the
//! layer keeps the name in the call.

use std::collections::HashMap;
use std::fmt;
use std::ops::Index;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use foldhash::fast::RandomState;

use crate::request::limits::MAX_NAME_BYTES;

/// Values by operation, up to a maximum number.
pub(crate) struct OperationTable<T> {
    indices: RwLock<HashMap<Arc<str>, OperationIndex, RandomState>>,
    /// In the order of their insertion.
    entries: Box<[OnceLock<Box<Entry<T>>>]>,
}

struct Entry<T> {
    name: Arc<str>,
    value: T,
}

/// The index of an operation in its [`OperationTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationIndex(usize);

/// Truncates a name to what [`OperationTable::find_or_insert`] needs: the whole name, or one byte more than an entry
/// may have.
pub(crate) fn insertable_name(name: &str) -> &str {
    if name.len() <= MAX_NAME_BYTES {
        return name;
    }
    let end = (MAX_NAME_BYTES + 1..name.len()).find(|&at| name.is_char_boundary(at));
    &name[..end.unwrap_or(name.len())]
}

impl<T> OperationTable<T> {
    /// Creates a table for up to `max` operations.
    pub(crate) fn new(max: usize) -> Self {
        let entries = std::iter::repeat_with(OnceLock::new).take(max).collect();
        Self { indices: RwLock::default(), entries }
    }

    pub(crate) fn max(&self) -> usize {
        self.entries.len()
    }

    /// Whether no more operations can be inserted.
    pub(crate) fn is_full(&self) -> bool {
        self.indices().len() >= self.entries.len()
    }

    /// Returns the value of an operation.
    pub(crate) fn find(&self, name: &str) -> Option<(OperationIndex, &T)> {
        let index = *self.indices().get(name)?;
        Some((index, &self[index]))
    }

    /// Returns the value of an operation, which is created unless the table is full. Names longer than
    /// [`MAX_NAME_BYTES`] are not inserted.
    pub(crate) fn find_or_insert(&self, name: &str, create: impl FnOnce() -> T) -> Option<(OperationIndex, &T)> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
        if self.is_full() {
            // Another thread may have inserted it as the last entry.
            return self.find(name);
        }
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indices.get(name) {
            // Another thread has inserted it.
            return Some((*index, &self[*index]));
        }
        let index = OperationIndex(indices.len());
        let name: Arc<str> = name.into();
        let entry = self.entries.get(index.0)?.get_or_init(|| Box::new(Entry { name: name.clone(), value: create() }));
        indices.insert(name, index);
        Some((index, &entry.value))
    }

    fn indices(&self) -> RwLockReadGuard<'_, HashMap<Arc<str>, OperationIndex, RandomState>> {
        self.indices.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Iterates over the operations with their values, in the order of their insertion.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.entries.iter().map_while(OnceLock::get).map(|entry| (&*entry.name, &entry.value))
    }
}

/// # Panics
/// Panics if the index belongs to another table.
impl<T> Index<OperationIndex> for OperationTable<T> {
    type Output = T;

    fn index(&self, index: OperationIndex) -> &T {
        &self.entries[index.0].get().expect("an index refers to an entry").value
    }
}

impl<T: fmt::Debug> fmt::Debug for OperationTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::OperationTable;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Inserts a name with itself as the value.
    fn insert<'a>(operations: &'a OperationTable<String>, name: &str) -> Option<&'a str> {
        operations.find_or_insert(name, || name.to_owned()).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_name_is_found_once_it_is_inserted_and_none_is_inserted_past_the_maximum() {
        let operations = OperationTable::new(3);
        assert!(operations.find("a").is_none());
        for name in ["a", "b", "a rather longer name than those", "a"] {
            assert_eq!(insert(&operations, name), Some(name));
            let (index, value) = operations.find(name).unwrap();
            assert_eq!((&*operations[index], &**value), (name, name));
        }
        assert!(operations.is_full());
        assert_eq!(insert(&operations, "one too many"), None);
        assert!(operations.find("one too many").is_none());
    }

    #[test]
    fn names_that_differ_in_one_byte_are_different_operations() {
        for len in 0..40 {
            let name = "a".repeat(len);
            let others = (0..len).map(|at| format!("{}b{}", &name[..at], &name[at + 1..]));
            let operations = OperationTable::new(64);
            insert(&operations, &name);
            for other in others.chain([format!("{name}a"), format!("\0{name}")]) {
                assert!(operations.find(&other).is_none(), "{other:?} was found as {name:?}");
                assert_eq!(insert(&operations, &other), Some(&*other));
            }
            assert_eq!(operations.find(&name).unwrap().1, &name);
        }
    }

    #[test]
    fn the_maximum_can_be_zero() {
        let operations = OperationTable::new(0);
        assert!(operations.find("").is_none());
        assert_eq!(insert(&operations, "a"), None);
    }

    /// The names fill the table.
    #[test]
    fn threads_that_insert_the_same_names_agree() {
        for _ in 0..50 {
            let operations = OperationTable::new(64);
            let names: Vec<String> = (0..64).map(|i| format!("kernel/{i}")).collect();
            let start = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
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
}
