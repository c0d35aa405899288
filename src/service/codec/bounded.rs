//! Bounds the encoding of an output: its size, its memory, and its time.

use std::cell::{Cell, RefCell};
use std::io;

use crate::service::{HostReservation, KernelError, RunContext};

/// Bytes written between two checks.
const INTERVAL: usize = 64 << 10;

/// The first allocation of a document of unknown length.
const INITIAL: usize = 128;

/// Writes a document. It fails as soon as the document is longer than a response may be, its memory cannot be reserved, or the
/// request was cancelled or is late.
pub(super) struct BoundedWriter<'a> {
    document: Vec<u8>,
    /// The length up to which there is capacity and no check is due.
    unchecked: usize,
    context: &'a RunContext<'a>,
    error: Option<KernelError>,
}

impl<'a> BoundedWriter<'a> {
    /// Starts a document of at most `expected` bytes, which were reserved.
    pub(super) fn new(expected: usize, context: &'a RunContext<'a>) -> Self {
        let document = Vec::with_capacity(expected.max(INITIAL));
        let unchecked = within_limit(document.capacity().min(INTERVAL) as u64, context);
        Self { unchecked: usize::try_from(unchecked).unwrap_or(usize::MAX), document, context, error: None }
    }

    /// Returns the document without much unused capacity.
    pub(super) fn finish(mut self) -> Vec<u8> {
        // Small documents do not live long enough for it to matter.
        if self.document.capacity() - self.document.len() > INTERVAL {
            self.document.shrink_to_fit();
        }
        self.document
    }

    /// Returns the bound that stopped the writing, if one did.
    pub(super) fn into_error(self) -> Option<KernelError> {
        self.error
    }

    #[cold]
    fn check(&mut self, more: usize) -> Result<(), KernelError> {
        self.context.check()?;
        let length = self.document.len() + more;
        let memory = self.context.memory();
        let max = max_response_size(memory);
        if length as u64 > max {
            return Err(KernelError::ResponseTooLarge { max });
        }
        if length > self.document.capacity() {
            let doubled = (2 * self.document.capacity() as u64).min(max);
            let capacity = length.max(usize::try_from(doubled).unwrap_or(usize::MAX));
            if let Some(memory) = memory {
                memory.grow((capacity - self.document.capacity()) as u64)?;
            }
            self.document.reserve_exact(capacity - self.document.len());
        }
        self.unchecked = (length + INTERVAL).min(self.document.capacity());
        Ok(())
    }
}

impl io::Write for BoundedWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.document.len() + bytes.len() > self.unchecked
            && let Err(error) = self.check(bytes.len())
        {
            self.error = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.document.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bounds the writing of tensors, over all of them.
pub(super) struct TensorBounds<'a> {
    /// Bytes of all tensors so far, copied and shared.
    length: Cell<u64>,
    /// The length up to which no check is due.
    unchecked: Cell<u64>,
    /// Copied bytes that were not reserved yet.
    copied: Cell<u64>,
    context: &'a RunContext<'a>,
    error: RefCell<Option<KernelError>>,
}

impl<'a> TensorBounds<'a> {
    pub(super) fn new(context: &'a RunContext<'a>) -> Self {
        let unchecked = Cell::new(within_limit(INTERVAL as u64, context));
        Self { length: Cell::new(0), unchecked, copied: Cell::new(0), context, error: RefCell::new(None) }
    }

    /// Counts elements that are copied into a tensor. Returns whether to go on.
    #[inline]
    pub(super) fn copy(&self, bytes: usize) -> bool {
        self.copied.set(self.copied.get() + bytes as u64);
        self.add(bytes)
    }

    /// Counts elements that a tensor shares with the output. Returns whether to go on.
    #[inline]
    pub(super) fn add(&self, bytes: usize) -> bool {
        self.length.set(self.length.get() + bytes as u64);
        self.length.get() <= self.unchecked.get() || self.check()
    }

    #[cold]
    fn check(&self) -> bool {
        let result = self.try_check();
        let is_ok = result.is_ok();
        self.error.replace(result.err());
        is_ok
    }

    fn try_check(&self) -> Result<(), KernelError> {
        self.context.check()?;
        let memory = self.context.memory();
        let max = max_response_size(memory);
        if self.length.get() > max {
            return Err(KernelError::ResponseTooLarge { max });
        }
        if let Some(memory) = memory {
            // Twice, as a growing array can have as much unused capacity.
            memory.grow(2 * self.copied.take())?;
        }
        self.unchecked.set((self.length.get() + INTERVAL as u64).min(max));
        Ok(())
    }

