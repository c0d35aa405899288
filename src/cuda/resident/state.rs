//! [`State`]: what a [cache](super::cache::Cache) knows of its copies, and the choice of those that are evicted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// The copies on a device, and which of them may be evicted.
pub(super) struct State<M> {
    pub(super) entries: HashMap<u64, Entry<M>>,
    /// Groups whose copies are not evicted for other copies.
    pub(super) pinned: HashSet<u64>,
    /// Copies of arrays that are no longer registered, with their sizes.
    pub(super) retired: Vec<(M, u64)>,
    /// Bytes of all copies.
    pub(super) bytes: u64,
    /// Counts the uses of copies.
    pub(super) clock: u64,
}

/// A copy that there is or that is being made.
pub(super) struct Entry<M> {
    /// `None` while the copy is being made.
    pub(super) memory: Option<M>,
    pub(super) bytes: u64,
    /// Runs that use the copy or make it.
    pub(super) users: usize,
    /// The clock at the last use.
    pub(super) last_use: u64,
    /// Whether its arrays are no longer registered.
    pub(super) retired: bool,
}

/// What copies are evicted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The memory of another copy, for which pinned copies stay.
    Copy,
    /// The memory of a run, which would wait for as long as pinned copies stay.
    Run,
}

impl<M> State<M> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::new(), pinned: HashSet::new(), retired: Vec::new(), bytes: 0, clock: 0 }
    }

    /// Returns the copies that can be evicted.
    fn idle(&self, need: Need) -> impl Iterator<Item = (u64, &Entry<M>)> {
        let idle = self.entries.iter().filter(|(_, entry)| entry.users == 0);
        idle.filter(move |(id, _)| need == Need::Run || !self.pinned.contains(id)).map(|(id, entry)| (*id, entry))
    }

    pub(super) fn bytes_of_idle(&self, need: Need) -> u64 {
        self.idle(need).map(|(_, entry)| entry.bytes).chain(self.retired.iter().map(|(_, bytes)| *bytes)).sum()
    }

    /// Takes out copies that no run uses until they have `bytes` together: those of unregistered arrays, then the least
    /// recently used, and pinned ones last.
    pub(super) fn take_idle(&mut self, bytes: u64, need: Need, evictions: &AtomicU64) -> Vec<M> {
        let mut taken = Vec::new();
        let mut freed = 0;
        while freed < bytes {
            if let Some((memory, bytes)) = self.retired.pop() {
                freed += bytes;
                taken.push(memory);
                continue;
            }
            let order = |(id, entry): &(u64, &Entry<M>)| (self.pinned.contains(id), entry.last_use);
            let Some((id, _)) = self.idle(need).min_by_key(order) else { break };
            if let Some(Entry { memory, bytes, .. }) = self.entries.remove(&id) {
                freed += bytes;
                taken.extend(memory);
                evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.bytes -= freed;
        taken
    }

    /// Moves a copy that no run uses, and whose arrays are not registered, to the list of those.
    pub(super) fn retire_idle(&mut self, id: u64) -> bool {
        let is_idle = self.entries.get(&id).is_some_and(|entry| entry.retired && entry.users == 0);
        if let Some(Entry { memory: Some(memory), bytes, .. }) = is_idle.then(|| self.entries.remove(&id)).flatten() {
            self.retired.push((memory, bytes));
        }
        is_idle
    }
}
