//! [`Event`]: a point in a stream's work.

use std::ptr;
use std::time::Duration;

use cudarc::driver::sys::CUevent;

use super::CudaError;
use super::driver::{Driver, NOT_READY, SUCCESS};
use super::stream::Stream;

/// A point in a stream's work that the host can query.
#[derive(Debug)]
pub(super) struct Event {
    driver: &'static Driver,
    handle: CUevent,
}

// SAFETY: an event may be used from any thread, and this handle has one owner.
unsafe impl Send for Event {}

impl Event {
    /// An event without a time stamp.
    pub(super) fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        // CU_EVENT_DISABLE_TIMING
        Self::with_flags(driver, 2)
    }

    /// An event that records the device's time.
    pub(super) fn timed(driver: &'static Driver) -> Result<Self, CudaError> {
        Self::with_flags(driver, 0)
    }

    fn with_flags(driver: &'static Driver, flags: u32) -> Result<Self, CudaError> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` lives across the call.
        CudaError::check("cuEventCreate", unsafe { (driver.cuEventCreate)(&raw mut handle, flags) })?;
        Ok(Self { driver, handle })
    }

    /// Records the event after the work that has been queued so far.
    pub(super) fn record(&self, stream: &mut Stream) -> Result<(), CudaError> {
        // SAFETY: both handles are valid.
        stream.queue("cuEventRecord", |driver, stream| unsafe { (driver.cuEventRecord)(self.handle, stream) })
    }

    /// Whether the device has done all work that was queued before the event. Work that failed is an error.
    pub(super) fn is_reached(&self) -> Result<bool, CudaError> {
        // SAFETY: the event lives as long as `self`.
        match unsafe { (self.driver.cuEventQuery)(self.handle) } {
            SUCCESS => Ok(true),
            NOT_READY => Ok(false),
            code => Err(CudaError::Driver { call: "cuEventQuery", code }),
        }
    }

    /// The time between `earlier` and this event; `None` if the device has not reached this one. Both are timed and were
    /// recorded in this order in one stream.
    pub(super) fn since(&self, earlier: &Self) -> Result<Option<Duration>, CudaError> {
        let mut milliseconds = 0.0;
        // SAFETY: `milliseconds` lives across the call, and both events as long as what refers to them.
        match unsafe { (self.driver.cuEventElapsedTime)(&raw mut milliseconds, earlier.handle, self.handle) } {
            SUCCESS => Ok(Some(Duration::try_from_secs_f32(milliseconds / 1e3).unwrap_or_default())),
            NOT_READY => Ok(None),
            code => Err(CudaError::Driver { call: "cuEventElapsedTime", code }),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { (self.driver.cuEventDestroy_v2)(self.handle) };
    }
}
