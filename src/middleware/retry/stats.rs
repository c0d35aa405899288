/// What a [`RetryLayer`](super::RetryLayer) has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RetryStats {
    /// Attempts that were made beyond the first of each call.
    pub retries: u64,
    /// Calls that were not tried again because the budget was used up. Where there are many the service is down.
    pub without_budget: u64,
    /// Calls that were not tried again because the next attempt would have come after the deadline.
    pub too_late: u64,
    /// Calls that wait for their next attempt just now.
    pub waiting: u64,
}
