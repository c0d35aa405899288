//! [`DeviceHealth`]: whether a device is lost.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cuda::CudaError;

/// Whether a device is lost, and the callback that reports it.
pub(crate) struct DeviceHealth {
    ordinal: u32,
    lost: OnceLock<CudaError>,
    hung: AtomicBool,
    on_lost: OnceLock<OnLost>,
}

type OnLost = Box<dyn Fn(&CudaError) + Send + Sync>;

impl DeviceHealth {
    pub(super) fn new(ordinal: u32) -> Self {
        Self { ordinal, lost: OnceLock::new(), hung: AtomicBool::new(false), on_lost: OnceLock::new() }
    }

    /// Sets the callback that is called once, with [`CudaError::DeviceLost`], before any other thread sees that the device
    /// is lost.
    ///
    /// # Panics
    /// Where it has been set.
    pub(crate) fn on_lost(&self, callback: impl Fn(&CudaError) + Send + Sync + 'static) {
        assert!(self.on_lost.set(Box::new(callback)).is_ok(), "the callback of a device is set once");
    }

    /// Why the device is lost; `None` while it is not.
    pub(crate) fn lost(&self) -> Option<&CudaError> {
        self.lost.get()
    }

    /// Whether the device hangs. It may still access memory that it was given.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Acquire)
    }

    /// Marks the device as lost, and returns the reason. Several threads see the same fault; the first to report it names
    /// the reason for all.
    pub(in crate::cuda) fn set_lost(&self, cause: &CudaError) -> CudaError {
        if matches!(cause, CudaError::Hung { .. }) {
            // Before any thread sees that the device is lost.
            self.hung.store(true, Ordering::Release);
        }
        let report = || {
            let lost = CudaError::DeviceLost { ordinal: self.ordinal, reason: cause.to_string().into() };
            if let Some(on_lost) = self.on_lost.get() {
                on_lost(&lost);
            }
            lost
        };
        self.lost.get_or_init(report).clone()
    }
}

impl fmt::Debug for DeviceHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceHealth").field("lost", &self.lost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_fault_is_reported_once_and_is_the_reason_for_all() {
        let health = DeviceHealth::new(3);
        let reports = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&reports);
        health.on_lost(move |lost| list.lock().unwrap().push(lost.to_string()));
        assert!(health.lost().is_none() && !health.is_hung());
        let first = health.set_lost(&CudaError::Module("first".to_owned()));
        assert!(!health.is_hung());
        let second = health.set_lost(&CudaError::Hung { after: Duration::from_secs(1), cancelled: true });
        assert_eq!(first.to_string(), "CUDA 3 is lost: first");
        assert_eq!([second.to_string(), health.lost().unwrap().to_string()], [first.to_string(), first.to_string()]);
        assert_eq!(*reports.lock().unwrap(), [first.to_string()]);
        assert!(health.is_hung(), "its memory stays allocated even so");
    }
}
