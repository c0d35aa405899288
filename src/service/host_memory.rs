//! [`HostMemory`]: a limit on the memory of this process that requests hold at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Classify, ErrorKind};

/// A limit on the memory of this process that requests hold at one time: bodies that are read, decoded inputs, what a
/// run needs and gives, and encoded responses until they are sent.
///
/// Clones share one limit; give one to every server of a process. Each request has a [`HostReservation`] of it, which a
/// server makes when the request comes and which goes with the request and its run, in the request's extensions. What the
/// payload of a response holds goes with the response, in its extensions. Requests without one, as callers in the same
/// process make them, are not limited and pay nothing.
///
/// What is charged is known before it is allocated: the bytes of a body as they come, the decoded input by the number of
/// values in the document, the run by the kernel's [footprint](super::Kernel::footprint), and the response by what its
/// encoding can take at most.
///
/// So that no request keeps others out, one request may have half of the limit at most. The last eighth is for requests
/// that hold no more than 64 KiB, so that small ones are served while large ones hold all the rest.
///
/// ```
/// use tower_kernels::error::{Classify, ErrorKind};
/// use tower_kernels::service::HostMemory;
///
/// let memory = HostMemory::new(64 << 20);
/// let request = memory.reservation(8 << 20);
/// request.grow(20 << 20).unwrap();
/// assert_eq!(memory.used(), 20 << 20);
/// assert_eq!(request.grow(40 << 20).unwrap_err().kind(), ErrorKind::TooLarge);
///
/// let other = memory.reservation(8 << 20);
/// other.grow(30 << 20).unwrap();
/// let third = memory.reservation(8 << 20);
/// assert_eq!(third.grow(20 << 20).unwrap_err().kind(), ErrorKind::MemoryExhausted);
/// drop(request);
/// third.grow(20 << 20).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct HostMemory {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    max: u64,
    used: AtomicU64,
    peak: AtomicU64,
    rejected: AtomicU64,
    created: Instant,
    /// When there was not enough for a request: in milliseconds from `created`, plus one. 0 where there always was.
    last_short: AtomicU64,
}

/// Requests that hold no more than this can have the share of the limit that others cannot.
const SMALL: u64 = 64 << 10;

/// How long memory counts as short after a request could not have what it needed.
const SHORT_FOR: Duration = Duration::from_secs(2);

impl HostMemory {
    /// A limit of so many bytes.
    pub fn new(max: u64) -> Self {
        let zero = || AtomicU64::new(0);
        let (used, peak, rejected, last_short) = (zero(), zero(), zero(), zero());
        Self { pool: Arc::new(Pool { max, used, peak, rejected, created: Instant::now(), last_short }) }
    }

    /// No limit, and nothing is counted.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// The bytes that all requests may hold together.
    pub fn max(&self) -> u64 {
        self.pool.max
    }

    /// The bytes that one request may hold: half of all.
    pub fn max_per_request(&self) -> u64 {
        self.pool.max_per_request()
    }

    /// The bytes that requests hold now.
    pub fn used(&self) -> u64 {
        self.pool.used.load(Ordering::Relaxed)
    }

    /// The most bytes that they have held so far.
    pub fn peak(&self) -> u64 {
        self.pool.peak.load(Ordering::Relaxed)
    }

    /// How often a request has been rejected because others held the memory that it needed.
    pub fn rejected(&self) -> u64 {
        self.pool.rejected.load(Ordering::Relaxed)
    }

    /// Whether there was not enough for some request within the last two seconds.
    pub fn is_short(&self) -> bool {
        let last = self.pool.last_short.load(Ordering::Relaxed);
        let now = millis(self.pool.created.elapsed());
        last > 0 && now.saturating_sub(last - 1) <= millis(SHORT_FOR)
    }

    /// A reservation of nothing yet, for a request whose encoded response may have `max_response_size` bytes.
    pub fn reservation(&self, max_response_size: u64) -> HostReservation {
        let account = Account { pool: Arc::clone(&self.pool), bytes: AtomicU64::new(0), max_response_size };
        HostReservation { account: Arc::new(account) }
    }
}

