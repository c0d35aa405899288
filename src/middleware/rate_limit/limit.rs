use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter as Governor};

use super::InvalidQuota;
use crate::middleware::clock;

/// Decides whether a [`RateLimiter`](super::RateLimiter) lets a request through.
pub trait Limit<R> {
    /// Takes a token for `request`.
    ///
    /// # Errors
    /// The time until there can be a token, if there is none.
    fn take(&self, request: &R) -> Result<(), Duration>;
}

/// `None` lets everything through.
impl<R, L: Limit<R>> Limit<R> for Option<Arc<L>> {
    #[inline]
    fn take(&self, request: &R) -> Result<(), Duration> {
        self.as_ref().map_or(Ok(()), |limit| limit.take(request))
    }
}

/// One quota for all requests.
#[derive(Debug)]
pub struct Shared {
    pub(super) quota: Quota,
    limiter: Governor<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Nanos>>,
}

impl Shared {
    pub(super) fn new(quota: Quota) -> Self {
        Self { quota, limiter: Governor::direct_with_clock(quota, Clock::new()) }
    }
}

impl<R> Limit<R> for Shared {
    #[inline]
    fn take(&self, _request: &R) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| wait_time(&not_until, self.limiter.clock()))
    }
}

pub(super) fn wait_time(not_until: &NotUntil<Nanos>, clock: &Clock) -> Duration {
    not_until.wait_time_from(clock.now())
}

/// The quota of `calls` per `period`, all of which can be made at once.
pub(super) fn quota(calls: u32, period: Duration) -> Result<Quota, InvalidQuota> {
    const HUNDRED_YEARS: Duration = Duration::from_secs(100 * 365 * 86_400);
    let calls = NonZeroU32::new(calls).ok_or(InvalidQuota::NoCalls)?;
    if period > HUNDRED_YEARS {
        return Err(InvalidQuota::PeriodTooLong);
    }
    if period.is_zero() {
        return Err(InvalidQuota::NoPeriod);
    }
    // Governor counts in nanoseconds.
    let interval = (period / calls.get()).max(Duration::from_nanos(1));
    Ok(Quota::with_period(interval).ok_or(InvalidQuota::NoPeriod)?.allow_burst(calls))
}

/// Nanoseconds since the limit was created, by Tokio's clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: clock::now() }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    #[inline]
    fn now(&self) -> Nanos {
        let since = clock::now().saturating_duration_since(self.origin);
        // Overflows after 584 years.
        Nanos::new(since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos())))
    }
}
