//! Keeps arrays out of a value that crosses to another process: each is a section beside the value, which has a number in
//! its place.
//!
//! serde cannot pass context to a `Serialize` or `Deserialize`, so the sections are in a thread-local while the thread
//! writes or reads a value. The number is the section's index and its dtype. Outside of a transfer there are no sections, and
//! a number in place of an array is the error that it is.

use std::cell::RefCell;
use std::mem;

use bytes::Bytes;
use serde::de::{self, Expected, Unexpected};

use super::{Buffer, Element};
use crate::buffer::DType;

thread_local! {
    static SECTIONS: RefCell<Sections> = const { RefCell::new(Sections::None) };
}

enum Sections {
    /// This thread has no transfer.
    None,
    Written(Vec<Bytes>),
    Read(Vec<Section>),
}

/// A section that is read.
struct Section {
    bytes: Bytes,
    /// Each is copied at most once, so that a hostile value, which may name one section any number of times, takes no more
    /// memory than its sections.
    is_copied: bool,
}

/// Restores the previous sections when a transfer ends, by a panic as well.
struct Restore(Sections);

impl Restore {
    fn enter(sections: Sections) -> Self {
        Self(SECTIONS.replace(sections))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        SECTIONS.replace(mem::replace(&mut self.0, Sections::None));
    }
}

/// Runs `write`; returns the arrays that were written meanwhile.
pub(crate) fn collecting_sections<R>(write: impl FnOnce() -> R) -> (R, Vec<Bytes>) {
    let _restore = Restore::enter(Sections::Written(Vec::new()));
    let written = write();
    match SECTIONS.replace(Sections::None) {
        Sections::Written(sections) => (written, sections),
        _ => unreachable!("transfers within this one have restored it"),
    }
}

/// Runs `read`, in which numbers stand for these arrays.
pub(crate) fn with_sections<R>(sections: Vec<Bytes>, read: impl FnOnce() -> R) -> R {
    let sections = sections.into_iter().map(|bytes| Section { bytes, is_copied: false });
    let _restore = Restore::enter(Sections::Read(sections.collect()));
    read()
}

/// Returns whether this thread writes or reads a value that crosses to another process.
pub(crate) fn is_transfer() -> bool {
    SECTIONS.with_borrow(|sections| !matches!(sections, Sections::None))
}

/// Adds a section, and returns the number to write in its place; `None` if this thread writes no transfer.
pub(crate) fn add_section(dtype: DType, bytes: impl FnOnce() -> Bytes) -> Option<u64> {
    SECTIONS.with_borrow_mut(|sections| match sections {
        Sections::Written(sections) => {
            sections.push(bytes());
            Some(number(sections.len() - 1, dtype))
        }
        Sections::None | Sections::Read(_) => None,
    })
}

/// Dtypes that a number can tell apart.
const DTYPES: u64 = 16;

fn number(index: usize, dtype: DType) -> u64 {
    let code = DType::ALL.iter().position(|known| *known == dtype).expect("all dtypes are known");
    index as u64 * DTYPES + code as u64
}

/// Returns the dtype of the section with this number; `None` if this thread reads no transfer, or if there is no such dtype.
pub(super) fn dtype_of_section(number: u64) -> Option<DType> {
    let is_reading = SECTIONS.with_borrow(|sections| matches!(sections, Sections::Read(_)));
    let code = usize::try_from(number % DTYPES).ok()?;
    DType::ALL.get(code).copied().filter(|_| is_reading)
}

/// Returns the section with this number.
///
/// # Errors
/// This thread reads no transfer, and `expected` is expected where the number is. There is no such section, its dtype is
/// another one, or its length no multiple of `size`.
pub(crate) fn section_bytes<E: de::Error>(
    number: u64,
    dtype: DType,
    size: usize,
    expected: &dyn Expected,
) -> Result<Bytes, E> {
    with_section(number, dtype, size, expected, |section| Ok(section.bytes.clone()))
}

/// Returns the array in the section with this number. It shares the section's memory if that is aligned.
///
/// # Errors
/// As of [`section_bytes`], and the section was copied already.
pub(crate) fn array_of_section<T: Element, E: de::Error>(number: u64, expected: &dyn Expected) -> Result<Buffer<T>, E> {
    with_section(number, T::DTYPE, size_of::<T>(), expected, |section| {
        if section.bytes.is_empty() {
            // An empty slice may have any address.
            return Ok(Buffer::default());
        }
        match Buffer::from_bytes(section.bytes.clone()) {
            Some(shared) => Ok(shared),
            None => section.copy().map(Buffer::from),
        }
    })
}

/// Returns a copy of the pairs in the section with this number.
///
/// # Errors
/// As of [`array_of_section`].
pub(super) fn pairs_of_section<E: de::Error>(number: u64, expected: &dyn Expected) -> Result<Vec<[u32; 2]>, E> {
    with_section(number, DType::U32, size_of::<[u32; 2]>(), expected, Section::copy)
}

impl Section {
    fn copy<T: bytemuck::Pod, E: de::Error>(&mut self) -> Result<Vec<T>, E> {
        if mem::replace(&mut self.is_copied, true) {
            return Err(E::custom("a section is named twice"));
        }
        let mut elements = vec![T::zeroed(); self.bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut elements).copy_from_slice(&self.bytes);
        Ok(elements)
    }
}

fn with_section<R, E: de::Error>(
    number: u64,
    dtype: DType,
    size: usize,
    expected: &dyn Expected,
    read: impl FnOnce(&mut Section) -> Result<R, E>,
) -> Result<R, E> {
    SECTIONS.with_borrow_mut(|sections| {
        let Sections::Read(sections) = sections else {
            return Err(E::invalid_type(Unexpected::Unsigned(number), expected));
        };
        let index = usize::try_from(number / DTYPES).unwrap_or(usize::MAX);
        let count = sections.len();
        let Some(section) = sections.get_mut(index) else {
            return Err(E::custom(format_args!("section {index}, and there are {count}")));
        };
        match DType::ALL.get((number % DTYPES) as usize) {
            Some(found) if *found == dtype => {}
            Some(found) => return Err(E::custom(format_args!("section {index} is {found} where {dtype} is expected"))),
            None => return Err(E::custom(format_args!("section {index} is of an unknown dtype"))),
        }
        if !section.bytes.len().is_multiple_of(size) {
            return Err(E::custom(format_args!(
                "section {index} has {} bytes, which is no multiple of {size}",
                section.bytes.len()
            )));
        }
        read(section)
    })
}
