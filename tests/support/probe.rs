//! A service that watches how it is used, and requests that tell it what to do.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;
use tower::load::Load;
use tower_kernels::error::{Classify, ErrorKind};

use tower_kernels::middleware::cache_key::Cacheable;
use tower_kernels::request::{Execution, Priority, RequestContext, ResponseContext, TraceContext};

/// What the probe is to do with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Answer,
    /// Answer after a while.
    Take(Duration),
    Never,
    Fail(ErrorKind),
    /// An answer that is itself a refusal.
    Refuse(ErrorKind),
    Panic,
    /// Never answer, and use up the whole of Tokio's cooperative budget at each poll.
    EatBudget,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) act: Act,
    pub(crate) operation: String,
    pub(crate) deadline: Option<Instant>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) bytes: Option<u64>,
    pub(crate) priority: Priority,
}

impl Request {
    pub(crate) fn new(act: Act) -> Self {
        let operation = "linalg/saxpy".into();
        Self { act, operation, deadline: None, tenant: None, trace: None, bytes: None, priority: Priority::High }
    }

    pub(crate) fn of(operation: &str, act: Act) -> Self {
        Self { operation: operation.into(), ..Self::new(act) }
    }

    pub(crate) fn by(tenant: &str, act: Act) -> Self {
        Self { tenant: Some(tenant.into()), ..Self::new(act) }
    }
}

impl RequestContext for Request {
    fn operation(&self) -> &str {
        &self.operation
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
        self.trace.as_ref()
    }
    fn payload_bytes(&self) -> Option<u64> {
        self.bytes
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The deadline that the probe was told.
    pub(crate) deadline: Option<Instant>,
    execution: Execution,
    failure: Option<ErrorKind>,
}

impl ResponseContext for Response {
    fn execution(&self) -> Option<&Execution> {
        Some(&self.execution)
    }
    fn payload_bytes(&self) -> Option<u64> {
        Some(12)
    }
    fn failure(&self) -> Option<ErrorKind> {
        self.failure
    }
}

/// A refusal is not given again. What is says so by its backend.
impl Cacheable for Response {
    fn to_cached(&self) -> Option<Self> {
        self.failure.is_none().then(|| self.clone())
    }
    fn to_response(&self) -> Self {
        Self { execution: Execution::new(Execution::CACHE), ..self.clone() }
    }
    fn weight(&self) -> usize {
        0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbeError(pub(crate) ErrorKind);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe was told to fail")
    }
}

impl std::error::Error for ProbeError {}

impl Classify for ProbeError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
    fn retry_after(&self) -> Option<Duration> {
        Some(Duration::from_secs(7))
    }
}

/// A service with so many places. `poll_ready` reserves one, a clone has none, and a call without one panics.
#[derive(Debug)]
pub(crate) struct Probe {
    watch: Watch,
    semaphore: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
}

/// What the probe and all its clones have done.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    places: usize,
    semaphore: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
    /// What `poll_ready` answers instead of asking for a place.
    ready_error: Arc<Mutex<Option<ErrorKind>>>,
}

impl Watch {
    /// Places that are reserved or where work runs.
    pub(crate) fn in_use(&self) -> usize {
        self.places - self.semaphore.available_permits()
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn fail_readiness(&self, kind: ErrorKind) {
        *self.ready_error.lock().unwrap() = Some(kind);
    }
}

pub(crate) fn probe(places: usize) -> (Probe, Watch) {
    let semaphore = Arc::new(Semaphore::new(places));
    let watch = Watch { places, semaphore, calls: Arc::default(), ready_error: Arc::default() };
    (Probe { semaphore: PollSemaphore::new(Arc::clone(&watch.semaphore)), watch: watch.clone(), place: None }, watch)
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { watch: self.watch.clone(), semaphore: self.semaphore.clone(), place: None }
    }
}

impl Service<Request> for Probe {
    type Response = Response;
    type Error = ProbeError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        if let Some(kind) = *self.watch.ready_error.lock().unwrap() {
            return Poll::Ready(Err(ProbeError(kind)));
        }
        if self.place.is_none() {
            self.place = ready!(self.semaphore.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> ProbeFuture {
        let place = self.place.take().expect("called without being polled ready");
        self.watch.calls.fetch_add(1, Ordering::SeqCst);
        let done = match request.act {
            Act::Take(duration) => Some(Box::pin(tokio::time::sleep(duration))),
            _ => None,
        };
        ProbeFuture { request, place: Some(place), sleep: done }
    }
}

impl Load for Probe {
    type Metric = usize;

    fn load(&self) -> usize {
        self.watch.in_use()
    }
}

#[derive(Debug)]
pub(crate) struct ProbeFuture {
    request: Request,
    place: Option<OwnedSemaphorePermit>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for ProbeFuture {
    type Output = Result<Response, ProbeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut failure = None;
        match self.request.act {
            Act::Answer => {}
            Act::Take(_) => ready!(self.sleep.as_mut().unwrap().as_mut().poll(cx)),
            Act::Never => return Poll::Pending,
            Act::Panic => panic!("the probe was told to panic"),
            Act::Fail(kind) => {
                self.place = None;
                return Poll::Ready(Err(ProbeError(kind)));
            }
            Act::Refuse(kind) => failure = Some(kind),
            Act::EatBudget => loop {
                ready!(std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx));
            },
        }
        // The work is done: the place is free before the future is dropped.
        self.place = None;
        let mut execution = Execution::new("CPU");
        execution.device = Some(3);
        execution.queued = Duration::from_micros(5);
        execution.executed = Duration::from_micros(80);
        execution.estimated = Duration::from_micros(20);
        execution.batch_size = 4;
        Poll::Ready(Ok(Response { deadline: self.request.deadline, execution, failure }))
    }
}
