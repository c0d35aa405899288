//! `ExecuteStream`: runs the requests of a stream and sends each response as it finishes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};
use pin_project::pin_project;
use prost::Message;
use tokio::task::{JoinSet, coop};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tracing::{Instrument, Span};

use super::call_context::CallContext;
use super::config::GrpcConfig;
use super::handler::Handler;
use super::memory::{CallMemory, Sending, rejected};
use super::message::{ResponseIds, check_kernel_id, json_response, tensors, tensors_response};
use super::proto::execute_stream_request::Call;
use super::proto::execute_stream_response::Outcome;
use super::proto::{ExecuteStreamRequest, ExecuteStreamResponse};
use super::server::Pipeline;
use super::shutdown::unavailable;
use super::status::{Rejection, as_message};
use super::timer::Timer;
use super::unread::{Finished, Receiver, Sender, unread};
use super::wire::Requests;
use crate::error::{AnyError, ErrorKind};
use crate::middleware::timeout::TimeoutError;
use crate::panics::{CatchPanic, Panicked, catch_panic};
use crate::request::request_id::RequestId;
use crate::servers::requests::{Call as Counted, StreamRequests};
use crate::service::{InvalidInput, KernelRegistry, KernelRequest, KernelResponse, Payload};

/// The response stream of one call of `ExecuteStream`.
///
/// The requests run in a task of their own, so that a client that does not read blocks only its own stream: a request
/// that completes releases its permit, and one that reaches its deadline ends, whether or not this stream is polled.
/// Dropping it cancels all running requests.
#[derive(Debug)]
pub(super) struct Responses {
    unread: Receiver,
    memory: CallMemory,
    /// The task; aborted on drop.
    calls: JoinSet<()>,
}

impl Responses {
    /// Starts to read and run the requests.
    pub(super) fn new<S: Pipeline>(
        handler: &Handler<S>,
        context: CallContext,
        requests: Requests<ExecuteStreamRequest>,
    ) -> Self {
        let (sender, unread) = unread(handler.config.max_concurrent_per_stream.max(1));
        let (memory, mut tasks) = (context.memory.clone(), JoinSet::new());
        tasks.spawn(Calls::new(handler, context, requests, sender).in_current_span());
        Self { unread, memory, calls: tasks }
    }

    /// Returns the next response, which is encoded at once.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ExecuteStreamResponse, Status>>> {
        let next = ready!(Pin::new(&mut self.unread).poll_next(cx));
        Poll::Ready(next.map(|next| {
            next.map(|Finished { response, held, mut counted, code }| {
                end(&mut counted, code);
                self.memory.sending(held);
                response
            })
        }))
    }
}

impl Stream for Responses {
    type Item = Result<ExecuteStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = self.poll_unread(cx) {
            return Poll::Ready(next);
        }
        // If the task panicked, report it to the client.
        match ready!(self.calls.poll_join_next(cx)) {
            Some(Err(error)) if error.is_panic() => {
                // `Panicked` drops the payload where a panic in its `drop` does no harm.
                let rejection = match error.try_into_panic() {
                    Ok(payload) => Rejection::panicked(&Panicked::new(payload)),
                    Err(_) => Rejection::new(ErrorKind::Internal, "the task of this stream ended"),
                };
                Poll::Ready(Some(Err(rejection.into_status(None))))
            }
            // The task has ended the queue, possibly after the poll above.
            _ => self.poll_unread(cx),
        }
    }
}

/// Reads the requests of one stream and runs them.
///
/// At most one request waits for readiness of the pipeline, and the next is read when that one runs, so HTTP/2 flow
/// control applies backpressure to a client that sends faster. No request is read while too many responses are unread:
/// a request of this stream never waits in the pipeline for the client to read.
struct Calls<S: Pipeline> {
    service: S,
    registry: Arc<KernelRegistry>,
    config: Arc<GrpcConfig>,
    context: CallContext,
    /// Counts the requests, if the server has inserted this extension.
    counts: Option<StreamRequests>,
    /// How many requests have been read.
    read: u64,
    /// `None` once the client has ended the stream, or no more requests are read.
    requests: Option<Requests<ExecuteStreamRequest>>,
    /// Completes when the server stops.
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    waiting: Option<Waiting>,
    running: FuturesUnordered<Running<CatchPanic<S::Future>>>,
    /// Deadline of the whole stream, if the client has set one.
    deadline: Timer,
    /// Status that the stream ends with once all running requests have completed.
    failure: Option<Status>,
    unread: Sender,
}

/// A request that has been read and waits for readiness of the pipeline.
struct Waiting {
    tag: u64,
    ids: ResponseIds,
    request: KernelRequest,
    timer: Timer,
    span: Span,
    counted: Option<Counted>,
}

