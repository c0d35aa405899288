//! `ModelStreamInfer`: runs the requests of a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, Stream};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tracing::Instrument;

use super::proto::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::error::ErrorKind;
use crate::panics::Panicked;
use crate::servers::grpc::call_context::CallContext;
use crate::servers::grpc::handler::Handler;
use crate::servers::grpc::server::Pipeline;
use crate::servers::grpc::shutdown::unavailable;
use crate::servers::grpc::status::Rejection;
use crate::servers::grpc::timer::Timer;
use crate::servers::grpc::wire::Requests;

/// The responses of one stream, in the order of its requests.
///
/// Each request runs in a task of its own, so that a client that does not read delays no request: they complete, or exceed
/// their deadlines, whether or not this stream is polled. No more requests are read while as many run or are unread as
/// one stream may have. Dropping it cancels all running requests.
pub(in super::super) struct InferenceResponses {
    /// Starts a request.
    start: Box<dyn Fn(CallContext, ModelInferRequest) -> Running + Send>,
    context: CallContext,
    /// `None` once the client has ended the stream, or no more requests are read.
    requests: Option<Requests<ModelInferRequest>>,
    /// How many requests have been read.
    read: u64,
    running: FuturesOrdered<Running>,
    max_running: usize,
    /// Deadline of the whole stream, if the client has set one.
    deadline: Timer,
    /// Completes when the server stops.
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Status that the stream ends with once all running requests have completed.
    failure: Option<Status>,
}

/// The task of a request; aborted on drop.
struct Running(JoinHandle<Result<ModelInferResponse, Status>>);

impl Future for Running {
    type Output = Result<Result<ModelInferResponse, Status>, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl InferenceResponses {
    pub(super) fn new<S: Pipeline>(
        handler: Handler<S>,
        context: CallContext,
        requests: Requests<ModelInferRequest>,
    ) -> Self {
        let (max_running, shutdown) = (handler.config.max_concurrent_per_stream.max(1), handler.shutdown.ended());
        let start = move |context: CallContext, message: ModelInferRequest| {
            let (handler, span) = (handler.clone(), context.span());
            let run = async move { handler.infer(context, message).await };
            Running(tokio::spawn(run.instrument(span)))
        };
        Self {
            start: Box::new(start),
            deadline: Timer::new(context.metadata.deadline),
            context,
            requests: Some(requests),
            read: 0,
            running: FuturesOrdered::new(),
            max_running,
            shutdown,
            failure: None,
        }
    }

    /// Reads and starts requests. Ready when no more are read.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(requests) = &mut self.requests else { return Poll::Ready(()) };
            if self.running.len() >= self.max_running {
                return Poll::Pending;
            }
            match Pin::new(requests).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.read += 1;
                    let mut context = self.context.nth_of_stream(self.read, false);
                    context.hold_message();
                    self.running.push_back((self.start)(context, message));
                }
                Poll::Ready(Some(Err(status))) => {
                    self.requests = None;
                    self.failure = Some(status);
                }
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => {
                    ready!(self.shutdown.as_mut().poll_unpin(cx));
                    self.requests = None;
                    self.failure = Some(unavailable(Some(self.context.request_id.as_str())));
                }
            }
        }
    }
}

impl Stream for InferenceResponses {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.deadline.poll_elapsed(cx).is_ready() {
            (self.requests, self.running, self.deadline) = (None, FuturesOrdered::new(), Timer::new(None));
            let rejection = Rejection::new(ErrorKind::DeadlineExceeded, "the deadline of the stream passed");
            return Poll::Ready(Some(Err(rejection.into_status(Some(self.context.request_id.as_str())))));
        }
        let is_read = self.poll_requests(cx).is_ready();
        match Pin::new(&mut self.running).poll_next(cx) {
            Poll::Ready(Some(result)) => {
                // There is room for another request, which is read by the next poll.
                Poll::Ready(Some(Ok(response(result))))
            }
            Poll::Ready(None) if is_read => Poll::Ready(self.failure.take().map(Err)),
            _ => Poll::Pending,
        }
    }
}

/// A request that failed has a response as well, and the stream goes on.
fn response(result: Result<Result<ModelInferResponse, Status>, JoinError>) -> ModelStreamInferResponse {
    let failed =
        |status: Status| ModelStreamInferResponse { error_message: status.message().to_owned(), infer_response: None };
    match result {
        Ok(Ok(response)) => ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) },
        Ok(Err(status)) => failed(status),
        Err(error) => failed(
            match error.try_into_panic() {
                // `Panicked` drops the payload where a panic in its `drop` does no harm.
                Ok(payload) => Rejection::panicked(&Panicked::new(payload)),
                Err(_) => Rejection::new(ErrorKind::Cancelled, "the server stopped"),
            }
            .into_status(None),
        ),
    }
}
