//! The requests within a call of `ExecuteStream` or `ModelStreamInfer`.

use super::access::{Entry, Source};
use super::counts::{Call, RequestMetrics, Transport};
use crate::middleware::tracing::RequestScope;
use crate::request::request_id::RequestId;

/// Counts and logs the requests within a call: an extension of the call's request.
#[derive(Clone, Debug)]
pub(crate) struct StreamRequests {
    metrics: RequestMetrics,
    /// `None` where their ends are not logged.
    source: Option<Source>,
}

impl StreamRequests {
    pub(super) fn new(metrics: RequestMetrics, source: Option<Source>) -> Self {
        Self { metrics, source }
    }

    /// Whether the ends of the requests are logged.
    pub(crate) fn are_logged(&self) -> bool {
        self.source.is_some()
    }

    /// Counts a request that has been read, of so many bytes.
    pub(crate) fn begin(&self, request_id: &RequestId, scope: Option<&RequestScope>, bytes: usize) -> Call {
        let mut call = self.metrics.begin(Transport::GrpcStream);
        if let (Some(source), Some(scope)) = (&self.source, scope) {
            scope.add_received(bytes as u64);
            call.log_end(Entry::new(source.clone(), request_id.clone(), scope.clone()));
        }
        call
    }
}

impl Call {
    /// Notes the response to a request within a stream.
    pub(crate) fn respond(&mut self, grpc_status: i32, response: &impl prost::Message) {
        if let Some(entry) = self.entry() {
            entry.set_grpc_status(grpc_status);
            entry.sent = response.encoded_len() as u64;
        }
    }
}
