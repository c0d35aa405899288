//! [`WithContext`], which adds a context to requests and responses of any type.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::request::{Priority, RequestContext, ResponseContext, TraceContext};

/// A request of any type with the context that the layers read. Fields that are not set have the defaults of
/// [`RequestContext`].
///
/// tower's `map_request` wraps requests outside of the layers that need the context, and inside of them restores the type
/// of request that the service takes:
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_kernels::error::{Classify, ErrorKind};
/// use tower_kernels::layers::RateLimiterLayer;
/// use tower_kernels::middleware::classify::WithContext;
///
/// /// A type of another crate.
/// struct Query {
///     user: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .map_request(|query: Query| {
///         let user = query.user.clone();
///         WithContext { operation: Some("query".into()), tenant: Some(user.into()), ..WithContext::new(query) }
///     })
///     .layer(RateLimiterLayer::new(1, Duration::from_secs(60)).per_tenant())
///     .map_request(WithContext::into_inner)
///     .service(service_fn(async |query: Query| Ok::<_, Infallible>(query.user)));
///
/// let query = |user: &str| Query { user: user.to_owned() };
/// assert_eq!(service.clone().oneshot(query("ada")).await.unwrap(), "ada");
/// assert_eq!(service.clone().oneshot(query("ada")).await.unwrap_err().kind(), ErrorKind::RateLimited);
/// assert_eq!(service.oneshot(query("bob")).await.unwrap(), "bob");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WithContext<R> {
    /// The request or response itself.
    pub request: R,
    /// Name of the operation, for spans and metrics. Use few distinct names.
    pub operation: Option<Cow<'static, str>>,
    /// Deadline.
    pub deadline: Option<Instant>,
    /// Priority.
    pub priority: Priority,
    /// Tenant.
    pub tenant: Option<Arc<str>>,
    /// Trace context of the caller.
    pub trace_context: Option<TraceContext>,
    /// Expected execution time, which layers that learn it set.
    pub expected_time: Option<Duration>,
    /// Size of the payload, in bytes.
    pub payload_bytes: Option<u64>,
}

impl<R> WithContext<R> {
    /// Wraps a request or response, with no field set.
    pub fn new(request: R) -> Self {
        Self {
            request,
            operation: None,
            deadline: None,
            priority: Priority::default(),
            tenant: None,
            trace_context: None,
            expected_time: None,
            payload_bytes: None,
        }
    }

    /// Returns the request or response.
    pub fn into_inner(self) -> R {
        self.request
    }
}

impl<R> RequestContext for WithContext<R> {
    fn operation(&self) -> &str {
        self.operation.as_deref().unwrap_or("request")
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    fn trace_context(&self) -> Option<&TraceContext> {
        self.trace_context.as_ref()
    }

    fn expected_time(&self) -> Option<Duration> {
        self.expected_time
    }

    fn set_expected_time(&mut self, time: Duration) {
        self.expected_time = Some(time);
    }

    fn payload_bytes(&self) -> Option<u64> {
        self.payload_bytes
    }
}

/// For responses of another type: put `map_response(WithContext::new)` around the service.
impl<R> ResponseContext for WithContext<R> {
    fn payload_bytes(&self) -> Option<u64> {
        self.payload_bytes
    }
}
