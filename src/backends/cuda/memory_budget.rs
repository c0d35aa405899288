//! The worker pool's memory budget as the device runtime uses it.

use std::sync::Arc;

use crate::backends::worker_pool::memory_budget::{MemoryBudget, Reservation};
use crate::cuda::{ReserveMemory, ReservedMemory};

impl<T: Send + 'static> ReserveMemory for Arc<MemoryBudget<T>> {
    fn capacity(&self) -> u64 {
        MemoryBudget::capacity(self)
    }

    fn reserved(&self) -> u64 {
        self.usage().reserved
    }

    fn try_reserve(&self, bytes: u64) -> Option<Box<dyn ReservedMemory>> {
        MemoryBudget::try_reserve(self, bytes).map(|reservation| Box::new(reservation) as Box<dyn ReservedMemory>)
    }

    fn shortage(&self) -> u64 {
        MemoryBudget::shortage(self)
    }

    fn count_rejection(&self) {
        MemoryBudget::count_rejection(self);
    }
}

impl<T: Send + 'static> ReservedMemory for Reservation<T> {
    fn bytes(&self) -> u64 {
        Self::bytes(self)
    }

    fn try_grow_to(&mut self, bytes: u64) -> bool {
        Self::try_grow_to(self, bytes)
    }
}
