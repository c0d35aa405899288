//! [`RequestContext`] and [`ResponseContext`] for plain HTTP messages, through their extensions.

use std::sync::Arc;
use std::time::Instant;

use super::context::{Priority, RequestContext, ResponseContext, TraceContext};
use crate::error::ErrorKind;

/// An extension of an [`http::Request`]: when its answer stops being of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

/// An extension of an [`http::Request`]: on whose behalf it is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant(pub Arc<str>);

/// An extension of an [`http::Request`]: the name of its route, for spans and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation(pub &'static str);

/// The deadline, tenant, priority, operation and trace context are the extensions [`Deadline`], [`Tenant`],
/// [`Priority`], [`Operation`] and [`TraceContext`]. Without an [`Operation`] the method stands for it: a path has no
/// bound on its distinct values.
impl<B> RequestContext for http::Request<B> {
    fn operation(&self) -> &str {
        match self.extensions().get::<Operation>() {
            Some(Operation(name)) => name,
            None => self.method().as_str(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.extensions().get::<Deadline>().map(|deadline| deadline.0)
    }

    fn set_deadline(&mut self, deadline: Instant) {
        // In place where there is one, as an insertion allocates.
        match self.extensions_mut().get_mut::<Deadline>() {
            Some(known) => known.0 = deadline,
            None => drop(self.extensions_mut().insert(Deadline(deadline))),
        }
    }

    fn priority(&self) -> Priority {
        self.extensions().get::<Priority>().copied().unwrap_or_default()
    }

    fn tenant(&self) -> Option<&Arc<str>> {
        self.extensions().get::<Tenant>().map(|tenant| &tenant.0)
    }

    fn trace_context(&self) -> Option<&TraceContext> {
        self.extensions().get::<TraceContext>()
    }
}

/// A status of 400 and above is a refusal.
impl<B> ResponseContext for http::Response<B> {
    fn failure(&self) -> Option<ErrorKind> {
        let status = self.status().as_u16();
        if status < 400 {
            return None;
        }
        let same = ErrorKind::ALL.into_iter().find(|kind| kind.http_status() == status);
        Some(same.unwrap_or(if status < 500 { ErrorKind::InvalidArgument } else { ErrorKind::Internal }))
    }
}
