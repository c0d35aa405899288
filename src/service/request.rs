//! A request for a kernel, and its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{HostReservation, Payload, PayloadError};
use crate::request::Scheduling;
use crate::request::metadata::RequestMetadata;
use crate::request::{Execution, Priority, RequestContext, ResponseContext, Share, TraceContext};

/// A request to run a kernel.
///
/// What every request has are plain fields, so that no layer allocates to read or set them; `extensions` allocates at
/// its first insert and is for what you add.
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
    /// When the answer stops being of use.
    pub deadline: Option<Instant>,
    /// How much the request matters beside others.
    pub priority: Priority,
    /// On whose behalf it is made.
    pub tenant: Option<Arc<str>>,
    /// The trace that it belongs to. Boxed, because every layer moves the request and most have none.
    pub trace: Option<Box<TraceContext>>,
    /// What users add.
    pub extensions: http::Extensions,
    /// For the layers that decide when it runs.
    pub(super) scheduling: Scheduling,
}

impl KernelRequest {
    /// A request with no deadline, of normal priority, for nobody in particular.
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
        }
    }

    /// Assigns the fair share that it is served from.
    #[inline]
    pub fn set_share(&mut self, share: Share) {
        self.scheduling.set_share(share);
    }

    /// Says whether the deadline is the server's own timeout, and not one that the caller chose. If nothing is said it
    /// is the caller's.
    #[inline]
    pub fn set_deadline_is_server_timeout(&mut self, is: bool) {
        self.scheduling.set_server_timeout(is);
    }

    /// With the deadline `timeout` from now.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.set_timeout(timeout);
        self
    }

    fn set_timeout(&mut self, timeout: Duration) {
        // tokio's clock, so that paused time in tests moves deadlines too. A timeout past the end of time is none.
        self.deadline = tokio::time::Instant::now().into_std().checked_add(timeout);
    }

    /// Applies metadata. The earlier deadline holds; priority and tenant replace those of the request; the trace is set
    /// if the request has none.
    pub(crate) fn apply_metadata(&mut self, metadata: RequestMetadata) {
        if metadata.deadline.is_some_and(|deadline| self.deadline.is_none_or(|own| deadline <= own)) {
            self.deadline = metadata.deadline;
            self.scheduling.set_server_timeout(metadata.is_server_timeout);
        }
        self.priority = metadata.priority.unwrap_or(self.priority);
        self.tenant = metadata.tenant.or(self.tenant.take());
        self.trace = self.trace.take().or(metadata.trace);
    }
}

impl RequestContext for KernelRequest {
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

/// A kernel's answer, and how it was run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelResponse {
    /// The kernel's output, in the encoding of the request.
    pub payload: Payload,
    /// How it was run.
    pub execution: Execution,
    /// What users add.
    pub extensions: http::Extensions,
}

impl KernelResponse {
    /// The bytes of a payload up to which it is copied to where it is sent from, and nothing is held for it.
    pub(crate) const SMALL: usize = 16 << 10;

    /// An answer.
    #[inline]
    pub fn new(payload: Payload, execution: Execution) -> Self {
        Self { payload, execution, extensions: http::Extensions::new() }
    }

    /// Decodes the kernel's output, where it is JSON, into a `T`, which may borrow from it.
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
    /// As those of [`Payload::deserialize`].
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, PayloadError> {
        self.payload.deserialize()
    }

    /// With what its payload holds of the memory of this process.
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
