//! [`HostArrays`]: host memory of which devices may keep copies, found by address.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::for_each_device;

/// The owner of arrays that neither move nor change while it lives.
pub(crate) trait ArraySource: Send + Sync {
    /// Returns the arrays, always the same and in the same order.
    fn arrays(&self) -> Vec<&[u8]>;
}

/// Arrays shorter than this have no copies: they are uploaded together with other small arrays of a launch, which costs
/// less than an allocation of 2 MiB for the time between two runs is worth.
const MIN_ARRAY: usize = 4 << 10;
/// The size up to which arrays share an allocation: the granularity of memory that can be shared between processes.
const GROUP: usize = 2 << 20;
/// The alignment of arrays in a copy, which is that of all device buffers.
const ALIGNMENT: usize = 256;

/// Registers arrays until it is dropped. The copies on devices are freed then, each once no run uses it.
///
/// It holds the owner of the arrays, so that no other memory gets their addresses meanwhile.
pub(crate) struct HostArrays {
    groups: Vec<Arc<HostGroup>>,
}

/// Arrays that are copied together, into one allocation.
pub(crate) struct HostGroup {
    id: u64,
    source: Arc<dyn ArraySource>,
    arrays: Vec<HostArray>,
    bytes: usize,
    registered: AtomicBool,
}

struct HostArray {
    /// The position in the source's list.
    index: usize,
    /// The addresses.
    range: Range<usize>,
    /// Where the array begins in a copy of its group.
    offset: usize,
}

/// The registered arrays, by address. The number of the group distinguishes arrays that share memory.
static ARRAYS: RwLock<BTreeMap<(usize, u64), Registered>> = RwLock::new(BTreeMap::new());

#[derive(Clone)]
struct Registered {
    end: usize,
    offset: usize,
    group: Arc<HostGroup>,
}

impl HostArrays {
    /// Registers the arrays of `source` that are large enough.
    pub(crate) fn register(source: Arc<dyn ArraySource>) -> Self {
        let groups: Vec<_> = groups_of(&source).into_iter().map(Arc::new).collect();
        let mut registered = ARRAYS.write().unwrap_or_else(PoisonError::into_inner);
        for group in &groups {
            for HostArray { range, offset, .. } in &group.arrays {
                let value = Registered { end: range.end, offset: *offset, group: Arc::clone(group) };
                registered.insert((range.start, group.id), value);
            }
        }
        drop(registered);
        Self { groups }
    }

    /// Returns the groups of arrays that are copied together; none if all arrays are small.
    pub(crate) fn groups(&self) -> &[Arc<HostGroup>] {
        &self.groups
    }

    /// Returns the ordinals of the devices that have copies of all arrays.
    pub(crate) fn devices(&self) -> Vec<u32> {
        let mut devices = Vec::new();
        for_each_device(|ordinal, copies| {
            let all = self.groups.iter().all(|group| copies.contains(group.id));
            if all && !self.groups.is_empty() && !devices.contains(&ordinal) {
                devices.push(ordinal);
            }
        });
        devices.sort_unstable();
        devices
    }
}

impl Drop for HostArrays {
    fn drop(&mut self) {
        let mut registered = ARRAYS.write().unwrap_or_else(PoisonError::into_inner);
        let mut removed = Vec::new();
        for group in &self.groups {
            removed.extend(group.arrays.iter().map(|array| registered.remove(&(array.range.start, group.id))));
        }
        drop(registered);
        for group in &self.groups {
            // First, so that a run which has found the group before makes no copy after this.
            group.registered.store(false, Ordering::SeqCst);
            for_each_device(|_, copies| copies.retire(group.id));
        }
    }
}

impl HostGroup {
    /// Returns a number that no other group has in this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the size of a copy.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::SeqCst)
    }

    /// Returns each array with its offset in a copy; `None` if the source returns other arrays than it did before.
    pub(super) fn arrays(&self) -> Option<Vec<(usize, &[u8])>> {
        let all = self.source.arrays();
        let array = |HostArray { index, range, offset }: &HostArray| {
            let bytes = *all.get(*index)?;
            (addresses(bytes) == *range).then_some((*offset, bytes))
        };
        self.arrays.iter().map(array).collect()
    }
}

/// Finds the registered array that `bytes` lie in. Returns its group and where the bytes begin in a copy of that.
///
/// A part of an array that does not begin at a multiple of 256 bytes is not found: kernels may read device buffers in
/// vectors, so a part must be aligned as a buffer of its own would be. Neither is a short array, nor one that begins before
/// others which share its memory.
pub(super) fn find(bytes: &[u8]) -> Option<(Arc<HostGroup>, usize)> {
    /// The most operands with the same memory that are looked at.
    const MAX_SHARING: usize = 8;
    if bytes.len() < MIN_ARRAY {
        return None;
    }
    let Range { start, end } = addresses(bytes);
    let registered = ARRAYS.read().unwrap_or_else(PoisonError::into_inner);
    let mut before = registered.range(..=(start, u64::MAX)).rev().take(MAX_SHARING);
    let (&(first, _), found) = before.find(|(_, array)| end <= array.end)?;
    let within = start - first;
    within.is_multiple_of(ALIGNMENT).then(|| (Arc::clone(&found.group), found.offset + within))
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

/// Divides the arrays of a source into groups. A large array has a group of its own, and so do small arrays in a row that
/// fit into one allocation together, of which a run that needs one often needs the others.
fn groups_of(source: &Arc<dyn ArraySource>) -> Vec<HostGroup> {
    let mut groups = Vec::new();
    let (mut arrays, mut bytes) = (Vec::new(), 0_usize);
    for (index, array) in source.arrays().into_iter().enumerate() {
        let padded = array.len().next_multiple_of(ALIGNMENT);
        if array.len() < MIN_ARRAY {
            continue;
        }
        let array = |offset| HostArray { index, range: addresses(array), offset };
        if padded >= GROUP {
            groups.push(HostGroup::new(source, vec![array(0)], padded));
            continue;
        }
        if bytes + padded > GROUP {
            groups.push(HostGroup::new(source, std::mem::take(&mut arrays), bytes));
            bytes = 0;
        }
        arrays.push(array(bytes));
        bytes += padded;
    }
    if !arrays.is_empty() {
        groups.push(HostGroup::new(source, arrays, bytes));
    }
    groups
}

impl HostGroup {
    fn new(source: &Arc<dyn ArraySource>, arrays: Vec<HostArray>, bytes: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, source: Arc::clone(source), arrays, bytes, registered: AtomicBool::new(true) }
    }
}

