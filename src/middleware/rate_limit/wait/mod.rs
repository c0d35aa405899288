//! Calls over the quota wait for their token, within bounds.

mod future;
mod layer;
mod service;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_service::Service;

use super::RateLimitError;
use crate::middleware::CallOrReject;

pub use self::layer::{WaitLayer, WaitSnapshot};
pub use self::service::Wait;

/// The response future of a [`Wait`].
///
/// # Panics
/// If the call has to wait for a token, polling needs a Tokio runtime with time enabled.
pub type WaitFuture<S, R, L> = CallOrReject<future::CallFuture<S, R, L>, RateLimitError<<S as Service<R>>::Error>>;

/// The calls that wait for a token, which all services of one layer share.
#[derive(Debug)]
struct Queue<L> {
    limit: Arc<L>,
    max_wait: Duration,
    max_waiting: usize,
    /// One for each call that may wait.
    permits: Arc<Semaphore>,
}
