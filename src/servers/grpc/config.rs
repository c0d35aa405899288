use std::time::Duration;

/// What a [`KernelGrpcServer`](super::KernelGrpcServer) allows.
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// The most that a call may take, its wait for room included: 30 s. A client's own deadline counts where it is
    /// earlier. On a stream it holds for each request.
    pub timeout: Duration,
    /// The most bytes in a request's message, after decompression too: 64 MiB.
    pub max_request_size: usize,
    /// The most bytes in an answer's message: 64 MiB. Clients have limits of their own, mostly of 4 MiB.
    pub max_response_size: usize,
    /// The most requests of one stream that run or whose responses are unread: 256. Fewer run where the pipeline has no
    /// room. Further requests are not read meanwhile.
    pub max_concurrent_per_stream: usize,
    /// Whether requests may be compressed, with gzip: no. Those that are get `UNIMPLEMENTED` where they may not. What a
    /// compressed message can take is charged before it is decompressed, and `max_request_size` ends the decompression.
    pub compressed_requests: bool,
    /// Whether answers are compressed, with gzip, for clients that take it: no.
    /// Most clients say that they take gzip without asking for it, and it costs far more time than a network's 10 Gbit/s.
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
