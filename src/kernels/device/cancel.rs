//! [`CancelSignal`]: how launches of many short blocks learn that their request is cancelled.

use crate::cuda::{CancelFlag, DeviceBuffer};
use crate::service::{KernelError, LaunchContext};

/// The last two arguments of an entry that takes a `CancelSignal` of `load_balance.cuh`.
#[derive(Debug, Clone, Copy)]
pub struct CancelSignal {
    /// The flag of the host.
    pub flag: CancelFlag,
    /// 1 once a block has seen it.
    pub cancelled: DeviceBuffer<u32>,
}

impl CancelSignal {
    /// Makes the signal of a run.
    ///
    /// # Errors
    /// Those of the launch context.
    pub fn new(cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        Ok(Self { flag: cuda.cancel_flag(), cancelled: cuda.zeroed(1)? })
    }
}
