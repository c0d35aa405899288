use std::time::Duration;

/// Limits of a [`KernelGrpcServer`](super::KernelGrpcServer).
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Maximum time of a call, including the wait for readiness. Default: 30 s. Clients can set a shorter deadline. On
    /// a stream it applies to each request.
    pub timeout: Duration,
    /// Maximum size of a request message, before and after decompression, in bytes. Default: 64 MiB.
    pub max_request_size: usize,
    /// Maximum size of a response message, in bytes. Default: 64 MiB. Clients have limits of their own, usually 4 MiB.
    pub max_response_size: usize,
    /// Maximum number of requests of a stream that run or whose responses are unread. Default: 256. Fewer run if the
    /// pipeline is at capacity. Further requests are not read until then.
    pub max_concurrent_per_stream: usize,
    /// Accepts requests compressed with gzip. Default: no, they are rejected with `UNIMPLEMENTED`. The maximum memory
    /// of a compressed message is charged before it is decompressed, and `max_request_size` limits the decompression.
    pub compressed_requests: bool,
    /// Compresses responses with gzip for clients that accept it. Default: no. Most clients accept it by default, and
    /// it is far slower than a network of 10 Gbit/s.
    pub compress_responses: bool,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            max_request_size: 64 << 20,
            max_response_size: 64 << 20,
            max_concurrent_per_stream: 256,
            compressed_requests: false,
            compress_responses: false,
        }
    }
}
