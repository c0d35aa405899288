//! [`HostMemory`]: a limit on the host memory that requests hold at one time.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Classify, ErrorKind, provide};

/// Limits the host memory that requests hold at one time: bodies being read, decoded inputs, memory of runs, and encoded
/// responses until they are sent.
///
/// Clones share one limit; give the same to every server of a process. A server makes a [`HostReservation`] for each
/// request and puts it into the request's extensions; the part that the payload of a response holds is in the response's
/// extensions. Requests without one, as callers in the same process make them, are not limited.
///
/// Memory is charged before it is allocated: the bytes of a body as they arrive, the decoded input by the number of values
/// in the document, the run by the kernel's [footprint](super::Kernel::footprint), and the response by the maximum size of
/// its encoding.
///
/// The tensors of uploaded operands are not part of it: they become the operand, and count to the
/// [limits of operands](super::OperandLimits) from when they arrive.
///
/// One request may hold at most half of the limit. The last eighth is reserved for requests that hold at most 64 KiB, so
/// that small requests are served while large ones hold the rest.
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
    /// Milliseconds from `created` to the last rejection, plus one; 0 if there was none.
    last_rejection: AtomicU64,
}

/// Requests that hold at most this may use the reserved eighth of the limit.
const SMALL: u64 = 64 << 10;

/// How long memory counts as short after a rejection.
const SHORT_FOR: Duration = Duration::from_secs(2);

impl HostMemory {
    /// Creates a limit of `max` bytes.
    pub fn new(max: u64) -> Self {
        let zero = || AtomicU64::new(0);
        let (used, peak, rejected, last_rejection) = (zero(), zero(), zero(), zero());
        Self { pool: Arc::new(Pool { max, used, peak, rejected, created: Instant::now(), last_rejection }) }
    }

    /// Creates a memory without a limit, which counts nothing.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Returns the bytes that all requests may hold together.
    pub fn max(&self) -> u64 {
        self.pool.max
    }

    /// Returns the bytes that one request may hold: half of the limit.
    pub fn max_per_request(&self) -> u64 {
        self.pool.max_per_request()
    }

    /// Returns the bytes that requests hold now.
    pub fn used(&self) -> u64 {
        self.pool.used.load(Ordering::Relaxed)
    }

    /// Returns the peak of [`used`](Self::used).
    pub fn peak(&self) -> u64 {
        self.pool.peak.load(Ordering::Relaxed)
    }

    /// Returns how many requests were rejected because others held the memory that they needed.
    pub fn rejected(&self) -> u64 {
        self.pool.rejected.load(Ordering::Relaxed)
    }

    /// Returns whether a request was rejected within the last two seconds.
    pub fn is_short(&self) -> bool {
        let last = self.pool.last_rejection.load(Ordering::Relaxed);
        let now = millis(self.pool.created.elapsed());
        last > 0 && now.saturating_sub(last - 1) <= millis(SHORT_FOR)
    }

    /// Creates an empty reservation, for a request whose encoded response may have `max_response_size` bytes.
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
        self.last_rejection.fetch_max(millis(self.created.elapsed()) + 1, Ordering::Relaxed);
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

/// The memory that one request holds of a [`HostMemory`]. Clones share the reservation, which is released with the last
/// of them.
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
        self.pool.release(*self.bytes.get_mut());
    }
}

impl HostReservation {
    /// Returns the bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.account.bytes.load(Ordering::Relaxed)
    }

    /// Returns the maximum size of the request's encoded response in bytes.
    pub fn max_response_size(&self) -> u64 {
        self.account.max_response_size
    }

    /// Returns the memory that it is a part of.
    pub fn memory(&self) -> HostMemory {
        HostMemory { pool: Arc::clone(&self.account.pool) }
    }

    /// Reserves `bytes` more, or nothing.
    ///
    /// # Errors
    /// [`HostMemoryError::TooLarge`] if no request may hold as much, and [`HostMemoryError::Exhausted`] if other requests
    /// hold the memory now.
    pub fn grow(&self, bytes: u64) -> Result<(), HostMemoryError> {
        let taken = self.take(bytes);
        if let Err(HostMemoryError::Exhausted { .. }) = taken {
            self.account.pool.reject();
        }
        taken
    }

    /// Tries to reserve `bytes` more, for memory that makes a run faster and that it can do without. Unlike with
    /// [`grow`](Self::grow), a failure does not count as a rejection.
    pub fn try_grow(&self, bytes: u64) -> bool {
        self.take(bytes).is_ok()
    }

    /// Returns whether the memory has a limit.
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

    /// Checks whether one request may hold `bytes` more, without reserving them.
    ///
    /// # Errors
    /// [`HostMemoryError::TooLarge`] if it may not.
    pub fn check_possible(&self, bytes: u64) -> Result<(), HostMemoryError> {
        let (needed, max) = (self.bytes().saturating_add(bytes), self.account.pool.max_per_request());
        if needed > max { Err(HostMemoryError::TooLarge { needed, max }) } else { Ok(()) }
    }

    /// Releases `bytes`, or all that it holds if that is less.
    pub fn shrink(&self, bytes: u64) {
        self.account.pool.release(self.deduct(bytes));
    }

    /// Moves `bytes`, or all that it holds if that is less, into a new reservation: for a response, which outlives its
    /// request.
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

    /// Returns `bytes` as an owner of this reservation, which is released with the last slice of them.
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

/// The error of a reservation of host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostMemoryError {
    /// The request needs more than one request may hold.
    TooLarge {
        /// The bytes that the request would hold.
        needed: u64,
        /// The bytes that one request may hold.
        max: u64,
    },
    /// The request needs more than other requests leave free at present.
    Exhausted {
        /// The bytes that the request would hold.
        needed: u64,
        /// The bytes that all requests hold.
        used: u64,
        /// The bytes that all requests may hold.
        max: u64,
    },
}

impl fmt::Display for HostMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { needed, max } => {
                write!(f, "the request needs {needed} bytes of memory, and one request may have {max}")
            }
            Self::Exhausted { needed, used, max } => {
                write!(f, "the request needs {needed} bytes of memory, and requests hold {used} of {max} now")
            }
        }
    }
}

impl Error for HostMemoryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        None
    }
}

impl Classify for HostMemoryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Exhausted { .. } => ErrorKind::MemoryExhausted,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        // Memory is released when a request ends, which most do within a second.
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