impl fmt::Debug for HostArrays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.groups).finish()
    }
}

impl fmt::Debug for HostGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostGroup[{}: {} arrays, {} bytes]", self.id, self.arrays.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Source(Vec<Vec<u8>>);

    impl ArraySource for Source {
        fn arrays(&self) -> Vec<&[u8]> {
            self.0.iter().map(Vec::as_slice).collect()
        }
    }

    fn source(lengths: &[usize]) -> Arc<Source> {
        let array = |(seed, len): (usize, &usize)| (0..*len).map(|at| (at * 7 + seed) as u8).collect();
        Arc::new(Source(lengths.iter().enumerate().map(array).collect()))
    }

    fn register(source: &Arc<Source>) -> HostArrays {
        HostArrays::register(Arc::clone(source) as Arc<dyn ArraySource>)
    }

    #[test]
    fn aligned_parts_of_registered_arrays_are_found_until_they_are_unregistered() {
        let source = source(&[MIN_ARRAY, 100, 3 * GROUP + 1, 10_000]);
        let arrays = register(&source);
        for (index, array) in source.0.iter().enumerate() {
            assert_eq!(find(array).is_some(), array.len() >= MIN_ARRAY, "{index}");
        }
        let large = &source.0[2];
        let (group, offset) = find(&large[512..]).unwrap();
        assert_eq!((group.bytes(), offset), ((3 * GROUP + 1).next_multiple_of(ALIGNMENT), 512));
        assert!(find(&large[4..]).is_none(), "not aligned");
        assert!(find(&large[512..512 + MIN_ARRAY - 1]).is_none(), "short");
        assert!(find(&vec![0; GROUP]).is_none(), "other memory");
        drop(arrays);
        assert!(source.0.iter().all(|array| find(array).is_none()));
        assert!(!group.is_registered());
    }

    #[test]
    fn small_arrays_share_a_group_and_large_ones_do_not() {
        let lengths = [GROUP / 2, 5000, 4 * GROUP, GROUP / 2 - 20_000, 9000, GROUP - 256, MIN_ARRAY - 1];
        let source = source(&lengths);
        let arrays = register(&source);
        let sizes: Vec<usize> = arrays.groups().iter().map(|group| group.arrays.len()).collect();
        assert_eq!(sizes, [1, 4, 1]);
        for group in arrays.groups() {
            let all = group.arrays().unwrap();
            assert!(all.iter().all(|(offset, _)| offset.is_multiple_of(ALIGNMENT)));
            assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1.len() <= pair[1].0), "they overlap");
            for (offset, array) in all {
                assert!(offset + array.len() <= group.bytes());
                let (found, found_offset) = find(array).unwrap();
                assert_eq!((found.id(), found_offset), (group.id(), offset));
            }
        }
    }

    #[test]
    fn arrays_that_share_memory_are_found_as_long_as_one_is_registered() {
        let source = source(&[GROUP]);
        let (first, second) = (register(&source), register(&source));
        drop(second);
        assert_eq!(find(&source.0[0]).unwrap().0.id(), first.groups()[0].id());
        drop(first);
        assert!(find(&source.0[0]).is_none());
    }

    #[test]
    fn the_source_lives_as_long_as_its_registration() {
        let source = source(&[GROUP]);
        let arrays = register(&source);
        let weak = Arc::downgrade(&source);
        drop(source);
        assert!(weak.upgrade().is_some());
        drop(arrays);
        assert!(weak.upgrade().is_none());
    }

    /// A source whose arrays move, which it may not.
    struct Moving(Vec<u8>, AtomicBool);

    impl ArraySource for Moving {
        fn arrays(&self) -> Vec<&[u8]> {
            let moved = self.1.load(Ordering::Relaxed);
            vec![&self.0[usize::from(moved)..]]
        }
    }

    #[test]
    fn arrays_that_are_not_those_registered_are_not_copied() {
        let source = Arc::new(Moving(vec![0; GROUP], AtomicBool::new(false)));
        let arrays = HostArrays::register(Arc::clone(&source) as Arc<dyn ArraySource>);
        let group = &arrays.groups()[0];
        assert!(group.arrays().is_some());
        source.1.store(true, Ordering::Relaxed);
        assert!(group.arrays().is_none());
    }
}
