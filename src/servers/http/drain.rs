use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Marks a router as draining: `/health/ready` responds with 503, so that load balancers send no more requests.
/// Everything else continues. Clones are of the same router.
#[derive(Clone, Debug, Default)]
pub struct DrainHandle(Arc<AtomicBool>);

impl DrainHandle {
    /// Starts draining. It cannot be undone.
    pub fn drain(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the router is draining.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
