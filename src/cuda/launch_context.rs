//! [`LaunchContext`]: what a kernel's host code works with.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::cancel::IsCancelled;
use super::download::Target;
use super::huge_pages::vec_in_huge_pages;
use super::pinned::{LARGE, Pinned};
use super::{
    Arg, CancelCheck, CancelFlag, CudaError, DeviceBuffer, DeviceInfo, Launch, Module, PinnedMemory, StreamExecutor,
};
use crate::buffer::{Buffer, Element};

/// Queues the work of one run on a device: copies, launches, and waits.
///
/// All work is queued on one stream, in the order of the calls. Buffers are valid until the run ends. Only
/// [`download`](Self::download), its variants and [`wait`](Self::wait) wait for the device.
///
/// Every call that queues work first checks `C` and fails once the run is cancelled or its deadline has passed, so host
/// code needs no checks of its own between calls.
#[derive(Debug)]
pub struct LaunchContext<'a, C> {
    executor: &'a mut StreamExecutor,
    context: &'a C,
}

impl<'a, C: CancelCheck> LaunchContext<'a, C> {
    pub(crate) fn new(executor: &'a mut StreamExecutor, context: &'a C) -> Self {
        Self { executor, context }
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.executor.device.info
    }

    /// The context of the run, which says whether to go on.
    pub fn context(&self) -> &'a C {
        self.context
    }

    /// Returns the free device memory in bytes. The call of the driver takes some microseconds.
    ///
    /// # Errors
    /// The run is cancelled; the device is lost.
    pub fn free_memory(&mut self) -> Result<u64, C::Error> {
        self.run(|executor, _| executor.device.memory().map(|(free, _)| free))
    }

    /// Copies `elements` to a new array on the device. Small arrays are copied together, before the next launch.
    ///
    /// # Errors
    /// There is not enough device memory; the run is cancelled; the device is lost.
    pub fn upload<T: Element>(&mut self, elements: &[T]) -> Result<DeviceBuffer<T>, C::Error> {
        let address = self.run(|executor, check| executor.upload(bytemuck::cast_slice(elements), check))?;
        Ok(self.buffer(address, elements.len()))
    }

    /// Copies the concatenation of `parts` to a new array on the device, with one copy of each part: joins the inputs of a
    /// [shared run](crate::service::Kernel::run_cuda_batch).
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn upload_parts<'p, T: Element>(
        &mut self,
        parts: impl IntoIterator<Item = &'p [T]>,
    ) -> Result<DeviceBuffer<T>, C::Error> {
        let parts: Vec<&[u8]> = parts.into_iter().map(bytemuck::cast_slice).collect();
        let address = self.run(|executor, check| match parts[..] {
            // It may lie in pinned memory.
            [only] => executor.upload(only, check),
            _ => executor.upload_parts(&parts, check),
        })?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        Ok(self.buffer(address, bytes / size_of::<T>()))
    }

    /// Returns an array on the device with these elements, for kernels that only read it.
    ///
    /// Where the elements lie in a stored [operand](crate::service::Operands), this is the copy that the device keeps for
    /// all runs. It is made at the first need, and stays until the run ends. Otherwise, and where there is no memory for a
    /// copy, this is an [`upload`](Self::upload).
    ///
    /// A kernel that writes to such a copy faults, which loses the device. [`DeviceBuffer::is_read_only`] says whether the
    /// array is one.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn input<T: Element>(&mut self, elements: &[T]) -> Result<DeviceBuffer<T>, C::Error> {
        let bytes = bytemuck::cast_slice(elements);
        match self.run(|executor, check| executor.resident_input(bytes, check))? {
            Some(address) => Ok(DeviceBuffer { read_only: true, ..self.buffer(address, elements.len()) }),
            None => self.upload(elements),
        }
    }

    /// Returns an array on the device with the concatenation of `parts`, for kernels that only read it. As
    /// [`input`](Self::input) if there is one part, and as [`upload_parts`](Self::upload_parts) otherwise.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn input_parts<'p, T: Element>(
        &mut self,
        parts: impl IntoIterator<Item = &'p [T]>,
    ) -> Result<DeviceBuffer<T>, C::Error> {
        let parts: Vec<&[T]> = parts.into_iter().collect();
        match parts[..] {
            [only] => self.input(only),
            _ => self.upload_parts(parts),
        }
    }

    /// Allocates an array of `len` elements without initializing it: it holds data of earlier runs, or a pattern where
    /// [`CudaConfig::poison_uninitialized`](super::CudaConfig::poison_uninitialized) is set.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn alloc<T: Element>(&mut self, len: usize) -> Result<DeviceBuffer<T>, C::Error> {
        let address = self.run(|executor, _| executor.alloc(bytes_of::<T>(len)))?;
        Ok(self.buffer(address, len))
    }

    /// Allocates an array of `len` zeros.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn zeroed<T: Element>(&mut self, len: usize) -> Result<DeviceBuffer<T>, C::Error> {
        let bytes = bytes_of::<T>(len);
        let address = self.run(|executor, _| {
            let address = executor.arena.alloc(&executor.device, bytes)?;
            executor.fill(address, 0, bytes).map(|()| address)
        })?;
        Ok(self.buffer(address, len))
    }

    /// Fills an array with zeros.
    ///
    /// # Errors
    /// As [`upload`](Self::upload); the array is of another run, or read-only.
    pub fn zero<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> Result<(), C::Error> {
        self.run(|executor, _| {
            executor.check_generation(buffer.generation)?;
            check_writable(buffer)?;
            // An upload into it must not arrive later.
            executor.flush()?;
            executor.fill(buffer.address, 0, bytes_of::<T>(buffer.len))
        })
    }

    /// Copies one array on the device to another of the same length.
    ///
    /// # Errors
    /// The lengths differ; otherwise as [`zero`](Self::zero).
    pub fn copy<T: Element>(&mut self, from: &DeviceBuffer<T>, to: &DeviceBuffer<T>) -> Result<(), C::Error> {
        self.run(|executor, _| {
            executor.check_generation(from.generation)?;
            executor.check_generation(to.generation)?;
            check_writable(to)?;
            if from.len != to.len {
                return Err(CudaError::LengthMismatch { from: from.len, to: to.len });
            }
            executor.copy(from.address, to.address, bytes_of::<T>(from.len))
        })
    }

    /// Launches a kernel of `module`. A launch of no blocks or no threads does nothing.
    ///
    /// With drivers from version 550 on, the sizes of the arguments are checked against the kernel's parameters.
    ///
    /// # Errors
    /// The code does not compile or load, or has no such kernel; the device cannot run this shape; the arguments do not
    /// match; the run is cancelled; the device is lost.
    pub fn launch(
        &mut self,
        module: &'static Module,
        entry: &'static str,
        launch: Launch,
        args: &[&dyn Arg],
    ) -> Result<(), C::Error> {
        self.run(|executor, _| executor.launch(module, entry, launch, args))
    }

    /// Waits for all queued work, and returns the elements of an array.
    ///
    /// # Errors
    /// Errors of the queued work; the array is of another run; the run is cancelled; the device is lost.
    pub fn download<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> Result<Buffer<T>, C::Error> {
        self.download_all([buffer]).map(|[elements]| elements)
    }

    /// Waits for all queued work, and returns the elements of several arrays, with one wait if they are small.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_all<T: Element, const N: usize>(
        &mut self,
        buffers: [&DeviceBuffer<T>; N],
    ) -> Result<[Buffer<T>; N], C::Error> {
        // Allocation is work of the host.
        self.executor.pause_timer();
        let pinned = &self.executor.device.pinned;
        let mut arrays = buffers.map(|buffer| HostArray::<T>::new(buffer.len, pinned));
        self.run(|executor, check| {
            for buffer in buffers {
                executor.check_generation(buffer.generation)?;
            }
            executor.flush()?;
            let mut targets = Vec::new();
            for (buffer, array) in buffers.into_iter().zip(&mut arrays) {
                match array {
                    HostArray::Pinned(bytes) => executor.download_pinned(buffer.address, bytes)?,
                    HostArray::Vec(vec) => {
                        let to = as_bytes(&mut vec.spare_capacity_mut()[..buffer.len]);
                        targets.push(Target { from: buffer.address, to });
                    }
                }
            }
            executor.download(&mut targets, check)
        })?;
        let mut lengths = buffers.into_iter().map(|buffer| buffer.len);
        Ok(arrays.map(|array| match (array, lengths.next()) {
            (HostArray::Pinned(bytes), _) => bytes.into_buffer(),
            (HostArray::Vec(mut vec), len) => {
                // SAFETY: that many elements have been downloaded, and any bytes are a valid `Element`.
                unsafe { vec.set_len(len.unwrap_or(0)) };
                vec.into()
            }
        }))
    }

    /// Waits for all queued work, and returns the elements of one array as several arrays of these lengths: splits the
    /// output of a [shared run](crate::service::Kernel::run_cuda_batch).
    ///
    /// The arrays share one allocation, which is freed when all of them have been dropped.
    ///
    /// # Errors
    /// The lengths do not add up to that of the array; otherwise as [`download`](Self::download).
    pub fn download_parts<T: Element>(
        &mut self,
        buffer: &DeviceBuffer<T>,
        lengths: &[usize],
    ) -> Result<Vec<Buffer<T>>, C::Error> {
        self.download_all_parts([buffer], lengths).map(|[parts]| parts)
    }

    /// As [`download_parts`](Self::download_parts), for several arrays that are split alike, with one wait if they are
    /// small.
    ///
    /// # Errors
    /// As [`download_parts`](Self::download_parts).
    pub fn download_all_parts<T: Element, const N: usize>(
        &mut self,
        buffers: [&DeviceBuffer<T>; N],
        lengths: &[usize],
    ) -> Result<[Vec<Buffer<T>>; N], C::Error> {
        let total = lengths.iter().copied().fold(0, usize::saturating_add);
        if let Some(buffer) = buffers.iter().find(|buffer| buffer.len != total) {
            let error = CudaError::LengthMismatch { from: buffer.len, to: total };
            return self.run(|_, _| Err(error));
        }
        Ok(self.download_all(buffers)?.map(|array| array.into_parts(lengths)))
    }

    /// As [`download`](Self::download), into an existing slice.
    ///
    /// # Errors
    /// The lengths differ; otherwise as [`download`](Self::download).
    pub fn download_into<T: Element>(&mut self, buffer: &DeviceBuffer<T>, to: &mut [T]) -> Result<(), C::Error> {
        self.run(|executor, check| {
            executor.check_generation(buffer.generation)?;
            if buffer.len != to.len() {
                return Err(CudaError::LengthMismatch { from: buffer.len, to: to.len() });
            }
            // SAFETY: `download` only writes initialised bytes.
            let to: &mut [MaybeUninit<T>] = unsafe { &mut *(std::ptr::from_mut(to) as *mut _) };
            executor.download(&mut [Target { from: buffer.address, to: as_bytes(to) }], check)
        })
    }

    /// Waits for all queued work.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn wait(&mut self) -> Result<(), C::Error> {
        self.run(|executor, check| {
            executor.flush()?;
            executor.pause_timer();
            executor.stream.wait(None, check)
        })
    }

    /// Returns the flag that a long-running kernel polls to learn that its run is cancelled.
    pub fn cancel_flag(&mut self) -> CancelFlag {
        let address = self.executor.cancel_flag(self.context);
        CancelFlag { address, generation: self.executor.arena.generation() }
    }

    /// Runs `work` unless the run is cancelled, and records its errors.
    fn run<R>(
        &mut self,
        work: impl FnOnce(&mut StreamExecutor, &dyn IsCancelled) -> Result<R, CudaError>,
    ) -> Result<R, C::Error> {
        self.context.check()?;
        work(self.executor, self.context).map_err(|error| match (error, self.context.check()) {
            // The context's own error says why.
            (CudaError::Cancelled, Err(reason)) => reason,
            (error, _) => self.executor.record_error(error).into(),
        })
    }

    fn buffer<T>(&self, address: u64, len: usize) -> DeviceBuffer<T> {
        let generation = self.executor.arena.generation();
        DeviceBuffer { address, len, generation, read_only: false, element: PhantomData }
    }
}

fn check_writable<T>(buffer: &DeviceBuffer<T>) -> Result<(), CudaError> {
    if buffer.read_only { Err(CudaError::ReadOnlyBuffer) } else { Ok(()) }
}

/// The target of a download.
enum HostArray<T> {
    Pinned(Pinned),
    Vec(Vec<T>),
}

impl<T: Element> HostArray<T> {
    fn new(len: usize, memory: &PinnedMemory) -> Self {
        let bytes = bytes_of::<T>(len);
        let pinned = (bytes >= LARGE).then(|| memory.take(bytes)).flatten();
        pinned.map_or_else(|| Self::Vec(vec_in_huge_pages(len)), Self::Pinned)
    }
}

fn as_bytes<T>(elements: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<u8>] {
    let bytes = size_of_val(elements);
    // SAFETY: the same memory; bytes that need not be initialised have no alignment and no padding to respect.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), bytes) }
}

/// The size of `len` elements. It saturates where no address space is that large; no allocation of that size succeeds.
fn bytes_of<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>())
}
