use std::time::Duration;

use super::payload::Encoding;

/// The estimated cost of a run: memory traffic, arithmetic, and device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes moved through memory: each input is read once, each output written once, and scratch memory counts as often
    /// as it is accessed.
    pub bytes: u64,
    /// Arithmetic operations.
    pub operations: u64,
    /// Peak bytes of device memory.
    pub device_memory: u64,
}

impl Cost {
    /// Estimates the run time at these rates. Memory traffic and arithmetic overlap, so the slower of the two counts.
    pub fn time(&self, bytes_per_second: f64, operations_per_second: f64) -> Duration {
        let seconds = (self.bytes as f64 / bytes_per_second).max(self.operations as f64 / operations_per_second);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The peak host memory of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the output's arrays in memory, such as 8 for each `f64`. The size of the encoded output is derived from
    /// it.
    pub output: u64,
    /// Bytes of scratch memory, without input and output: copies of the input in another form, working memory.
    pub scratch: u64,
}

impl Footprint {
    /// Returns the bytes of an output array with this many elements of type `T`.
    ///
    /// ```
    /// use tower_kernels::service::Footprint;
    ///
    /// assert_eq!(Footprint::of_array::<f64>(1000), 8000);
    /// ```
    pub fn of_array<T>(elements: u64) -> u64 {
        elements.saturating_mul(size_of::<T>() as u64)
    }

    /// Returns the minimum size of the encoded output. In JSON a number takes at least a digit and a separator, and
    /// comes from at most 8 bytes of an array.
    pub(crate) fn min_encoded(&self, encoding: Encoding) -> u64 {
        match encoding {
            Encoding::Json => self.output / 4,
            Encoding::Tensors => self.output,
            Encoding::Typed => 0,
        }
    }

    /// Returns the maximum size of the output as JSON, in a response of at most `max_response_size` bytes. An `f64` takes
    /// up to 24 characters and a separator, and no other number takes more than 4 for each of its bytes.
    pub(crate) fn max_as_json(&self, max_response_size: u64) -> u64 {
        /// Field names, brackets and scalars.
        const FRAME: u64 = 512;
        self.output.saturating_mul(4).saturating_add(FRAME).min(max_response_size)
    }

    /// Returns the bytes to reserve for a run with this encoding of the output.
    pub(crate) fn reserved(&self, encoding: Encoding, max_response_size: u64) -> u64 {
        let encoded = match encoding {
            Encoding::Json => self.max_as_json(max_response_size),
            // These share the memory of the output.
            Encoding::Tensors | Encoding::Typed => 0,
        };
        self.output.saturating_add(self.scratch).saturating_add(encoded)
    }
}
