//! [`Context`]: a device's primary context on the threads that use it.

use std::ptr::{self, NonNull};

use cudarc::driver::sys::{CUcontext, CUdevice};

use crate::cuda::CudaError;
use crate::cuda::driver::Driver;
use crate::cuda::pinned::PageLock;

/// A context, which the holder of this keeps alive.
#[derive(Clone, Copy)]
pub(super) struct Context {
    driver: &'static Driver,
    device: CUdevice,
    handle: CUcontext,
}

// SAFETY: a context handle may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of the device. [`release`](Self::release) must be called for each call of this.
    pub(super) fn retain(driver: &'static Driver, device: CUdevice) -> Result<Self, CudaError> {
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` lives across the call.
        let code = unsafe { (driver.cuDevicePrimaryCtxRetain)(&raw mut handle, device) };
        CudaError::check("cuDevicePrimaryCtxRetain", code).map(|()| Self { driver, device, handle })
    }

    /// Releases the context, which no thread may use afterwards.
    pub(super) fn release(self) {
        // SAFETY: retained in `retain`. It fails only where the device is lost or the process is ending.
        unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }

    /// Makes the context current on this thread, as most calls of the driver require.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is alive.
        CudaError::check("cuCtxSetCurrent", unsafe { (self.driver.cuCtxSetCurrent)(self.handle) })
    }

    /// Runs `call` with the context current, on a thread whose current context may be another one.
    fn with(&self, name: &'static str, call: impl FnOnce(&Driver) -> u32) -> Result<(), CudaError> {
        // SAFETY: the context is alive; what is pushed here is popped below, whatever the call returns.
        unsafe {
            CudaError::check("cuCtxPushCurrent", (self.driver.cuCtxPushCurrent_v2)(self.handle))?;
            let code = call(self.driver);
            let mut popped = ptr::null_mut();
            (self.driver.cuCtxPopCurrent_v2)(&raw mut popped);
            CudaError::check(name, code)
        }
    }
}

/// Pins pages for the pool of pinned memory, which does not use it after the device is closed.
impl PageLock for Context {
    fn lock(&self, pages: NonNull<u8>, len: usize) -> Result<(), String> {
        // 1 is CU_MEMHOSTREGISTER_PORTABLE: pinned for all devices.
        // SAFETY: the pages are a map of the pool's, which unpins them before it unmaps them.
        let locked = self.with("cuMemHostRegister", |driver| unsafe {
            (driver.cuMemHostRegister_v2)(pages.as_ptr().cast(), len, 1)
        });
        locked.map_err(|error| error.to_string())
    }

    fn unlock(&self, pages: NonNull<u8>) {
        // SAFETY: pinned before, and not used by a copy any more: a queued copy holds its slab, and executors are dropped
        // before the device. It fails only where the device is lost or the process is ending.
        let _ =
            self.with("cuMemHostUnregister", |driver| unsafe { (driver.cuMemHostUnregister)(pages.as_ptr().cast()) });
    }
}
