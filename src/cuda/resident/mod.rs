//! Copies of host arrays that stay on a device from run to run.
//!
//! The owner of arrays that never change registers them as [`HostArrays`]. Where a run reads such an array with
//! [`LaunchContext::input`](super::LaunchContext::input), the device makes a copy at the first need, and later runs use the
//! same copy. Arrays are found by their address, so this module does not know what they are.
//!
//! Copies live within a budget of each device. A copy that no run uses is evicted where memory is needed, the least
//! recently used first. Where there is no memory for a copy, the run uploads the array for itself. A pinned copy is evicted
//! for no other copy; for the memory of a run it is the last, and pinned again when it is made again.

mod cache;
mod host_arrays;
mod input;
#[cfg(all(test, tower_kernels_loom))]
mod loom;
mod memory;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub(crate) use self::cache::ResidentUsage;
use self::cache::{Cache, Resident};
pub(crate) use self::host_arrays::{ArraySource, HostArrays};
pub(super) use self::input::RunInputs;
pub(super) use self::memory::Allocator;
use self::memory::MappedMemory;
use super::ReservedMemory;
use super::device::Device;

/// The copies on one device.
pub(super) type ResidentCopies = Cache<ResidentCopy>;

/// A copy on a device, with the part of the device's memory that is reserved for it.
#[derive(Debug)]
pub(super) struct ResidentCopy {
    // Dropped in this order: the memory is free once its reservation is.
    memory: MappedMemory,
    _reservation: Box<dyn ReservedMemory>,
}

impl Resident for ResidentCopy {
    fn address(&self) -> u64 {
        self.memory.address()
    }
}

/// The copies of all devices of the process, for arrays that are unregistered.
static DEVICES: Mutex<Vec<(u32, Weak<ResidentCopies>)>> = Mutex::new(Vec::new());

fn devices() -> MutexGuard<'static, Vec<(u32, Weak<ResidentCopies>)>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` with each device's ordinal and copies.
fn for_each_device(mut work: impl FnMut(u32, &ResidentCopies)) {
    // Outside of the lock, as dropping the last reference frees device memory.
    let all: Vec<_> = devices().iter().filter_map(|(ordinal, copies)| Some((*ordinal, copies.upgrade()?))).collect();
    all.iter().for_each(|(ordinal, copies)| work(*ordinal, copies));
}

/// The resident copies of a device, and how memory for them is allocated.
#[derive(Debug)]
pub(super) struct ResidentMemory {
    pub(super) copies: Arc<ResidentCopies>,
    /// `None` where the device keeps no copies.
    allocator: Option<Allocator>,
}

impl ResidentMemory {
    /// Keeps copies of at most `budget` bytes; none where it is 0 or `allocator` is `None`.
    pub(super) fn new(ordinal: u32, budget: u64, allocator: Option<Allocator>) -> Self {
        let allocator = allocator.filter(|_| budget > 0);
        let copies = Arc::new(Cache::new(if allocator.is_some() { budget } else { 0 }));
        let mut devices = devices();
        devices.retain(|(_, copies)| copies.strong_count() > 0);
        devices.push((ordinal, Arc::downgrade(&copies)));
        Self { copies, allocator }
    }

    /// Returns the size of the allocation for `bytes`.
    fn allocation_size(&self, bytes: usize) -> usize {
        self.allocator.as_ref().map_or(bytes, |allocator| allocator.rounded(bytes))
    }

    fn is_enabled(&self) -> bool {
        self.allocator.is_some()
    }
}

impl Device {
    /// Returns the bytes of `arrays` that have no copy on this device.
    pub(crate) fn missing_bytes(&self, arrays: &HostArrays) -> u64 {
        let missing = arrays.groups().iter().filter(|group| !self.resident.copies.contains(group.id()));
        missing.map(|group| group.bytes() as u64).sum()
    }

    /// Pins the copies of `arrays`, those that are still to be made too, until they are unregistered.
    pub(crate) fn pin(&self, arrays: &HostArrays) {
        arrays.groups().iter().for_each(|group| self.resident.copies.pin(group.id()));
    }

    /// Undoes [`pin`](Self::pin).
    pub(crate) fn unpin(&self, arrays: &HostArrays) {
        arrays.groups().iter().for_each(|group| self.resident.copies.unpin(group.id()));
    }

    /// Returns the device memory for the copies of `arrays` that are not there.
    pub(crate) fn needed_for_copies(&self, arrays: &HostArrays) -> u64 {
        let missing = arrays.groups().iter().filter(|group| !self.resident.copies.contains(group.id()));
        missing.map(|group| self.resident.allocation_size(group.bytes()) as u64).sum()
    }

    /// Returns how much memory the resident copies take, and how often they were used.
    pub(crate) fn resident_usage(&self) -> ResidentUsage {
        self.resident.copies.usage()
    }

    /// Has the thread that frees memory evict idle copies until the memory budget has no
    /// [shortage](super::ReserveMemory::shortage).
    pub(crate) fn relieve_shortage(&self) {
        self.resident.copies.wake_if_idle();
    }

    /// Returns whether the device keeps copies of arrays.
    pub(crate) fn keeps_copies(&self) -> bool {
        self.resident.is_enabled()
    }
}
