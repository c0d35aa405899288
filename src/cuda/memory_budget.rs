//! How much device memory work may use: decided by the owner of a device, and enforced by its allocations.

use std::fmt;

/// Grants reservations of a device's memory.
pub(crate) trait ReserveMemory: Send + Sync {
    /// Bytes that can be reserved in all.
    fn capacity(&self) -> u64;

    /// Bytes that are reserved now.
    fn reserved(&self) -> u64;

    /// Reserves `bytes` without waiting; `None` where they are not available.
    fn try_reserve(&self, bytes: u64) -> Option<Box<dyn ReservedMemory>>;

    /// Bytes that the work which waits for memory, and comes first, needs besides those that are free.
    fn shortage(&self) -> u64;

    /// Counts work that failed for want of memory.
    fn count_rejection(&self);
}

/// Bytes of device memory that are reserved until this is dropped.
pub(crate) trait ReservedMemory: fmt::Debug + Send {
    /// The size of the reservation.
    fn bytes(&self) -> u64;

    /// Grows the reservation to `bytes` if they are available now.
    fn try_grow_to(&mut self, bytes: u64) -> bool;
}
