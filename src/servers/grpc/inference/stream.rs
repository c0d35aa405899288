//! `ModelStreamInfer`: runs the requests of a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::stream::Stream;
use prost::Message;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tracing::Instrument;

use super::proto::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::error::{Classify, ErrorKind};
use crate::panics::Panicked;
use crate::servers::grpc::call_context::CallContext;
use crate::servers::grpc::handler::Handler;
use crate::servers::grpc::server::Pipeline;
use crate::servers::grpc::shutdown::unavailable;
use crate::servers::grpc::status::Rejection;
use crate::servers::grpc::stream::end;
use crate::servers::grpc::timer::Timer;
use crate::servers::grpc::wire::Requests;
use crate::servers::requests::{Call as Counted, StreamRequests};

/// The responses of one stream, in the order of its requests.
///
/// Each request runs in a task of its own, so that a client that does not read delays no request: they complete, or exceed
/// their deadlines, whether or not this stream is polled. No more requests are read while as many run or are unread as
/// one stream may have. Dropping it cancels all running requests.
pub(in super::super) struct InferenceResponses {
    /// Starts a request.
    start: Box<dyn Fn(CallContext, ModelInferRequest) -> Task + Send>,
    context: CallContext,
    /// Counts the requests, if the server has inserted this extension.
    counts: Option<StreamRequests>,
    /// `None` once the client has ended the stream, or no more requests are read.
    requests: Option<Requests<ModelInferRequest>>,
    /// How many requests have been read.
    read: u64,
    /// In the order of the requests, which is that of the responses.
    running: VecDeque<Running>,
    max_running: usize,
    /// Deadline of the whole stream, if the client has set one.
    deadline: Timer,
    /// Completes when the server stops.
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Status that the stream ends with once all running requests have completed.
    failure: Option<Status>,
}

type Task = JoinHandle<Result<ModelInferResponse, Status>>;

/// A request that runs; aborted on drop.
struct Running {
    task: Task,
    counted: Option<Counted>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl InferenceResponses {
    pub(super) fn new<S: Pipeline>(
        handler: Handler<S>,
        mut context: CallContext,
        requests: Requests<ModelInferRequest>,
    ) -> Self {
        let (max_running, shutdown) = (handler.config.max_concurrent_per_stream.max(1), handler.shutdown.ended());
        let start = move |context: CallContext, message: ModelInferRequest| {
            let (handler, span) = (handler.clone(), context.span());
            let run = async move { handler.infer(context, message).await };
            tokio::spawn(run.instrument(span))
        };
        Self {
            start: Box::new(start),
            deadline: Timer::new(context.metadata.deadline),
            counts: context.take_extension(),
            context,
            requests: Some(requests),
            read: 0,
            running: VecDeque::new(),
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
                    let is_logged = self.counts.as_ref().is_some_and(StreamRequests::are_logged);
                    let mut context = self.context.nth_of_stream(self.read, is_logged);
                    context.hold_message();
                    let counted = self.counts.as_ref().map(|counts| {
                        let bytes = if is_logged { message.encoded_len() } else { 0 };
                        counts.begin(&context.request_id, context.scope.as_ref(), bytes)
                    });
                    self.running.push_back(Running { task: (self.start)(context, message), counted });
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
            // The status of the stream is the outcome of each of its requests.
            for mut running in self.running.drain(..) {
                end(&mut running.counted, ErrorKind::DeadlineExceeded.code());
            }
            (self.requests, self.deadline) = (None, Timer::new(None));
            let rejection = Rejection::new(ErrorKind::DeadlineExceeded, "the deadline of the stream passed");
            return Poll::Ready(Some(Err(rejection.into_status(Some(self.context.request_id.as_str())))));
        }
        let is_read = self.poll_requests(cx).is_ready();
        let Some(first) = self.running.front_mut() else {
            return if is_read { Poll::Ready(self.failure.take().map(Err)) } else { Poll::Pending };
        };
        let result = ready!(Pin::new(&mut first.task).poll(cx));
        let response = finish(result, &mut first.counted);
        // There is room for another request, which is read by the next poll.
        self.running.pop_front();
        Poll::Ready(Some(Ok(response)))
    }
}

/// Returns the response to a request, and counts it. One that failed has a response as well, and the stream goes on.
fn finish(
    result: Result<Result<ModelInferResponse, Status>, JoinError>,
    counted: &mut Option<Counted>,
) -> ModelStreamInferResponse {
    let result = result.unwrap_or_else(|error| {
        let rejection = match error.try_into_panic() {
            // `Panicked` drops the payload where a panic in its `drop` does no harm.
            Ok(payload) => Rejection::panicked(&Panicked::new(payload)),
            Err(_) => Rejection::new(ErrorKind::Cancelled, "the server stopped"),
        };
        Err(rejection.into_status(None))
    });
    let (response, status, outcome) = match result {
        Ok(response) => {
            let response = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) };
            (response, 0, "ok")
        }
        Err(status) => {
            let error_message = status.message().to_owned();
            let response = ModelStreamInferResponse { error_message, infer_response: None };
            (response, status.code().into(), status.kind().code())
        }
    };
    if let Some(counted) = counted {
        counted.respond(status, &response);
    }
    end(counted, outcome);
    response
}
