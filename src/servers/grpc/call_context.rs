//! What is known of a call besides its message.

use std::time::Duration;

use http::Extensions;
use tonic::Request;
use tracing::Span;

use super::memory::CallMemory;
use crate::middleware::tracing::RequestScope;
use crate::request::metadata::RequestMetadata;
use crate::request::request_id::RequestId;
use crate::service::{HostMemoryError, HostReservation, KernelRegistry, KernelRequest, Payload};

/// The metadata of a call, or of one request of a stream, with the memory and the log entry that belong to it.
#[derive(Clone, Debug)]
pub(super) struct CallContext {
    pub(super) request_id: RequestId,
    pub(super) metadata: RequestMetadata,
    pub(super) memory: CallMemory,
    /// Memory of the message.
    held: Option<HostReservation>,
    /// Log entry of the call.
    pub(super) scope: Option<RequestScope>,
    extensions: Extensions,
}

impl CallContext {
    /// Takes the context of a call from the extensions into which [`KernelGrpcService`](super::KernelGrpcService) has
    /// put it, and the message.
    pub(super) fn from_request<T>(request: Request<T>) -> (Self, T) {
        const INSERTED: &str = "inserted by KernelGrpcService";
        let (_, mut extensions, message) = request.into_parts();
        let metadata: RequestMetadata = extensions.remove().expect(INSERTED);
        let memory = extensions.remove().expect(INSERTED);
        let scope = extensions.remove::<RequestScope>();
        let request_id = metadata.request_id.clone().unwrap_or_else(RequestId::generate);
        (Self { request_id, metadata, memory, held: None, scope, extensions }, message)
    }

    /// Takes the memory of the call's next message, so that it is held as long as this context. Call it once for each
    /// message, even if the message is invalid.
    pub(super) fn hold_message(&mut self) {
        self.held = Some(self.memory.of_next_request());
    }

    /// Reserves memory for what was copied from the message.
    pub(super) fn hold_copy(&self, bytes: usize) -> Result<(), HostMemoryError> {
        self.held.as_ref().map_or(Ok(()), |held| held.grow(bytes as u64))
    }

    /// Returns the extensions of the call, which tell of its connection.
    pub(super) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Takes an extension that a layer has inserted, so that it is not passed on.
    pub(super) fn take_extension<T: Clone + Send + Sync + 'static>(&mut self) -> Option<T> {
        self.extensions.remove()
    }

    /// The context of the `number`th request of a stream, which has an id and a span of its own. `is_logged` says
    /// whether its end is to be logged.
    pub(super) fn nth_of_stream(&self, number: u64, is_logged: bool) -> Self {
        let request_id = self.request_id.nth_of_stream(number);
        let scope = RequestScope::new(request_id.as_str(), is_logged);
        if let (Some(scope), Some(tenant)) = (&scope, &self.metadata.tenant) {
            scope.set_tenant(tenant);
        }
        let mut metadata = RequestMetadata { received_at: RequestMetadata::new().received_at, ..self.metadata.clone() };
        metadata.request_id = Some(request_id.clone());
        Self { request_id, metadata, scope, ..self.clone() }
    }

    /// Adds what a message has of metadata. That of the call takes precedence, and the earlier deadline holds.
    pub(super) fn add_parameters(&mut self, parameters: RequestMetadata) {
        let own = &mut self.metadata;
        own.deadline = [own.deadline, parameters.deadline].into_iter().flatten().min();
        own.priority = own.priority.or(parameters.priority);
        own.tenant = own.tenant.take().or(parameters.tenant);
        own.backend = own.backend.or(parameters.backend);
    }

    /// The span that the request runs in.
    pub(super) fn span(&self) -> Span {
        self.scope.as_ref().map_or_else(Span::none, |scope| scope.span().clone())
    }

    /// Sets the kernel in the server's span and log, by its id even if `name` is an alias.
    pub(super) fn record_kernel(&self, name: &str, registry: &KernelRegistry) {
        if let Some(scope) = &self.scope {
            scope.set_kernel(registry.id_of_alias(name).as_deref().unwrap_or(name));
        }
    }

    /// Converts to the request of the pipeline, with the deadline limited to `timeout`.
    pub(super) fn into_request(
        mut self,
        kernel_id: String,
        payload: Payload,
        timeout: Duration,
        registry: &KernelRegistry,
    ) -> KernelRequest {
        let mut request = KernelRequest::new(kernel_id, payload);
        request.resolve_alias(registry);
        self.metadata.limit_timeout(timeout);
        // Before the metadata, which adds to them.
        request.extensions = self.extensions;
        request.apply_metadata(self.metadata);
        if let Some(held) = self.held {
            request.extensions.insert(held);
        }
        request
    }
}
