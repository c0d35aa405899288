//! The shape of a launch, and its arguments.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use cudarc::driver::sys::CUdeviceptr;

use crate::buffer::Element;

/// The shape of a launch: its grid, its blocks and their shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Blocks in each dimension.
    pub grid: [u32; 3],
    /// Threads of a block in each dimension.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// Whether it is a cooperative launch: all blocks are resident at the same time, so that they can synchronize. A grid
    /// that is too large for that is an error.
    pub cooperative: bool,
    /// Whether blocks may begin before the launch before this one on the stream has ended, so that starting them takes no time
    /// of its own. The kernel must execute `griddepcontrol.wait` before it reads what another kernel has written, and before it
    /// writes anything. Code for architectures before 9.0, which do not have it, and drivers before 550 run the launches
    /// one after the other. Not for cooperative launches.
    pub overlapping: bool,
}

impl Launch {
    /// `grid` blocks of `block` threads, without dynamic shared memory.
    pub const fn new(grid: u32, block: u32) -> Self {
        Self { grid: [grid, 1, 1], block: [block, 1, 1], shared: 0, cooperative: false, overlapping: false }
    }

    /// As [`new`](Self::new), as a cooperative launch.
    pub const fn cooperative(grid: u32, block: u32) -> Self {
        Self { cooperative: true, ..Self::new(grid, block) }
    }

    /// One thread for each element, in blocks of 256 threads, and at most `max_blocks` blocks: a kernel with a grid-stride
    /// loop needs no more than the device can hold at a time.
    pub const fn elements(elements: usize, max_blocks: u32) -> Self {
        let blocks = elements.div_ceil(256);
        Self::new(if blocks < max_blocks as usize { blocks as u32 } else { max_blocks }, 256)
    }

    pub(super) const fn is_empty(self) -> bool {
        let ([a, b, c], [d, e, f]) = (self.grid, self.block);
        a == 0 || b == 0 || c == 0 || d == 0 || e == 0 || f == 0
    }
}

/// An array in device memory, valid until the run that made it ends. Using it after that is an error.
///
/// A copy refers to the same array.
#[derive(Debug)]
pub struct DeviceBuffer<T> {
    pub(super) address: CUdeviceptr,
    pub(super) len: usize,
    pub(super) generation: u64,
    pub(super) read_only: bool,
    pub(super) element: PhantomData<T>,
}

impl<T> Clone for DeviceBuffer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceBuffer<T> {}

impl<T: Element> DeviceBuffer<T> {
    /// Returns the number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it has no elements.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether kernels may only read it: see [`LaunchContext::input`](super::LaunchContext::input).
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns whether the address of the first element is a multiple of `bytes`.
    pub const fn is_aligned_to(&self, bytes: u64) -> bool {
        self.address.is_multiple_of(bytes)
    }

    /// Returns the part of the array in `range`.
    ///
    /// # Panics
    /// If the range is not within the array.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        assert!(start <= end && end <= self.len, "{start}..{end} of {} elements", self.len);
        Self { address: self.address + (start * size_of::<T>()) as u64, len: end - start, ..*self }
    }
}

/// The flag that a running kernel may poll: it changes from 0 to 1 once the run is cancelled or its deadline has passed. The
/// type of the kernel's parameter is `const volatile unsigned*`.
#[derive(Clone, Copy, Debug)]
pub struct CancelFlag {
    pub(super) address: CUdeviceptr,
    pub(super) generation: u64,
}

/// An argument of a launch: a number, or a [`DeviceBuffer`] or [`CancelFlag`], which are passed as pointers.
pub trait Arg: sealed::Pack {}

/// The bytes of an argument.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    pub(super) bits: u64,
    pub(super) size: usize,
    /// The generation of the arena that a pointer points into.
    pub(super) generation: Option<u64>,
}

mod sealed {
    pub trait Pack {
        #[doc(hidden)]
        fn pack(&self) -> super::Packed;
    }
}

macro_rules! numbers {
    ($($type:ident: $value:ident => $bits:expr;)*) => {$(
        impl sealed::Pack for $type {
            fn pack(&self) -> Packed {
                let $value = *self;
                Packed { bits: $bits, size: size_of::<$type>(), generation: None }
            }
        }
        impl Arg for $type {}
    )*};
}
numbers! {
    u32: value => u64::from(value);
    i32: value => u64::from(value.cast_unsigned());
    u64: value => value;
    i64: value => value.cast_unsigned();
    f32: value => u64::from(value.to_bits());
    f64: value => value.to_bits();
}

impl<T: Element> sealed::Pack for DeviceBuffer<T> {
    fn pack(&self) -> Packed {
        Packed { bits: self.address, size: 8, generation: Some(self.generation) }
    }
}

impl<T: Element> Arg for DeviceBuffer<T> {}

impl sealed::Pack for CancelFlag {
    fn pack(&self) -> Packed {
        Packed { bits: self.address, size: 8, generation: Some(self.generation) }
    }
}

impl Arg for CancelFlag {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_its_elements_up_to_the_maximum() {
        assert_eq!(Launch::elements(1, 100).grid, [1, 1, 1]);
        assert_eq!(Launch::elements(257, 100).grid, [2, 1, 1]);
        assert_eq!(Launch::elements(usize::MAX, 100).grid, [100, 1, 1]);
        assert!(Launch::elements(0, 100).is_empty());
    }

    #[test]
    fn a_part_of_a_buffer_starts_where_it_should() {
        let buffer =
            DeviceBuffer::<f64> { address: 4096, len: 10, generation: 1, read_only: false, element: PhantomData };
        let part = buffer.slice(2..=4);
        assert_eq!((part.address, part.len), (4096 + 16, 3));
        assert!(std::panic::catch_unwind(|| buffer.slice(..11)).is_err());
        assert!(std::panic::catch_unwind(|| buffer.slice(12..)).is_err());
    }
}
