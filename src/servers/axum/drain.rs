use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says that the server is about to stop: `/health/ready` answers 503 from then on, so that no load balancer sends more,
/// and everything else goes on as before. Clones say it of the same router.
#[derive(Clone, Debug, Default)]
pub struct DrainHandle(Arc<AtomicBool>);

impl DrainHandle {
    /// The server is draining from now on. There is no way back.
    pub fn drain(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
