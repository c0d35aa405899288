//! What a call says of itself beside its message.

use std::sync::Arc;
use std::time::Instant;

use http::Extensions;
use tonic::metadata::MetadataMap;

use super::arrival::Arrival;
use crate::servers::headers::{REQUEST_ID, is_request_id, made_request_id, trace_context};
use crate::service::{Invalid, KernelRequest, Payload, Priority, Tenant, TraceContext};

/// On whose behalf a call is made, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) request_id: Arc<str>,
    pub(super) arrival: Arrival,
    tenant: Option<Arc<str>>,
    priority: Priority,
    trace: Option<Box<TraceContext>>,
    extensions: Extensions,
}

impl Caller {
    /// Reads the metadata; what a layer or an interceptor has put into `extensions` goes before it.
    pub(super) fn new(metadata: &MetadataMap, extensions: Extensions, arrival: Arrival) -> Result<Self, Invalid> {
        let request_id = match text(metadata, REQUEST_ID.as_str()) {
            Some(id) if is_request_id(id.as_bytes()) => id.into(),
            _ => made_request_id().into(),
        };
        let tenant = match extensions.get::<Tenant>() {
            Some(Tenant(tenant)) => Some(Arc::clone(tenant)),
            None => text(metadata, "tenant").filter(|tenant| !tenant.is_empty()).map(Arc::from),
        };
        let priority = match (extensions.get::<Priority>(), metadata.get("priority")) {
            (Some(&priority), _) => priority,
            (None, None) => Priority::default(),
            (None, Some(value)) => {
                let parsed = value.to_str().unwrap_or_default().parse::<Priority>();
                parsed.map_err(|error| Invalid::new("priority", error.to_string()))?
            }
        };
        let trace = match extensions.get::<TraceContext>() {
            Some(trace) => Some(Box::new(trace.clone())),
            None => trace_context(metadata.as_ref()).map(Box::new),
        };
        Ok(Self { request_id, arrival, tenant, priority, trace, extensions })
    }

    /// What a layer has put beside the request.
    pub(super) fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// The only request of a call.
    pub(super) fn into_request(self, id: String, payload: Payload, deadline: Option<Instant>) -> KernelRequest {
        let mut request = KernelRequest::new(id, payload);
        request.deadline = deadline;
        request.priority = self.priority;
        request.tenant = self.tenant;
        request.trace = self.trace;
        request.extensions = self.extensions;
        request
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}
