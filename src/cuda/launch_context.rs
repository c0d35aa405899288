//! [`LaunchContext`]: what a kernel's host code works with.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::copy::room_for;
use super::download::Target;
use super::engine::Engine;
use super::error::{Failure, Misuse};
use super::launch::{Arg, CancelFlag, DeviceBuffer, Launch};
use super::pinned::{LARGE, Pinned};
use super::{DeviceInfo, Module, PinnedMemory};
use crate::buffer::{Buffer, Element};
use crate::service::{KernelError, RunContext};

/// A lane of a device, lent to a kernel for one request.
///
/// Everything is queued on the lane's stream and runs in the order it was called. Buffers come from the lane's arena and
/// end with the request. Only [`download`](Self::download) and [`wait`](Self::wait) wait for the device.
///
/// Every call that queues work fails once the caller has left or its deadline has passed, so host code needs only `?`.
#[derive(Debug)]
pub struct LaunchContext<'a> {
    engine: &'a mut Engine,
    context: RunContext<'a>,
}

impl<'a> LaunchContext<'a> {
    pub(crate) fn new(engine: &'a mut Engine, context: RunContext<'a>) -> Self {
        Self { engine, context }
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.engine.device.info
    }

    /// The caller's side of the run.
    pub fn context(&self) -> &RunContext<'a> {
        &self.context
    }

    /// Device memory that is free now, in bytes. It asks the driver, which takes some microseconds.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn free_memory(&mut self) -> Result<u64, KernelError> {
        self.run(|engine, _| engine.device.memory().map(|(free, _)| free))
    }

    /// A copy of `elements` on the device. Small arrays cross together, at the next launch.
    ///
    /// # Errors
    /// Memory that is not there; the caller gone; the device lost.
    pub fn upload<T: Element>(&mut self, elements: &[T]) -> Result<DeviceBuffer<T>, KernelError> {
        let address = self.run(|engine, context| engine.upload(bytemuck::cast_slice(elements), context))?;
        Ok(self.buffer(address, elements.len()))
    }

    /// One array on the device of several here, one after the other and each copied once: how inputs of a
    /// [run that they share](crate::service::Kernel::run_cuda_batch) are joined.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn upload_parts<'p, T: Element>(
        &mut self,
        parts: impl IntoIterator<Item = &'p [T]>,
    ) -> Result<DeviceBuffer<T>, KernelError> {
        let parts: Vec<&[u8]> = parts.into_iter().map(bytemuck::cast_slice).collect();
        let address = self.run(|engine, context| match parts[..] {
            // It may lie in pinned memory.
            [only] => engine.upload(only, context),
            _ => engine.upload_parts(&parts, context),
        })?;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        Ok(self.buffer(address, bytes / size_of::<T>()))
    }

    /// An array with nothing in it yet: what a kernel does not write is left over from somebody else. It is poisoned
    /// where [`CudaConfig::poison_uninitialized`](super::CudaConfig::poison_uninitialized) says so.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn alloc<T: Element>(&mut self, len: usize) -> Result<DeviceBuffer<T>, KernelError> {
        let address = self.run(|engine, _| engine.alloc(bytes_of::<T>(len)))?;
        Ok(self.buffer(address, len))
    }

    /// An array of zeros.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn zeroed<T: Element>(&mut self, len: usize) -> Result<DeviceBuffer<T>, KernelError> {
        let bytes = bytes_of::<T>(len);
        let address = self.run(|engine, _| {
            let address = engine.arena.alloc(&engine.device, bytes)?;
            engine.fill(address, 0, bytes).map(|()| address)
        })?;
        Ok(self.buffer(address, len))
    }

    /// Fills an array with zeros.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn zero<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> Result<(), KernelError> {
        self.run(|engine, _| {
            engine.own(buffer.generation)?;
            // What has been uploaded into it must not arrive later.
            engine.flush()?;
            engine.fill(buffer.address, 0, bytes_of::<T>(buffer.len))
        })
    }

    /// Copies one array onto another of the same length, on the device.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn copy<T: Element>(&mut self, from: &DeviceBuffer<T>, to: &DeviceBuffer<T>) -> Result<(), KernelError> {
        self.run(|engine, _| {
            engine.own(from.generation)?;
            engine.own(to.generation)?;
            if from.len != to.len {
                return Err(Failure::Misuse(Misuse::Lengths { from: from.len, to: to.len }));
            }
            engine.copy(from.address, to.address, bytes_of::<T>(from.len))
        })
    }

    /// Launches an entry of `module`. A shape of no blocks or no threads launches nothing.
    ///
    /// Where the driver can tell what the entry takes (from version 550 on), arguments of other sizes are refused.
    ///
    /// # Errors
    /// Code that does not compile or load; a shape that the device cannot run; the caller gone; the device lost.
    pub fn launch(
        &mut self,
        module: &'static Module,
        entry: &'static str,
        launch: Launch,
        args: &[&dyn Arg],
    ) -> Result<(), KernelError> {
        self.run(|engine, _| engine.launch(module, entry, launch, args))
    }

    /// The elements of an array, once the work queued before has been done.
    ///
    /// # Errors
    /// What that work failed with; the caller gone; the device lost.
    pub fn download<T: Element>(&mut self, buffer: &DeviceBuffer<T>) -> Result<Buffer<T>, KernelError> {
        self.download_all([buffer]).map(|[elements]| elements)
    }

    /// The elements of several arrays, with one wait for all of them if they are small.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_all<T: Element, const N: usize>(
        &mut self,
        buffers: [&DeviceBuffer<T>; N],
    ) -> Result<[Buffer<T>; N], KernelError> {
        // To find memory is the host's own work.
        self.engine.pause_timer();
        let memory = &self.engine.device.pinned;
        let mut arrays = buffers.map(|buffer| Room::<T>::of(buffer.len, memory));
        self.run(|engine, context| {
            for buffer in buffers {
                engine.own(buffer.generation)?;
            }
            engine.flush()?;
            let mut targets = Vec::new();
            for (buffer, room) in buffers.into_iter().zip(&mut arrays) {
                match room {
                    Room::Pinned(bytes) => engine.download_pinned(buffer.address, bytes)?,
                    Room::Vec(array) => {
                        let to = as_bytes(&mut array.spare_capacity_mut()[..buffer.len]);
                        targets.push(Target { from: buffer.address, to });
                    }
                }
            }
            engine.download(&mut targets, context)
        })?;
        let mut lengths = buffers.into_iter().map(|buffer| buffer.len);
        Ok(arrays.map(|room| match (room, lengths.next()) {
            (Room::Pinned(bytes), _) => bytes.into_buffer(),
            (Room::Vec(mut array), len) => {
                // SAFETY: that many elements have been downloaded, and any bytes are an `Element`.
                unsafe { array.set_len(len.unwrap_or(0)) };
                array.into()
            }
        }))
    }

    /// The elements of one array as several, of these lengths: how the output of a
    /// [run that several share](crate::service::Kernel::run_cuda_batch) is taken apart.
    ///
    /// They are parts of one piece of memory, which is not copied again and is free once all of them have been dropped.
    ///
    /// # Errors
    /// As [`download`](Self::download); also where the lengths are not, together, that of the array.
    pub fn download_parts<T: Element>(
        &mut self,
        buffer: &DeviceBuffer<T>,
        lengths: &[usize],
    ) -> Result<Vec<Buffer<T>>, KernelError> {
        self.download_all_parts([buffer], lengths).map(|[parts]| parts)
    }

    /// As [`download_parts`](Self::download_parts), of several arrays that are taken apart alike, with one wait for all of
    /// them if they are small.
    ///
    /// # Errors
    /// As [`download_parts`](Self::download_parts).
    pub fn download_all_parts<T: Element, const N: usize>(
        &mut self,
        buffers: [&DeviceBuffer<T>; N],
        lengths: &[usize],
    ) -> Result<[Vec<Buffer<T>>; N], KernelError> {
        let total = lengths.iter().copied().fold(0, usize::saturating_add);
        if let Some(buffer) = buffers.iter().find(|buffer| buffer.len != total) {
            let failure = Failure::Misuse(Misuse::Lengths { from: buffer.len, to: total });
            return self.run(|_, _| Err(failure));
        }
        Ok(self.download_all(buffers)?.map(|array| array.into_parts(lengths)))
    }

    /// As [`download`](Self::download), into memory that is there.
    ///
    /// # Errors
    /// As [`download`](Self::download); also where the lengths differ.
    pub fn download_into<T: Element>(&mut self, buffer: &DeviceBuffer<T>, to: &mut [T]) -> Result<(), KernelError> {
        self.run(|engine, context| {
            engine.own(buffer.generation)?;
            if buffer.len != to.len() {
                return Err(Failure::Misuse(Misuse::Lengths { from: buffer.len, to: to.len() }));
            }
            // SAFETY: `download` only writes bytes that are initialised.
            let to: &mut [MaybeUninit<T>] = unsafe { &mut *(std::ptr::from_mut(to) as *mut _) };
            engine.download(&mut [Target { from: buffer.address, to: as_bytes(to) }], context)
        })
    }

    /// Waits until all work queued so far has been done.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn wait(&mut self) -> Result<(), KernelError> {
        self.run(|engine, context| {
            engine.flush()?;
            engine.pause_timer();
            engine.stream.wait(None, context)
        })
    }

    /// The word that a long-running kernel polls to learn that its caller has left.
    pub fn cancel_flag(&mut self) -> CancelFlag {
        let address = self.engine.cancel_flag(&self.context);
        CancelFlag { address, generation: self.engine.arena.generation() }
    }

    /// Does something on the device if the caller still wants it.
    fn run<R>(
        &mut self,
        work: impl FnOnce(&mut Engine, &RunContext<'a>) -> Result<R, Failure>,
    ) -> Result<R, KernelError> {
        self.context.check()?;
        work(self.engine, &self.context).map_err(|failure| self.engine.error(failure))
    }

    fn buffer<T>(&self, address: u64, len: usize) -> DeviceBuffer<T> {
        DeviceBuffer { address, len, generation: self.engine.arena.generation(), element: PhantomData }
    }
}

/// Where an array is downloaded to.
enum Room<T> {
    Pinned(Pinned),
    Vec(Vec<T>),
}

impl<T: Element> Room<T> {
    fn of(len: usize, memory: &PinnedMemory) -> Self {
        let bytes = bytes_of::<T>(len);
        let pinned = (bytes >= LARGE).then(|| memory.take(bytes)).flatten();
        pinned.map_or_else(|| Self::Vec(room_for(len)), Self::Pinned)
    }
}

fn as_bytes<T>(elements: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<u8>] {
    let bytes = size_of_val(elements);
    // SAFETY: the same memory; bytes that need not be initialised have no alignment and no padding to respect.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), bytes) }
}

/// Saturates where no address space is that large; nothing of that size is ever allocated.
fn bytes_of<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>())
}
