//! The span of a request, from its arrival at a server to the end of its response.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::Extensions;
use tracing::field::Empty;
use tracing::{Level, Span};

use super::record::request_span;
use crate::request::limits::name_prefix;

/// The target of the spans that servers make.
const TARGET: &str = "tower_kernels::request";

/// The span and the log fields of a request that a server handles: an extension of the [`http::Request`].
///
/// The first to see the request creates it: the layer of [`requests`](crate::requests) at the edge of a server, or else the
/// handler. Kernel and tenant are added once they are known. A [`TracingLayer`](super::TracingLayer) further in records its
/// fields into the same span.
#[derive(Clone, Debug)]
pub(crate) struct RequestScope(Arc<Scope>);

#[derive(Debug)]
struct Scope {
    span: Span,
    kernel: OnceLock<Box<str>>,
    tenant: OnceLock<Arc<str>>,
    /// Bytes of the body that have been read.
    received: AtomicU64,
}

impl RequestScope {
    /// A scope for the request with this id, whose span is a child of the current one. `None` if the span is disabled,
    /// unless `is_wanted`.
    pub(crate) fn new(request_id: &str, is_wanted: bool) -> Option<Self> {
        // At level ERROR, so that every log line has its span, whatever the level of the log.
        let span = request_span!(TARGET, Level::ERROR, {
            request_id = name_prefix(request_id),
            kernel = Empty,
            tenant = Empty,
            otel.kind = "server",
        });
        if span.is_disabled() && !is_wanted {
            return None;
        }
        let (kernel, tenant, received) = (OnceLock::new(), OnceLock::new(), AtomicU64::new(0));
        Some(Self(Arc::new(Scope { span, kernel, tenant, received })))
    }

    /// The span that a handler runs in: a new one, or none where a layer around it has created the scope and its span.
    pub(crate) fn enter_handler(extensions: &mut Extensions, request_id: &str) -> Span {
        if extensions.get::<Self>().is_none()
            && let Some(scope) = Self::new(request_id, false)
        {
            let span = scope.span().clone();
            extensions.insert(scope);
            return span;
        }
        Span::none()
    }

    pub(crate) fn span(&self) -> &Span {
        &self.0.span
    }

    /// Sets the kernel, once.
    pub(crate) fn set_kernel(&self, id: &str) {
        let id = name_prefix(id);
        if self.0.kernel.set(id.into()).is_ok() {
            self.0.span.record("kernel", id);
        }
    }

    /// Sets the tenant, once.
    pub(crate) fn set_tenant(&self, tenant: &Arc<str>) {
        if self.0.tenant.set(Arc::clone(tenant)).is_ok() {
            self.0.span.record("tenant", name_prefix(tenant));
        }
    }

    pub(crate) fn kernel(&self) -> Option<&str> {
        self.0.kernel.get().map(|id| &**id)
    }

    pub(crate) fn tenant(&self) -> Option<&str> {
        self.0.tenant.get().map(|tenant| name_prefix(tenant))
    }

    /// Counts bytes of the request's body.
    pub(crate) fn add_received(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

/// The current span, if a server has created it for a request.
pub(super) fn current() -> Option<Span> {
    let span = Span::current();
    let is_ours = |span: &Span| span.metadata().is_some_and(|made| made.target() == TARGET);
    is_ours(&span).then_some(span)
}
