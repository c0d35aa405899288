use std::time::Duration;

use crate::servers::operands::{MAX_OPERAND_SIZE, OPERAND_TIMEOUT};
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
    /// Maximum size of an uploaded operand, in bytes.
    pub(crate) max_operand_size: usize,
    /// Maximum time of the upload of an operand.
    pub(crate) operand_timeout: Duration,
}

impl Limits {
    /// Limits without a limit on memory, and with the response size of gRPC.
    pub(crate) fn new(timeout: Duration, max_request_size: usize) -> Self {
        Self {
            timeout,
            memory: HostMemory::unlimited(),
            max_request_size,
            max_response_size: 64 << 20,
            max_operand_size: MAX_OPERAND_SIZE,
            operand_timeout: OPERAND_TIMEOUT,
        }
    }
}
