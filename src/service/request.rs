//! [`KernelRequest`] and [`KernelResponse`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{HostReservation, KernelRegistry, OperandVersion, Payload, PayloadError, RequestOperands};
use crate::request::Scheduling;
use crate::request::metadata::RequestMetadata;
use crate::request::{BackendKind, Execution, Priority, RequestContext, ResponseContext, Share, TraceContext};
use crate::text;

/// A request to run a kernel.
///
/// Common metadata has plain fields, so that layers read and set it without allocating. `extensions` is for your own data; it
/// allocates at the first insert.
///
/// ```
/// use std::time::Duration;
/// use tower_kernels::request::Priority;
/// use tower_kernels::service::{KernelRequest, Payload};
///
/// let mut request = KernelRequest::new("linalg/saxpy", Payload::json(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#))
///     .with_timeout(Duration::from_millis(50));
/// request.priority = Priority::High;
/// request.tenant = Some("acme".into());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelRequest {
    /// The kernel's id or one of its aliases.
    pub kernel_id: Cow<'static, str>,
    /// The kernel's input.
    pub payload: Payload,
    /// The deadline.
    pub deadline: Option<Instant>,
    /// The priority.
    pub priority: Priority,
    /// The tenant that the request is made for.
    pub tenant: Option<Arc<str>>,
    /// The trace context. Boxed, because every layer moves the request and most have none.
    pub trace: Option<Box<TraceContext>>,
    /// Data of your own.
    pub extensions: http::Extensions,
    /// For the layers that schedule it.
    pub(super) scheduling: Scheduling,
    /// Whether the operands that the payload refers to are resolved. If there are any, they are in the extensions: a field
    /// for them would make every request larger than 128 bytes in the layers' futures.
    pub(super) has_resolved_operands: bool,
}

impl KernelRequest {
    /// Creates a request without a deadline and tenant, of normal priority.
    #[inline]
    pub fn new(kernel_id: impl Into<Cow<'static, str>>, payload: Payload) -> Self {
        Self {
            kernel_id: kernel_id.into(),
            payload,
            deadline: None,
            priority: Priority::Normal,
            tenant: None,
            trace: None,
            extensions: http::Extensions::new(),
            scheduling: Scheduling::default(),
            has_resolved_operands: false,
        }
    }

    /// Replaces an alias of a kernel of `registry` with the kernel's id.
    ///
    /// Layers keep metrics, circuits and other state by [operation](RequestContext::operation). Servers and
    /// [pipelines](crate::pipeline) resolve aliases before their layers, so that all names of a kernel share that state.
    ///
    /// ```
    /// use tower_kernels::service::{KernelRegistry, KernelRequest, Payload};
    ///
    /// let registry = KernelRegistry::new();
    /// tower_kernels::kernels::register_all(&registry).unwrap();
    /// let mut request = KernelRequest::new("orderbook/matching-engine", Payload::json("{}"));
    /// request.resolve_alias(&registry);
    /// assert_eq!(request.kernel_id, "orderbook/matching");
    /// ```
    pub fn resolve_alias(&mut self, registry: &KernelRegistry) {
        if let Some(id) = registry.id_of_alias(&self.kernel_id) {
            self.kernel_id = id;
        }
    }

    /// Resolves the references to the registry's operands in the payload, unless that was done before. In a typed payload
    /// they are [handles](super::Operand), which its [kernel](super::Kernel::operands) returns.
    ///
    /// The request then holds these versions, whatever is stored or deleted meanwhile. Servers and
    /// [pipelines](crate::pipeline) do it before their layers, so that outputs are cached by the versions that they were
    /// made from, and [`KernelService`](super::KernelService) does it for all others. Call it after the tenant was set.
    pub fn resolve_operands(&mut self, registry: &KernelRegistry) {
        if self.is_resolved() {
            return;
        }
        let operands = registry.operands();
        let found = match &self.payload {
            Payload::Typed(input) => {
                let handles = registry.get(&self.kernel_id).map(|kernel| kernel.operands(input));
                RequestOperands::of_handles(handles.unwrap_or_default(), operands)
            }
            _ if operands.is_empty() => RequestOperands::none(),
            payload => RequestOperands::of(payload, operands, self.tenant.as_deref()),
        };
        self.set_operands(found);
    }

    /// Sets the operands that the payload refers to.
    pub(super) fn set_operands(&mut self, operands: RequestOperands) {
        if !operands.versions().is_empty() {
            self.extensions.insert(operands);
        }
        self.has_resolved_operands = true;
    }

    /// Returns the operands that the payload refers to; none before they are
    /// [resolved](Self::resolve_operands).
    pub fn operands(&self) -> &[Arc<OperandVersion>] {
        self.extensions.get().map_or(&[], RequestOperands::versions)
    }

    /// Whether the references to operands in the payload are resolved.
    pub(super) fn is_resolved(&self) -> bool {
        self.has_resolved_operands
    }

    /// Returns the backend that the request asks for. Without one it runs where the response is predicted to come first.
    pub fn backend(&self) -> Option<BackendKind> {
        self.extensions.get().map(|&RequestedBackend(backend)| backend)
    }

