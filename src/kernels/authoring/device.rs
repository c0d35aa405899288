//! The host side of generated kernels on CUDA: transfers, arguments and launches.

use std::any::Any;

use super::column::Column;
use crate::cuda::{Arg, DeviceBuffer, Launch, Module};
use crate::service::LaunchContext;
use crate::service::{Buffer, Element, KernelError};

/// A device function: a module and the name of its entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The code.
    pub module: &'static Module,
    /// The name of an `extern "C" __global__` function in it.
    pub name: &'static str,
}

/// The arguments of a launch while its inputs are uploaded.
pub struct Arguments<'c, 'l> {
    cuda: &'c mut LaunchContext<'l>,
    values: Vec<Box<dyn Arg>>,
    /// Uploaded arrays, of any element type, whose memory an output may take over: not copies of operands.
    arrays: Vec<Box<dyn Any>>,
}

impl<'c, 'l> Arguments<'c, 'l> {
    fn new(cuda: &'c mut LaunchContext<'l>) -> Self {
        Self { cuda, values: Vec::new(), arrays: Vec::new() }
    }

    pub(super) fn push(&mut self, value: impl Arg + 'static) {
        self.values.push(Box::new(value));
    }

    /// Uploads one array made of these parts, or finds the copy of an operand.
    pub(super) fn upload<'p, T: Element>(
        &mut self,
        parts: impl IntoIterator<Item = &'p [T]>,
    ) -> Result<(), KernelError> {
        let array = self.cuda.input_parts(parts)?;
        if !array.is_read_only() {
            self.arrays.push(Box::new(array));
        }
        self.push(array);
        Ok(())
    }

    /// Uploads one value for all rows.
    pub(super) fn upload_one<T: Element>(&mut self, value: T) -> Result<(), KernelError> {
        let array = self.cuda.upload(&[value])?;
        self.push(array);
        Ok(())
    }

    /// An array for an output: that of an input of the same type, where one is left, as each thread reads the inputs of
    /// its rows before it writes their outputs.
    fn output<T: Element>(&mut self, rows: usize) -> Result<DeviceBuffer<T>, KernelError> {
        let reusable = self.arrays.iter().position(|array| array.is::<DeviceBuffer<T>>());
        let array = reusable.and_then(|index| self.arrays.swap_remove(index).downcast::<DeviceBuffer<T>>().ok());
        match array {
            Some(array) => Ok(*array),
            None => self.cuda.alloc(rows),
        }
    }

    fn launch(&mut self, entry: Entry, launch: Launch) -> Result<(), KernelError> {
        let values: Vec<&dyn Arg> = self.values.iter().map(|value| &**value).collect();
        self.cuda.launch(entry.module, entry.name, launch, &values)
    }
}

impl std::fmt::Debug for Arguments<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

/// Runs an elementwise kernel for requests of these numbers of rows, in one launch: the `N` outputs of each.
///
/// The entry takes the number of rows as `u64`, the arguments of each column in order, and a pointer to each output.
///
/// # Errors
/// Those of the launch context.
pub fn map_rows_cuda<C: Column, T: Element, const N: usize>(
    columns: &[C],
    rows: &[usize],
    entry: Entry,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<[Buffer<T>; N]>, KernelError> {
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let total: usize = rows.iter().sum();
    let mut arguments = Arguments::new(cuda);
    arguments.push(total as u64);
    C::upload(columns, &mut arguments)?;
    let mut outputs = Vec::with_capacity(N);
    for _ in 0..N {
        let output = arguments.output::<T>(total)?;
        arguments.push(output);
        outputs.push(output);
    }
    // A thread takes 16 bytes of an output at a time.
    let width = (16 / size_of::<T>()).max(1);
    arguments.launch(entry, Launch::elements(total.div_ceil(width), 1 << 20))?;
    let outputs: [&DeviceBuffer<T>; N] = std::array::from_fn(|output| &outputs[output]);
    let mut parts = cuda.download_all_parts(outputs, rows)?.map(Vec::into_iter);
    let mut next = || parts.each_mut().map(|parts| parts.next().expect("a part for each request"));
    Ok(rows.iter().map(|_| next()).collect())
}

/// Runs a reduction for requests of these numbers of rows: the state of each.
///
/// The entry takes what `reduce.cuh` says and the arguments of each column; `merge` is its second entry.
///
/// # Errors
/// Those of the launch context.
pub fn reduce_cuda<C: Column, const N: usize>(
    columns: &[C],
    rows: &[usize],
    entry: Entry,
    merge: Entry,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<[f64; N]>, KernelError> {
    let Some(blocks) = rows.iter().map(|&rows| blocks_of(rows)).max() else { return Ok(Vec::new()) };
    let segments = u32::try_from(rows.len()).map_err(|_| KernelError::kernel("too many requests share a run"))?;
    let ends = rows.iter().scan(0_u64, |end, &rows| {
        *end += rows as u64;
        Some(*end)
    });
    let offsets: Vec<u64> = std::iter::once(0).chain(ends).collect();
    let offsets = cuda.upload(&offsets)?;
    let partials = cuda.alloc::<f64>(N * blocks as usize * rows.len())?;
    let mut arguments = Arguments::new(cuda);
    arguments.push(segments);
    arguments.push(offsets);
    arguments.push(partials);
    C::upload(columns, &mut arguments)?;
    let grid = Launch { grid: [blocks, segments.min(65_535), 1], ..Launch::new(blocks, 256) };
    arguments.launch(entry, grid)?;
    let states = if blocks == 1 {
        partials
    } else {
        let states = cuda.alloc::<f64>(N * rows.len())?;
        let grid = Launch::new(segments.min(65_535), 256);
        cuda.launch(merge.module, merge.name, grid, &[&segments, &offsets, &blocks, &partials, &states])?;
        states
    };
    let states = cuda.download(&states)?;
    Ok(states.as_chunks().0.to_vec())
}

/// How many blocks reduce the rows of one request; `reduce.cuh` has the same numbers.
fn blocks_of(rows: usize) -> u32 {
    rows.div_ceil(4096).clamp(1, 1024) as u32
}
