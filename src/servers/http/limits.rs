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
