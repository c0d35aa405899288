//! Inputs of runs: the copies that they use, and how a copy is made.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::CUdeviceptr;

use super::cache::{Acquired, Fill, Lease};
use super::host_arrays::{HostGroup, find};
use super::{HostArrays, ResidentCopy};
use crate::cuda::CudaError;
use crate::cuda::cancel::IsCancelled;
use crate::cuda::device::Device;
use crate::cuda::driver::OUT_OF_MEMORY;
use crate::cuda::stream_executor::StreamExecutor;
use crate::cuda::upload::check_cancelled;

/// How often a run that waits for a copy checks whether it is cancelled.
const INTERVAL: Duration = Duration::from_millis(1);

/// The registered arrays that a run uses.
#[derive(Debug, Default)]
pub(in crate::cuda) struct RunInputs {
    /// The copies, which stay where they are until the run has ended.
    leases: Vec<Lease<ResidentCopy>>,
    /// Copies whose making was given up: queued work may still write to them.
    abandoned: Vec<ResidentCopy>,
    /// Each group of arrays, with whether its copy was there before it was asked for.
    used: Vec<(u64, bool)>,
}

impl RunInputs {
    /// Begins a run.
    pub(in crate::cuda) fn begin(&mut self) {
        self.used.clear();
    }

    /// Gives the copies back. The device has done all work of the run.
    pub(in crate::cuda) fn end(&mut self) {
        self.leases.clear();
        self.abandoned.clear();
    }

    fn record(&mut self, id: u64, resident: bool) {
        match self.used.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => *known &= resident,
            None => self.used.push((id, resident)),
        }
    }
}

impl StreamExecutor {
    /// Returns the device address of the copy of `bytes`, which is made if there is none; `None` if they are not part of a
    /// registered array, or there is no memory for a copy.
    pub(in crate::cuda) fn resident_input(
        &mut self,
        bytes: &[u8],
        check: &dyn IsCancelled,
    ) -> Result<Option<CUdeviceptr>, CudaError> {
        if !self.device.keeps_copies() {
            return Ok(None);
        }
        let Some((group, offset)) = find(bytes) else { return Ok(None) };
        let address = self.make_resident(&group, check)?;
        if address.is_none() {
            self.device.resident.copies.count_fallback();
            self.inputs.record(group.id(), false);
        }
        Ok(address.map(|address| address + offset as CUdeviceptr))
    }

    /// Makes copies of all arrays that have none. Returns whether all of them have one.
    ///
    /// # Errors
    /// The work is cancelled; errors of the driver.
    pub(crate) fn make_all_resident(
        &mut self,
        arrays: &HostArrays,
        check: &dyn IsCancelled,
    ) -> Result<bool, CudaError> {
        for group in arrays.groups() {
            if !self.device.keeps_copies() || self.make_resident(group, check)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the last run used arrays of these, and the device had copies of all of those before.
    pub(crate) fn were_resident(&self, arrays: &HostArrays) -> bool {
        let is_one = |id: u64| arrays.groups().iter().any(|group| group.id() == id);
        let mut used = self.inputs.used.iter().filter(|(id, _)| is_one(*id)).peekable();
        used.peek().is_some() && used.all(|&(_, resident)| resident)
    }

    /// Returns the address of a group's copy, which this run then holds until its end.
    fn make_resident(
        &mut self,
        group: &Arc<HostGroup>,
        check: &dyn IsCancelled,
    ) -> Result<Option<CUdeviceptr>, CudaError> {
        if let Some(lease) = self.inputs.leases.iter().find(|lease| lease.id() == group.id()) {
            return Ok(Some(lease.address()));
        }
        let copies = Arc::clone(&self.device.resident.copies);
        let mut resident = true;
        let lease = loop {
            match copies.acquire(group.id(), || group.is_registered()) {
                Acquired::Copy(lease) => break lease,
                Acquired::Unregistered => return Ok(None),
                Acquired::BeingFilled => {
                    check_cancelled(check)?;
                    if let Some(lost) = self.device.health.lost() {
                        return Err(lost.clone());
                    }
                    copies.wait(INTERVAL);
                }
                Acquired::Fill(fill) => match self.make_copy(group, fill, check)? {
                    Some(lease) => {
                        resident = false;
                        break lease;
                    }
                    None => return Ok(None),
                },
            }
            resident = false;
        };
        let address = lease.address();
        self.inputs.record(group.id(), resident);
        self.inputs.leases.push(lease);
        Ok(Some(address))
    }

    /// Makes the copy of a group; `None` if there is no memory for it.
    fn make_copy(
        &mut self,
        group: &HostGroup,
        mut fill: Fill<ResidentCopy>,
        check: &dyn IsCancelled,
    ) -> Result<Option<Lease<ResidentCopy>>, CudaError> {
        let Some(arrays) = group.arrays() else { return Ok(None) };
        let Some(copy) = self.device.allocate_copy(group.bytes(), &mut fill)? else { return Ok(None) };
        let address = copy.memory.address();
        let mut upload = || {
            for &(offset, bytes) in &arrays {
                self.copy_to_device(bytes, address + offset as CUdeviceptr, check)?;
            }
            // Other workers' streams read the copy without waiting for this one.
            self.pause_timer();
            self.stream.wait(None, check)?;
            copy.memory.make_read_only()
        };
        match upload() {
            Ok(()) => Ok(Some(fill.publish(copy))),
            Err(error) => {
                self.inputs.abandoned.push(copy);
                Err(error)
            }
        }
    }
}

impl Device {
    /// Allocates the memory of a copy, for which idle copies are evicted where that is needed; `None` if it is not enough.
    fn allocate_copy(&self, bytes: usize, fill: &mut Fill<ResidentCopy>) -> Result<Option<ResidentCopy>, CudaError> {
        let Some(allocator) = &self.resident.allocator else { return Ok(None) };
        let bytes = allocator.rounded(bytes);
        let Some(evicted) = fill.make_room(bytes as u64) else { return Ok(None) };
        drop(evicted);
        let reserve = || {
            // Unlike a reservation of its size, one that grows does not overtake the runs that wait for memory.
            let mut reservation = self.memory_budget.try_reserve(0)?;
            reservation.try_grow_to(bytes as u64).then_some(reservation)
        };
        let reservation = reserve().or_else(|| {
            drop(self.resident.copies.evict_for_copy(bytes as u64));
            reserve()
        });
        let Some(reservation) = reservation else { return Ok(None) };
        let memory = allocator.allocate(bytes).or_else(|error| {
            if !error.is(OUT_OF_MEMORY) {
                return Err(error);
            }
            // Memory that no run uses is kept without a reservation.
            self.chunks.clear();
            allocator.allocate(bytes)
        });
        match memory {
            Ok(memory) => Ok(Some(ResidentCopy { memory, _reservation: reservation })),
            // Other processes may use the device too.
            Err(error) if error.is(OUT_OF_MEMORY) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
