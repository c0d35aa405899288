//! What a call says of itself beside its message.

use std::sync::Arc;
use std::time::Instant;

use http::Extensions;
use tonic::metadata::MetadataMap;
use tracing::Span;

use super::deadline::Arrival;
use super::memory::CallMemory;
use crate::middleware::tracing::RequestScope;
use crate::request::limits::{InvalidName, check_name};
use crate::request::{Priority, Tenant, TraceContext};
use crate::servers::headers::{REQUEST_ID, is_request_id, made_request_id, trace_context};
use crate::service::{HostReservation, InvalidInput, KernelRequest, Payload};

/// On whose behalf a call is made, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) request_id: Arc<str>,
    pub(super) arrival: Arrival,
    /// `None` of a call that did not come by way of the service.
    pub(super) memory: Option<CallMemory>,
    held: Option<HostReservation>,
    /// What the log says of the call.
    pub(super) scope: Option<RequestScope>,
    tenant: Option<Arc<str>>,
    priority: Priority,
    trace: Option<Box<TraceContext>>,
    extensions: Extensions,
}

impl Caller {
    /// Reads the metadata; what a layer or an interceptor has put into `extensions` goes before it.
    pub(super) fn new(
        metadata: &MetadataMap,
        mut extensions: Extensions,
        arrival: Arrival,
    ) -> Result<Self, InvalidInput> {
        let (memory, scope) = (extensions.remove(), extensions.remove::<RequestScope>());
        let request_id = match text(metadata, REQUEST_ID.as_str()) {
            Some(id) if is_request_id(id.as_bytes()) => id.into(),
            _ => made_request_id().into(),
        };
        let tenant = match extensions.get::<Tenant>() {
            Some(Tenant(tenant)) => Some(Arc::clone(tenant)),
            None => match metadata.get("tenant").filter(|tenant| !tenant.is_empty()) {
                Some(tenant) => {
                    // What is not ASCII has no characters that could be seen.
                    let tenant = tenant.to_str().map_err(|_| InvalidName::Invisible);
                    let checked = tenant.and_then(|tenant| check_name(tenant).map(|()| tenant));
                    Some(checked.map_err(|error| InvalidInput::new("tenant", error.to_string()))?.into())
                }
                None => None,
            },
        };
        let priority = match (extensions.get::<Priority>(), metadata.get("priority")) {
            (Some(&priority), _) => priority,
            (None, None) => Priority::default(),
            (None, Some(value)) => {
                let parsed = value.to_str().unwrap_or_default().parse::<Priority>();
                parsed.map_err(|error| InvalidInput::new("priority", error.to_string()))?
            }
        };
        let trace = match extensions.get::<TraceContext>() {
            Some(trace) => Some(Box::new(trace.clone())),
            None => trace_context(metadata.as_ref()).map(Box::new),
        };
        if let (Some(scope), Some(tenant)) = (&scope, &tenant) {
            scope.set_tenant(tenant);
        }
        let held = None;
        Ok(Self { request_id, arrival, memory, held, scope, tenant, priority, trace, extensions })
    }

    /// Takes over what the next message of the call holds. To be called once for each message, whatever becomes of it.
    pub(super) fn hold_message(&mut self) {
        self.held = self.memory.as_ref().map(CallMemory::of_next_request);
    }

    /// Takes what a layer has put beside the request, which goes no further.
    pub(super) fn take_extension<T: Clone + Send + Sync + 'static>(&mut self) -> Option<T> {
        self.extensions.remove()
    }

    /// The caller of the next request of a stream, which has an id and a span of its own. `is_logged` says whether its
    /// end is to be logged.
    pub(super) fn of_next(&self, number: u64, is_logged: bool) -> Self {
        let mut id = format!("{}/{number}", self.request_id);
        if !is_request_id(id.as_bytes()) {
            // Too long together.
            id = made_request_id();
        }
        let scope = RequestScope::new(&id, is_logged);
        if let (Some(scope), Some(tenant)) = (&scope, &self.tenant) {
            scope.set_tenant(tenant);
        }
        Self { request_id: id.into(), scope, ..self.clone() }
    }

    /// The span that the request runs in.
    pub(super) fn span(&self) -> Span {
        self.scope.as_ref().map_or_else(Span::none, |scope| scope.span().clone())
    }

    /// The request that the message is. `is_server_timeout` says whose the deadline is.
    pub(super) fn into_request(
        self,
        id: String,
        payload: Payload,
        deadline: Option<Instant>,
        is_server_timeout: bool,
    ) -> KernelRequest {
        let mut request = KernelRequest::new(id, payload);
        request.deadline = deadline;
        request.set_deadline_is_server_timeout(is_server_timeout);
        request.priority = self.priority;
        request.tenant = self.tenant;
        request.trace = self.trace;
        request.extensions = self.extensions;
        if let Some(held) = self.held {
            request.extensions.insert(held);
        }
        request
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}
