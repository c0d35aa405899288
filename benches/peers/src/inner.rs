//! The services that the layers are put around, and what they cost alone.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use tower::Service;
use tower_kernels::middleware::cache_key::Cacheable;
use tower_kernels::request::{Execution, RequestContext, ResponseContext};
use tower_kernels::service::{KernelRequest, KernelResponse, Payload};

use crate::{Calls, Case, drive};

/// The name of the baseline of [`Plain`].
pub(crate) const PLAIN: &str = "inner service";
/// The name of the baseline of [`Http`].
pub(crate) const HTTP: &str = "inner http service";

/// The name of the baseline of [`Kernel`].
pub(crate) const KERNEL: &str = "inner kernel service";

pub(crate) const CASES: &[Case] = &[
    Case { name: PLAIN, over: None, build: plain },
    Case { name: HTTP, over: None, build: http },
    Case { name: KERNEL, over: None, build: kernel },
];

/// What a call of [`Plain`] carries: enough for a label.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) kernel: &'static str,
    pub(crate) size: u64,
    deadline: Option<Instant>,
}

impl RequestContext for Job {
    fn operation(&self) -> &str {
        self.kernel
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }
}

/// The answer to a [`Job`].
#[derive(Clone, Debug)]
pub(crate) struct Done {
    _size: u64,
}

impl Done {
    /// The answer to it.
    pub(crate) fn to(job: &Job) -> Self {
        Self { _size: job.size }
    }
}

impl ResponseContext for Done {}

impl Cacheable for Done {
    fn to_cached(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn to_response(&self) -> Self {
        self.clone()
    }

    fn weight(&self) -> usize {
        0
    }
}

/// Makes a [`Job`].
pub(crate) fn job() -> Job {
    Job { kernel: "linalg/saxpy", size: 1024, deadline: None }
}

/// Answers a job with its size, at once.
#[derive(Debug, Clone)]
pub(crate) struct Plain;

impl Service<Job> for Plain {
    type Response = Done;
    type Error = Infallible;
    type Future = Ready<Result<Done, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Job) -> Self::Future {
        ready(Ok(Done { _size: job.size }))
    }
}

/// The http peers' request: a path, no headers, no body. Making one allocates nothing.
pub(crate) fn http_request() -> impl Fn() -> Request<Empty<axum::body::Bytes>> {
    let uri = Uri::from_static("/execute");
    move || {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        request
    }
}

/// Answers 200 with no body, at once.
#[derive(Debug, Clone)]
pub(crate) struct Http;

impl<B> Service<Request<B>> for Http {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Body::empty())))
    }
}

/// A request for a kernel, as a server that has read a JSON body makes it.
pub(crate) fn kernel_request() -> KernelRequest {
    let body = axum::body::Bytes::from_static(br#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#);
    KernelRequest::new("linalg/saxpy", Payload::Json(body))
}

/// Answers a request for a kernel as if the CPU had run it, at once.
#[derive(Debug, Clone)]
pub(crate) struct Kernel;

impl Service<KernelRequest> for Kernel {
    type Response = KernelResponse;
    type Error = Infallible;
    type Future = Ready<Result<KernelResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        let mut execution = Execution::new("CPU");
        execution.queued = Duration::from_micros(3);
        execution.executed = Duration::from_micros(20);
        execution.estimated = Duration::from_micros(18);
        ready(Ok(KernelResponse::new(request.payload, execution)))
    }
}

fn kernel() -> Calls {
    drive(Kernel, kernel_request)
}

fn plain() -> Calls {
    drive(Plain, job)
}

fn http() -> Calls {
    drive(Http, http_request())
}
