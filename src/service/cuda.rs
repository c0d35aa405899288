//! How kernels see the device runtime: their launch context, its cancellation and its errors.

use super::{KernelError, RunContext};
use crate::cuda::{self, CancelCheck, CudaError};

/// What the CUDA code of a kernel gets: a device's stream and memory for one run, whose calls fail with a [`KernelError`].
///
/// [`context`](cuda::LaunchContext::context) is the [`RunContext`] of the run.
pub type LaunchContext<'a> = cuda::LaunchContext<'a, RunContext<'a>>;

impl CancelCheck for RunContext<'_> {
    type Error = KernelError;

    fn check(&self) -> Result<(), KernelError> {
        RunContext::check(self)
    }
}

impl From<CudaError> for KernelError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Cancelled => Self::Cancelled,
            CudaError::OutOfMemory { need, free, total } => Self::OutOfMemory { need, free, total },
            CudaError::DeviceLost { ordinal, reason } => {
                Self::DeviceLost { device: format!("CUDA {ordinal}").into(), reason }
            }
            // Mistakes of the kernel's host code.
            CudaError::StaleBuffer
            | CudaError::ReadOnlyBuffer
            | CudaError::InvalidArguments(_)
            | CudaError::LengthMismatch { .. } => Self::kernel(error),
            CudaError::Driver { .. } | CudaError::Module(_) | CudaError::Hung { .. } => Self::Device(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Classify, ErrorKind};

    #[test]
    fn errors_of_the_runtime_keep_their_meaning() {
        let lost = CudaError::DeviceLost { ordinal: 1, reason: "a fault".into() };
        let missing = CudaError::OutOfMemory { need: 3, free: 1, total: 2 };
        let kinds =
            [lost.clone(), missing, CudaError::Cancelled, CudaError::StaleBuffer, CudaError::Module("a".into())]
                .map(|error| KernelError::from(error).kind());
        assert_eq!(
            kinds,
            [
                ErrorKind::Unavailable,
                ErrorKind::TooLarge,
                ErrorKind::Cancelled,
                ErrorKind::Internal,
                ErrorKind::Internal,
            ]
        );
        let KernelError::DeviceLost { device, reason } = lost.into() else { panic!("another error") };
        assert_eq!((&*device, &*reason), ("CUDA 1", "a fault"));
        let stale = KernelError::from(CudaError::StaleBuffer);
        assert!(matches!(stale, KernelError::Kernel(_)), "a mistake of the kernel's: {stale}");
    }
}