    /// Returns the bound that stopped the writing, if one did.
    pub(super) fn into_error(self) -> Option<KernelError> {
        self.error.into_inner()
    }
}

fn within_limit(length: u64, context: &RunContext<'_>) -> u64 {
    length.min(max_response_size(context.memory()))
}

fn max_response_size(memory: Option<&HostReservation>) -> u64 {
    memory.map_or(u64::MAX, HostReservation::max_response_size)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

    use crate::error::{Classify, ErrorKind};
    use crate::service::codec::{encode_json, encode_tensors};
    use crate::service::{Buffer, HostMemory, KernelError, RunContext};

    const MANY: u64 = 1 << 20;

    /// A field of many numbers, which counts how many have been asked for.
    struct Numbers {
        asked: Cell<u64>,
        many: u64,
    }

    impl Numbers {
        fn new(many: u64) -> Self {
            Self { asked: Cell::new(0), many }
        }
    }

    impl Serialize for Numbers {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut numbers = serializer.serialize_seq(None)?;
            for number in 0..self.many {
                self.asked.set(number + 1);
                numbers.serialize_element(&number)?;
            }
            numbers.end()
        }
    }

    struct Output<'a, T>(&'a T);

    impl<T: Serialize> Serialize for Output<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut output = serializer.serialize_struct("Output", 1)?;
            output.serialize_field("numbers", self.0)?;
            output.end()
        }
    }

    /// In both encodings: the error, and how many numbers were asked for until then.
    fn both(context: &RunContext<'_>) -> [(KernelError, u64); 2] {
        let (json, tensors) = (Numbers::new(MANY), Numbers::new(MANY));
        let errors = [
            encode_json(&Output(&json), 0, context).unwrap_err(),
            encode_tensors(&Output(&tensors), context).unwrap_err(),
        ];
        let [json_error, tensors_error] = errors;
        [(json_error, json.asked.get()), (tensors_error, tensors.asked.get())]
    }

    #[test]
    fn nothing_is_encoded_past_the_limit_the_deadline_or_the_memory() {
        let memory = HostMemory::new(1 << 20);
        let short = memory.reservation(100_000);
        for (error, asked) in both(&RunContext::detached().with_memory(Some(&short))) {
            assert!(matches!(error, KernelError::ResponseTooLarge { max: 100_000 }), "{error}");
            assert!(asked < 100_000, "{asked}");
        }
        let long = memory.reservation(u64::MAX);
        for (error, asked) in both(&RunContext::detached().with_memory(Some(&long))) {
            assert_eq!(error.kind(), ErrorKind::TooLarge, "half of the memory is the most: {error}");
            assert!(asked < 300_000, "{asked}");
        }
        let passed = Instant::now() - Duration::from_secs(1);
        for (error, asked) in both(&RunContext::new(None, Some(passed))) {
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
            assert!(asked < 100_000, "{asked}");
        }
    }

    #[test]
    fn what_fits_is_written_whole_however_its_room_grows() {
        let memory = HostMemory::new(64 << 20);
        for (expected, many) in [(0, 0), (0, 10), (0, 100_000), (100, 100_000), (1 << 20, 100_000), (1 << 20, 10)] {
            let held = memory.reservation(1 << 20);
            let context = RunContext::detached().with_memory(Some(&held));
            let numbers = Numbers::new(many);
            let written = encode_json(&Output(&numbers), expected, &context).unwrap();
            assert_eq!(written, serde_json::to_vec(&Output(&Numbers::new(many))).unwrap());
            assert!(held.bytes() + expected.max(128) as u64 >= written.len() as u64);
        }
        // To the byte.
        let output = Numbers::new(30_000);
        let length = serde_json::to_vec(&Output(&output)).unwrap().len() as u64;
        for (max, fits) in [(length, true), (length - 1, false)] {
            let held = memory.reservation(max);
            let context = RunContext::detached().with_memory(Some(&held));
            assert_eq!(encode_json(&Output(&output), 0, &context).is_ok(), fits);
        }
    }

    #[test]
    fn arrays_that_tensors_share_count_for_the_limit_and_take_no_memory() {
        let memory = HostMemory::new(1 << 20);
        let shared: Buffer<f64> = vec![1.5; 1 << 18].into();
        for (max, fits) in [(2 << 20, true), ((2 << 20) - 1, false)] {
            let held = memory.reservation(max);
            let context = RunContext::detached().with_memory(Some(&held));
            assert_eq!(encode_tensors(&Output(&shared), &context).is_ok(), fits);
            assert_eq!(held.bytes(), 0);
        }
    }
}