impl Pool {
    fn max_per_request(&self) -> u64 {
        if self.is_limited() { self.max / 2 } else { u64::MAX }
    }

    fn is_limited(&self) -> bool {
        self.max < u64::MAX
    }

    fn take(&self, bytes: u64, held: u64) -> Result<(), HostMemoryError> {
        let after = held.saturating_add(bytes);
        if after > self.max_per_request() {
            return Err(HostMemoryError::TooLarge { needed: after, max: self.max_per_request() });
        }
        let limit = if after <= SMALL { self.max } else { self.max - self.max / 8 };
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(used) => Err(HostMemoryError::Exhausted { needed: after, used, max: self.max }),
        }
    }

    fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.last_short.fetch_max(millis(self.created.elapsed()) + 1, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

/// What one request holds of a [`HostMemory`]. Clones are the same reservation; it is given back with the last of them.
#[derive(Clone, Debug)]
pub struct HostReservation {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    pool: Arc<Pool>,
    bytes: AtomicU64,
    max_response_size: u64,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pool.give_back(*self.bytes.get_mut());
    }
}

impl HostReservation {
    /// The bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.account.bytes.load(Ordering::Relaxed)
    }

    /// The most bytes that the request's encoded response may have.
    pub fn max_response_size(&self) -> u64 {
        self.account.max_response_size
    }

    /// What it is a part of.
    pub fn memory(&self) -> HostMemory {
        HostMemory { pool: Arc::clone(&self.account.pool) }
    }

    /// Takes so many bytes more, or none.
    ///
    /// # Errors
    /// [`HostMemoryError::TooLarge`] where no request may hold as much, and [`HostMemoryError::Exhausted`] where others
    /// hold it now.
    pub fn grow(&self, bytes: u64) -> Result<(), HostMemoryError> {
        let taken = self.take(bytes);
        if let Err(HostMemoryError::Exhausted { .. }) = taken {
            self.account.pool.reject();
        }
        taken
    }

    /// Takes so many bytes more if they are there. Unlike with [`grow`](Self::grow), nobody is rejected where they are
    /// not: for memory that makes a run faster and that it can do without.
    pub fn try_grow(&self, bytes: u64) -> bool {
        self.take(bytes).is_ok()
    }

    /// Whether there is a limit that it counts for.
    pub(crate) fn is_limited(&self) -> bool {
        self.account.pool.is_limited()
    }

    fn take(&self, bytes: u64) -> Result<(), HostMemoryError> {
        if !self.is_limited() {
            return Ok(());
        }
        self.account.pool.take(bytes, self.bytes())?;
        self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Checks whether one request may hold so many bytes, without taking them.
    ///
    /// # Errors
    /// [`HostMemoryError::TooLarge`] where it may not.
    pub fn check_possible(&self, bytes: u64) -> Result<(), HostMemoryError> {
        let (needed, max) = (self.bytes().saturating_add(bytes), self.account.pool.max_per_request());
        if needed > max { Err(HostMemoryError::TooLarge { needed, max }) } else { Ok(()) }
    }

    /// Gives so many bytes back, or all that it has where those are fewer.
    pub fn shrink(&self, bytes: u64) {
        self.account.pool.give_back(self.deduct(bytes));
    }

    /// Moves so many bytes into a reservation of their own, or all that it has where those are fewer: for a response,
    /// which stays when the rest of its request is done.
    #[must_use]
    pub fn split(&self, bytes: u64) -> Self {
        let split = self.memory().reservation(self.account.max_response_size);
        split.account.bytes.store(self.deduct(bytes), Ordering::Relaxed);
        split
    }

    fn deduct(&self, bytes: u64) -> u64 {
        let fewer = |held: u64| Some(held.saturating_sub(bytes));
        let (Ok(held) | Err(held)) = self.account.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
        held.min(bytes)
    }

    /// The same bytes, which hold this reservation for as long as they or a slice of them are there.
    #[must_use]
    pub fn attach(self, bytes: Bytes) -> Bytes {
        struct Attached {
            bytes: Bytes,
            _reservation: HostReservation,
        }

        impl AsRef<[u8]> for Attached {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }

        Bytes::from_owner(Attached { bytes, _reservation: self })
    }
}