impl<S: Pipeline> Calls<S> {
    fn new(
        handler: &Handler<S>,
        mut context: CallContext,
        requests: Requests<ExecuteStreamRequest>,
        unread: Sender,
    ) -> Self {
        Self {
            service: handler.service.clone(),
            registry: Arc::clone(&handler.registry),
            config: Arc::clone(&handler.config),
            deadline: Timer::new(context.metadata.deadline),
            counts: context.take_extension(),
            read: 0,
            context,
            requests: Some(requests),
            shutdown: handler.shutdown.ended(),
            waiting: None,
            running: FuturesUnordered::new(),
            failure: None,
            unread,
        }
    }

    /// Converts a message to a request, or returns the rejection of an invalid one.
    fn read(
        &self,
        mut context: CallContext,
        message: ExecuteStreamRequest,
        counted: &mut Option<Counted>,
    ) -> Result<Waiting, Rejection> {
        context.hold_message();
        let ExecuteStreamRequest { tag, timeout_ms, call } = message;
        let (kernel_id, payload) = match call {
            Some(Call::Json(call)) => (call.kernel_id, Ok(Payload::json(call.input))),
            Some(Call::Tensors(call)) => (call.kernel_id, tensors(call.inputs).map(Payload::from)),
            None => return Err(InvalidInput::new("call", "neither `json` nor `tensors` is set").into()),
        };
        // Before validation, so that rejections have it too.
        context.record_kernel(&kernel_id, &self.registry);
        check_kernel_id(&kernel_id)?;
        let payload = payload?;

        if timeout_ms > 0 {
            context.metadata.set_timeout(Duration::from_millis(timeout_ms));
        }
        let ids = ResponseIds { request_id: context.request_id.clone(), kernel_id };
        let span = context.span();
        let request = context.into_request(ids.kernel_id.clone(), payload, self.config.timeout, &self.registry);
        let timer = Timer::new(request.deadline);
        Ok(Waiting { tag, ids, request, timer, span, counted: counted.take() })
    }

    /// Starts the waiting request once the pipeline is ready. Returns its response if it is rejected.
    fn poll_start(&mut self, cx: &mut Context<'_>, mut next: Waiting) -> Poll<Option<Finished>> {
        let (tag, span) = (next.tag, next.span.clone());
        let _entered = span.enter();
        let request_id = next.ids.request_id.clone();
        let rejection = match catch_panic(|| self.service.poll_ready(cx)) {
            Ok(Poll::Ready(Ok(()))) => {
                let Waiting { ids, request, timer, span, counted, .. } = next;
                match catch_panic(|| self.service.call(request)) {
                    Ok(future) => {
                        let (future, memory) = (CatchPanic::new(future), self.context.memory.clone());
                        let ids = Some((tag, ids));
                        self.running.push(Running { future, timer, memory, span, counted, ids });
                        return Poll::Ready(None);
                    }
                    Err(panicked) => {
                        let rejection = Rejection::panicked(&panicked).of_kernel(&ids.kernel_id);
                        self.service = self.service.clone();
                        return Poll::Ready(Some(finished(tag, &request_id, Err(rejection), counted)));
                    }
                }
            }
            Ok(Poll::Ready(Err(error))) => Rejection::of(&error),
            Err(panicked) => Rejection::panicked(&panicked),
            Ok(Poll::Pending) if next.timer.poll_elapsed(cx).is_ready() => {
                Rejection::of(&TimeoutError::<S::Error>::Elapsed { called: false })
            }
            Ok(Poll::Pending) => {
                self.waiting = Some(next);
                return Poll::Pending;
            }
        };
        // Drops the readiness that this request was waiting for.
        self.service = self.service.clone();
        Poll::Ready(Some(finished(tag, &request_id, Err(rejection), next.counted)))
    }

    /// Runs the requests. Ready when the stream ends.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            let budget = ready!(coop::poll_proceed(cx));
            if let Poll::Ready(Some(response)) = Pin::new(&mut self.running).poll_next(cx) {
                budget.made_progress();
                self.unread.push(response);
                continue;
            }
            if let Some(next) = self.waiting.take() {
                let rejection = ready!(self.poll_start(cx, next));
                budget.made_progress();
                rejection.into_iter().for_each(|response| self.unread.push(response));
                continue;
            }
            let Some(requests) = &mut self.requests else {
                if !self.running.is_empty() {
                    return Poll::Pending;
                }
                return Poll::Ready(self.failure.take().map_or(Ok(()), Err));
            };
            ready!(self.unread.poll_capacity(self.running.len(), cx));
            let message = ready!(Pin::new(requests).poll_next(cx));
            budget.made_progress();
            match message {
                Some(Ok(message)) => {
                    let tag = message.tag;
                    self.read += 1;
                    let is_logged = self.counts.as_ref().is_some_and(StreamRequests::are_logged);
                    let context = self.context.nth_of_stream(self.read, is_logged);
                    let (span, request_id) = (context.span(), context.request_id.clone());
                    let _entered = span.enter();
                    let begin = |counts: &StreamRequests| {
                        let bytes = if is_logged { message.encoded_len() } else { 0 };
                        counts.begin(&request_id, context.scope.as_ref(), bytes)
                    };
                    let mut counted = self.counts.as_ref().map(begin);
                    match self.read(context, message, &mut counted) {
                        Ok(next) => self.waiting = Some(next),
                        Err(rejection) => self.unread.push(finished(tag, &request_id, Err(rejection), counted)),
                    }
                }
                Some(Err(status)) => {
                    self.requests = None;
                    self.failure = Some(status);
                }
                None => self.requests = None,
            }
        }
    }
}

