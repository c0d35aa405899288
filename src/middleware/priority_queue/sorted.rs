//! A set in order that allocates nothing while it is small, which most of a queue's sets are most of the time: a tree gives
//! its first node back when it becomes empty, and takes a new one for the next that comes.

use std::collections::BTreeSet;
use std::mem;

/// From here on it is a tree.
const MANY: usize = 32;
/// From here down it is none any more.
const FEW: usize = 8;

/// A [`BTreeSet`], and a sorted list while it is small.
#[derive(Debug)]
pub(super) enum Sorted<T> {
    Few(Vec<T>),
    Many(BTreeSet<T>),
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T: Ord> Sorted<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(tree) => tree.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn first(&self) -> Option<&T> {
        match self {
            Self::Few(list) => list.first(),
            Self::Many(tree) => tree.first(),
        }
    }

    pub(super) fn last(&self) -> Option<&T> {
        match self {
            Self::Few(list) => list.last(),
            Self::Many(tree) => tree.last(),
        }
    }

    pub(super) fn insert(&mut self, value: T) {
        match self {
            Self::Few(list) => {
                if let Err(at) = list.binary_search(&value) {
                    list.insert(at, value);
                }
                if list.len() > MANY {
                    *self = Self::Many(mem::take(list).into_iter().collect());
                }
            }
            Self::Many(tree) => {
                tree.insert(value);
            }
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, value: &T) -> bool {
        let removed = match self {
            Self::Few(list) => list.binary_search(value).map(|at| list.remove(at)).is_ok(),
            Self::Many(tree) => tree.remove(value),
        };
        self.shrink();
        removed
    }

    pub(super) fn pop_first(&mut self) -> Option<T> {
        let first = match self {
            Self::Few(list) if list.is_empty() => None,
            Self::Few(list) => Some(list.remove(0)),
            Self::Many(tree) => tree.pop_first(),
        };
        self.shrink();
        first
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Few(list) => list.clear(),
            Self::Many(_) => *self = Self::default(),
        }
    }

    fn shrink(&mut self) {
        if let Self::Many(tree) = self
            && tree.len() < FEW
        {
            *self = Self::Few(mem::take(tree).into_iter().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set_in_order_at_any_size(steps in proptest::collection::vec((0..4_u8, 0..100_u32), 1..400)) {
            let (mut sorted, mut model) = (Sorted::default(), BTreeSet::new());
            for (step, value) in steps {
                match step {
                    0 | 1 => {
                        sorted.insert(value);
                        model.insert(value);
                    }
                    2 => prop_assert_eq!(sorted.remove(&value), model.remove(&value)),
                    _ => prop_assert_eq!(sorted.pop_first(), model.pop_first()),
                }
                prop_assert_eq!((sorted.first(), sorted.last(), sorted.len()), (model.first(), model.last(), model.len()));
                prop_assert_eq!(sorted.is_empty(), model.is_empty());
            }
            sorted.clear();
            prop_assert_eq!(sorted.first(), None);
        }
    }
}