    /// Asks for a backend. A request for one that its kernel has no code for, or that this machine does not have, fails.
    pub fn set_backend(&mut self, backend: BackendKind) {
        self.extensions.insert(RequestedBackend(backend));
    }

    /// Sets the fair share that the request is charged to.
    #[inline]
    pub fn set_share(&mut self, share: Share) {
        self.scheduling.set_share(share);
    }

    /// Sets whether the deadline is the server's own timeout. By default it is the caller's.
    #[inline]
    pub fn set_deadline_is_server_timeout(&mut self, is: bool) {
        self.scheduling.set_server_timeout(is);
    }

    /// Sets the deadline to `timeout` from now.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.set_timeout(timeout);
        self
    }

    fn set_timeout(&mut self, timeout: Duration) {
        // Tokio's clock, so that deadlines follow paused time in tests. A timeout that overflows is no deadline.
        self.deadline = tokio::time::Instant::now().into_std().checked_add(timeout);
    }

    /// Applies metadata. The earlier deadline holds; priority, tenant and backend replace those of the request; the
    /// trace is set if the request has none.
    pub(crate) fn apply_metadata(&mut self, metadata: RequestMetadata) {
        if metadata.deadline.is_some_and(|deadline| self.deadline.is_none_or(|own| deadline <= own)) {
            self.deadline = metadata.deadline;
            self.scheduling.set_server_timeout(metadata.is_server_timeout);
        }
        self.priority = metadata.priority.unwrap_or(self.priority);
        self.tenant = metadata.tenant.or(self.tenant.take());
        if let Some(backend) = metadata.backend {
            self.set_backend(backend);
        }
        self.trace = self.trace.take().or(metadata.trace);
    }
}

/// The backend that a request asks for. Few ask for one, so it is in the extensions, as operands are.
#[derive(Clone, Copy)]
struct RequestedBackend(BackendKind);

impl RequestContext for KernelRequest {
    /// The operands of a request whose references are [resolved](Self::resolve_operands).
    fn operand_names(&self) -> Option<String> {
        let operands = self.operands();
        (!operands.is_empty()).then(|| text::list(operands.iter().map(|version| version.reference())))
    }

    #[inline]
    fn operation(&self) -> &str {
        &self.kernel_id
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    #[inline]
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.scheduling.set_server_timeout(true);
    }

    #[inline]
    fn deadline_is_server_timeout(&self) -> bool {
        self.scheduling.is_server_timeout()
    }

    #[inline]
    fn share(&self) -> Option<Share> {
        self.scheduling.share()
    }

    #[inline]
    fn expected_time(&self) -> Option<Duration> {
        self.scheduling.expected()
    }

    #[inline]
    fn set_expected_time(&mut self, time: Duration) {
        self.scheduling.set_expected(time);
    }

    #[inline]
    fn priority(&self) -> Priority {
        self.priority
    }

    #[inline]
    fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    #[inline]
    fn trace_context(&self) -> Option<&TraceContext> {
        self.trace.as_deref()
    }

    #[inline]
    fn payload_bytes(&self) -> Option<u64> {
        self.payload.byte_len().map(|bytes| bytes as u64)
    }
}

/// The response of a kernel request: the output, and how the kernel was run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelResponse {
    /// The kernel's output, in the encoding of the request.
    pub payload: Payload,
    /// Backend, device and times of the run.
    pub execution: Execution,
    /// Data of your own.
    pub extensions: http::Extensions,
}

impl KernelResponse {
    /// Payloads up to this size in bytes are copied to their connection and hold no reserved memory.
    pub(crate) const SMALL: usize = 16 << 10;

    /// Creates a response.
    #[inline]
    pub fn new(payload: Payload, execution: Execution) -> Self {
        Self { payload, execution, extensions: http::Extensions::new() }
    }

    /// Decodes an output in JSON into a `T`, which may borrow from it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower::ServiceExt;
    /// use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Output {
    ///     y: Vec<f32>,
    /// }
    ///
    /// let registry = KernelRegistry::new();
    /// tower_kernels::kernels::register_all(&registry)?;
    /// let input = serde_json::json!({"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]});
    /// let request = KernelRequest::new("linalg/saxpy", Payload::from_serialize(&input)?);
    /// let response = KernelService::new(registry).oneshot(request).await?;
    /// assert_eq!(response.json::<Output>()?.y, [12.0, 24.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`Payload::deserialize`].
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, PayloadError> {
        self.payload.deserialize()
    }

    /// Attaches the host memory that the payload holds.
    pub(crate) fn with_memory(mut self, memory: Option<HostReservation>) -> Self {
        if let Some(memory) = memory {
            self.extensions.insert(memory);
        }
        self
    }
}

impl ResponseContext for KernelResponse {
    #[inline]
    fn execution(&self) -> Option<&Execution> {
        Some(&self.execution)
    }

    #[inline]
    fn payload_bytes(&self) -> Option<u64> {
        self.payload.byte_len().map(|bytes| bytes as u64)
    }
}
