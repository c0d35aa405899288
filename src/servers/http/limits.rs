use std::time::Duration;

use crate::service::HostMemory;

/// What requests may take, hold, and bring and take back.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The most time that a request has.
    pub(crate) timeout: Duration,
    pub(crate) memory: HostMemory,
    /// The most bytes of a request's body.
    pub(crate) max_request_size: usize,
    /// The most bytes of a kernel's output in its encoded form.
    pub(crate) max_response_size: u64,
}

impl Limits {
    /// No limit on the memory, and responses of the size that gRPC has.
    pub(crate) fn new(timeout: Duration, max_request_size: usize) -> Self {
        Self { timeout, memory: HostMemory::unlimited(), max_request_size, max_response_size: 64 << 20 }
    }
}

/// The methods by which a server of HTTP sets its [`Limits`], which are in this field of it.
macro_rules! limit_setters {
    ($($field:ident).+) => {
        /// Sets the most time that a request has, from its arrival to its response: if nothing is said, the timeout of the
        /// pipeline, and 30 s where there is none. Clients can ask for less.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field).+.timeout = timeout;
            self
        }

        /// Sets the most bytes that the output of a request may have in its encoded form: 64 MiB if nothing is said. A larger
        /// one is rejected before the run where the kernel's [footprint](crate::service::Kernel::footprint) tells, and as soon
        /// as it is too long where it does not.
        #[must_use]
        pub fn max_response_size(mut self, bytes: u64) -> Self {
            self.$($field).+.max_response_size = bytes;
            self
        }

        /// Limits the memory that requests hold at one time: the same for all servers that are given clones. Without it
        /// there is no limit but on each of them.
        #[must_use]
        pub fn memory(mut self, memory: $crate::service::HostMemory) -> Self {
            self.$($field).+.memory = memory;
            self
        }
    };
}
pub(crate) use limit_setters;