impl<S: Pipeline> Future for Calls<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // No field is structurally pinned: running requests are boxed in `FuturesUnordered`.
        let this = self.get_mut();
        if this.deadline.poll_elapsed(cx).is_ready() {
            // The status of the stream is the outcome of each of its requests.
            for running in Pin::new(&mut this.running).iter_pin_mut() {
                end(running.project().counted, ErrorKind::DeadlineExceeded.code());
            }
            if let Some(waiting) = &mut this.waiting {
                end(&mut waiting.counted, ErrorKind::DeadlineExceeded.code());
            }
            let rejection = Rejection::new(ErrorKind::DeadlineExceeded, "the deadline of the stream passed");
            this.unread.abandon(rejection.into_status(Some(this.context.request_id.as_str())));
            return Poll::Ready(());
        }
        let mut polled = this.poll_calls(cx);
        if polled.is_pending() && this.requests.is_some() && this.shutdown.as_mut().poll(cx).is_ready() {
            this.requests = None;
            this.failure = Some(unavailable(Some(this.context.request_id.as_str())));
            polled = this.poll_calls(cx);
        }
        let end = ready!(polled);
        this.unread.end(end);
        Poll::Ready(())
    }
}

// Futures that need pinning are boxed inside `FuturesUnordered`; the service is never pinned.
impl<S: Pipeline> Unpin for Calls<S> {}

/// A running request of the stream, which ends at its deadline.
#[pin_project]
struct Running<F> {
    #[pin]
    future: F,
    timer: Timer,
    memory: CallMemory,
    span: Span,
    counted: Option<Counted>,
    ids: Option<(u64, ResponseIds)>,
}

impl<F, E> Future for Running<F>
where
    F: Future<Output = Result<Result<KernelResponse, E>, Panicked>>,
    E: AnyError,
{
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = self.project();
        let _entered = this.span.enter();
        let result = match this.future.poll(cx) {
            Poll::Ready(Ok(result)) => result.map_err(|error| Rejection::of(&error)),
            Poll::Ready(Err(panicked)) => Err(Rejection::panicked(&panicked)),
            Poll::Pending => {
                ready!(this.timer.poll_elapsed(cx));
                Err(Rejection::of(&TimeoutError::<E>::Elapsed { called: true }))
            }
        };
        let (tag, ids) = this.ids.take().expect("polled after it had completed");
        let result = result.map_err(|rejection| rejection.of_kernel(&ids.kernel_id));
        let request_id = ids.request_id.clone();
        let outcome = result.and_then(|mut response| {
            let held = this.memory.of_response(&mut response).map_err(rejected)?;
            let outcome = match response.payload {
                Payload::Tensors(_) => Outcome::Tensors(tensors_response(response, ids)?),
                _ => Outcome::Json(json_response(response, ids)?),
            };
            Ok((outcome, held))
        });
        Poll::Ready(finished(tag, &request_id, outcome, this.counted.take()))
    }
}

/// Builds the response to a request, with the memory that it holds until it has been sent.
fn finished(
    tag: u64,
    request_id: &RequestId,
    outcome: Result<(Outcome, Option<Sending>), Rejection>,
    mut counted: Option<Counted>,
) -> Finished {
    let status = outcome.as_ref().map_or_else(|rejection| rejection.kind().grpc_code(), |_| 0);
    let code = outcome.as_ref().map_or_else(|rejection| rejection.kind().code(), |_| "ok");
    let (outcome, held) = match outcome {
        Ok(outcome) => outcome,
        Err(rejection) => (Outcome::Error(as_message(&rejection.into_status(Some(request_id.as_str())))), None),
    };
    let response = ExecuteStreamResponse { tag, outcome: Some(outcome) };
    if let Some(counted) = &mut counted {
        counted.respond(status, &response);
    }
    Finished { response, held, counted, code }
}

/// Records the end of a request in its counts.
pub(super) fn end(counted: &mut Option<Counted>, outcome: &'static str) {
    if let Some(counted) = counted {
        counted.end(outcome);
    }
}