/// Why a request cannot have the memory that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostMemoryError {
    /// No request may hold as much.
    #[error("the request needs {needed} bytes of memory, and one request may have {max}")]
    TooLarge {
        /// The bytes that the request would hold.
        needed: u64,
        /// The bytes that one request may hold.
        max: u64,
    },
    /// Other requests hold it now.
    #[error("the request needs {needed} bytes of memory, and requests hold {used} of {max} now")]
    Exhausted {
        /// The bytes that the request would hold.
        needed: u64,
        /// The bytes that requests hold.
        used: u64,
        /// The bytes that requests may hold together.
        max: u64,
    },
}

impl Classify for HostMemoryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Exhausted { .. } => ErrorKind::MemoryExhausted,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        // Memory is given back when a request ends, which most do within a second.
        (self.kind() == ErrorKind::MemoryExhausted).then_some(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_is_given_back_by_the_last_who_has_it() {
        let memory = HostMemory::new(64 * MIB);
        let request = memory.reservation(MIB);
        request.grow(10 * MIB).unwrap();
        let response = request.split(3 * MIB);
        assert_eq!((request.bytes(), response.bytes(), memory.used()), (7 * MIB, 3 * MIB, 10 * MIB));
        request.shrink(MIB);
        request.shrink(0);
        let other = request.clone();
        drop(request);
        assert_eq!(memory.used(), 9 * MIB);
        drop(other);
        assert_eq!(memory.used(), 3 * MIB);
        let bytes = response.attach(Bytes::from_static(b"abc"));
        let slice = bytes.slice(1..2);
        drop(bytes);
        assert_eq!((memory.used(), &slice[..]), (3 * MIB, &b"b"[..]));
        drop(slice);
        assert_eq!((memory.used(), memory.peak(), memory.rejected()), (0, 10 * MIB, 0));
    }

    #[test]
    fn no_more_is_given_back_than_was_taken() {
        let memory = HostMemory::new(64 * MIB);
        let request = memory.reservation(0);
        request.grow(MIB).unwrap();
        let all = request.split(2 * MIB);
        request.shrink(MIB);
        assert_eq!((request.bytes(), all.bytes(), memory.used()), (0, MIB, MIB));
        drop((request, all));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn large_requests_leave_an_eighth_to_small_ones_and_one_has_half() {
        let memory = HostMemory::new(64 * MIB);
        let (first, second, small) = (memory.reservation(0), memory.reservation(0), memory.reservation(0));
        assert_eq!(first.grow(32 * MIB + 1), Err(HostMemoryError::TooLarge { needed: 32 * MIB + 1, max: 32 * MIB }));
        assert!(!memory.is_short(), "what can never be had is no shortage");
        first.grow(32 * MIB).unwrap();
        second.grow(24 * MIB).unwrap();
        assert!(!second.try_grow(1) && memory.rejected() == 0);
        assert!(matches!(second.grow(1), Err(HostMemoryError::Exhausted { .. })));
        assert!(memory.is_short() && memory.rejected() == 1);
        small.grow(SMALL).unwrap();
        assert!(small.grow(1).is_err(), "not small any more");
        drop(first);
        small.grow(1).unwrap();
    }

    #[test]
    fn the_limit_holds_whoever_asks_at_once() {
        let memory = HostMemory::new(8 * MIB);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let request = memory.reservation(0);
                        let _ = (request.grow(MIB), request.grow(MIB));
                        assert!(memory.used() <= 8 * MIB);
                    }
                });
            }
        });
        assert_eq!(memory.used(), 0);
        assert!(memory.peak() <= 7 * MIB && memory.peak() >= MIB);
    }

    #[test]
    fn without_a_limit_all_is_given() {
        let memory = HostMemory::unlimited();
        let request = memory.reservation(u64::MAX);
        for _ in 0..8 {
            request.grow(1 << 62).unwrap();
        }
        request.check_possible(u64::MAX).unwrap();
        request.shrink(1);
        assert_eq!((memory.used(), request.split(1).bytes()), (0, 0));
    }
}
