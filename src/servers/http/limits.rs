use std::time::Duration;

use crate::service::HostMemory;

/// Limits on the time, memory and size of requests and responses.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Maximum time of a request.
    pub(crate) timeout: Duration,
    pub(crate) memory: HostMemory,
    /// Maximum size of a request's body, in bytes.
    pub(crate) max_request_size: usize,
    /// Maximum size of an encoded output, in bytes.
    pub(crate) max_response_size: u64,
}

impl Limits {
    /// Limits without a limit on memory, and with the response size of gRPC.
    pub(crate) fn new(timeout: Duration, max_request_size: usize) -> Self {
        Self { timeout, memory: HostMemory::unlimited(), max_request_size, max_response_size: 64 << 20 }
    }
}

/// Setters of the [`Limits`] in the given field of a server.
macro_rules! limit_setters {
    ($($field:ident).+) => {
        /// Sets the maximum time of a request, from its arrival to its response. Default: the timeout of the pipeline,
        /// or 30 s without a pipeline. Clients can set a shorter one.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($field).+.timeout = timeout;
            self
        }

        /// Sets the maximum size of an encoded output, in bytes. Default: 64 MiB. A larger output is rejected before
        /// the kernel runs if its [footprint](crate::service::Kernel::footprint) is known, and otherwise as soon as it
        /// is too long.
        #[must_use]
        pub fn max_response_size(mut self, bytes: u64) -> Self {
            self.$($field).+.max_response_size = bytes;
            self
        }

        /// Limits the memory of all requests together. Clones are one limit, which several servers can share. Default:
        /// no limit.
        #[must_use]
        pub fn memory(mut self, memory: $crate::service::HostMemory) -> Self {
            self.$($field).+.memory = memory;
            self
        }
    };
}
pub(crate) use limit_setters;
