//! `ExecuteStream`: requests in, answers as they finish.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};
use pin_project::pin_project;
use tonic::{Status, Streaming};

use super::arrival::earlier;
use super::caller::Caller;
use super::config::GrpcConfig;
use super::message::{Names, json_answer, tensors, tensors_answer};
use super::proto::execute_stream_request::Call;
use super::proto::execute_stream_response::Outcome;
use super::proto::{ExecuteStreamRequest, ExecuteStreamResponse};
use super::server::Pipeline;
use super::status::{Refusal, as_message};
use super::timer::Timer;
use crate::error::{Classify, ErrorKind};
use crate::layers::timeout::TimeoutError;
use crate::servers::requests::{Call as Counted, RequestMetrics, Transport};
use crate::service::{Invalid, KernelRequest, KernelResponse, Payload};

/// The answers to the requests of one stream.
///
/// At most one request waits for room; the next is read when that one runs, so it is HTTP/2's flow control that holds
/// up a client that sends faster. Dropped, it cancels all that runs.
pub(super) struct Answers<S: Pipeline> {
    service: S,
    config: Arc<GrpcConfig>,
    caller: Caller,
    /// Counts the requests, where whoever serves this has put it.
    counts: Option<RequestMetrics>,
    /// `None` once the client has sent its last.
    requests: Option<Streaming<ExecuteStreamRequest>>,
    waiting: Option<Waiting>,
    running: FuturesUnordered<Running<S::Future>>,
    /// Of the call as a whole, where the client has set one.
    deadline: Timer,
    /// What the stream ends with once all that runs has been answered.
    failure: Option<Status>,
    ended: bool,
}

/// A request that has been read and for which there is no room yet.
struct Waiting {
    tag: u64,
    names: Names,
    request: KernelRequest,
    timer: Timer,
    counted: Option<Counted>,
}

impl<S: Pipeline> Answers<S> {
    pub(super) fn new(
        service: S,
        config: Arc<GrpcConfig>,
        caller: Caller,
        requests: Streaming<ExecuteStreamRequest>,
    ) -> Self {
        Self {
            service,
            config,
            deadline: Timer::new(caller.arrival.due()),
            counts: caller.extension().cloned(),
            caller,
            requests: Some(requests),
            waiting: None,
            running: FuturesUnordered::new(),
            failure: None,
            ended: false,
        }
    }

    /// A request from its message, or at once why it is wrong.
    fn read(&self, message: ExecuteStreamRequest, counted: &mut Option<Counted>) -> Result<Waiting, Refusal> {
        let ExecuteStreamRequest { tag, timeout_ms, call } = message;
        let (kernel_id, payload) = match call {
            Some(Call::Json(call)) => (call.kernel_id, Ok(Payload::json(call.input))),
            Some(Call::Tensors(call)) => (call.kernel_id, tensors(call.inputs).map(Payload::from)),
            None => (String::new(), Err(Invalid::new("call", "neither `json` nor `tensors` is set"))),
        };
        let payload = payload?;

        let now = tokio::time::Instant::now().into_std();
        let asked = (timeout_ms > 0).then(|| now.checked_add(Duration::from_millis(timeout_ms))).flatten();
        let limit = earlier(now.checked_add(self.config.timeout), self.caller.arrival.due());
        let deadline = earlier(asked, limit);
        let names = Names { request_id: Arc::clone(&self.caller.request_id), kernel_id };
        let request = self.caller.clone().into_request(names.kernel_id.clone(), payload, deadline);
        Ok(Waiting { tag, names, request, timer: Timer::new(deadline), counted: counted.take() })
    }

    fn refusal(&self, tag: u64, refusal: Refusal, counted: Option<Counted>) -> ExecuteStreamResponse {
        answer(tag, &self.caller.request_id, Err(refusal), counted)
    }

    /// Starts the waiting request if there is room; an answer where it will never start.
    fn poll_start(&mut self, cx: &mut Context<'_>, mut next: Waiting) -> Poll<Option<ExecuteStreamResponse>> {
        let refusal = match self.service.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                let Waiting { tag, names, request, timer, counted } = next;
                let future = self.service.call(request);
                self.running.push(Running { future, timer, counted, answer: Some((tag, names)) });
                return Poll::Ready(None);
            }
            Poll::Ready(Err(error)) => Refusal::of(&error),
            Poll::Pending if next.timer.poll_elapsed(cx).is_ready() => {
                Refusal::of(&TimeoutError::<S::Error>::Elapsed { called: false })
            }
            Poll::Pending => {
                self.waiting = Some(next);
                return Poll::Pending;
            }
        };
        // Whatever place this one was waiting for is given up with it.
        self.service = self.service.clone();
        Poll::Ready(Some(self.refusal(next.tag, refusal, next.counted)))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ExecuteStreamResponse, Status>>> {
        if self.deadline.poll_elapsed(cx).is_ready() {
            let refusal = Refusal::new(ErrorKind::DeadlineExceeded, "the deadline of the stream passed");
            // Which is what the client is told of each.
            for running in Pin::new(&mut self.running).iter_pin_mut() {
                end(running.project().counted, ErrorKind::DeadlineExceeded.code());
            }
            if let Some(waiting) = &mut self.waiting {
                end(&mut waiting.counted, ErrorKind::DeadlineExceeded.code());
            }
            self.running.clear();
            return Poll::Ready(Some(Err(self.end(refusal.into_status(Some(&self.caller.request_id))))));
        }
        loop {
            if let Poll::Ready(Some(answer)) = Pin::new(&mut self.running).poll_next(cx) {
                return Poll::Ready(Some(Ok(answer)));
            }
            if let Some(next) = self.waiting.take() {
                match ready!(self.poll_start(cx, next)) {
                    Some(refusal) => return Poll::Ready(Some(Ok(refusal))),
                    None => continue,
                }
            }
            let Some(requests) = &mut self.requests else {
                if !self.running.is_empty() {
                    return Poll::Pending;
                }
                self.ended = true;
                return Poll::Ready(self.failure.take().map(Err));
            };
            if self.running.len() >= self.config.max_concurrent_per_stream.max(1) {
                return Poll::Pending;
            }
            match ready!(Pin::new(requests).poll_next(cx)) {
                Some(Ok(message)) => {
                    let tag = message.tag;
                    let mut counted = self.counts.as_ref().map(|counts| counts.begin(Transport::GrpcStream));
                    match self.read(message, &mut counted) {
                        Ok(next) => self.waiting = Some(next),
                        Err(refusal) => return Poll::Ready(Some(Ok(self.refusal(tag, refusal, counted)))),
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

    fn end(&mut self, status: Status) -> Status {
        (self.requests, self.waiting, self.failure, self.ended) = (None, None, None, true);
        status
    }
}

impl<S: Pipeline> Stream for Answers<S> {
    type Item = Result<ExecuteStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Nothing here is pinned in place: what runs is in boxes of its own.
        let this = self.get_mut();
        if this.ended { Poll::Ready(None) } else { this.poll_answer(cx) }
    }
}

// What would need pinning is boxed inside `FuturesUnordered`; the service is only ever called.
impl<S: Pipeline> Unpin for Answers<S> {}

/// A request of the stream that runs, and ends by its deadline.
#[pin_project]
struct Running<F> {
    #[pin]
    future: F,
    timer: Timer,
    counted: Option<Counted>,
    answer: Option<(u64, Names)>,
}

impl<F, E> Future for Running<F>
where
    F: Future<Output = Result<KernelResponse, E>>,
    E: Classify + Error + 'static,
{
    type Output = ExecuteStreamResponse;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ExecuteStreamResponse> {
        let this = self.project();
        let result = match this.future.poll(cx) {
            Poll::Ready(result) => result.map_err(TimeoutError::Inner),
            Poll::Pending => {
                ready!(this.timer.poll_elapsed(cx));
                Err(TimeoutError::Elapsed { called: true })
            }
        };
        let (tag, names) = this.answer.take().expect("polled after it had completed");
        let request_id = Arc::clone(&names.request_id);
        let outcome = match result {
            Ok(response @ KernelResponse { payload: Payload::Tensors(_), .. }) => {
                tensors_answer(response, names).map(Outcome::Tensors)
            }
            Ok(response) => json_answer(response, names).map(Outcome::Json),
            Err(error) => Err(Refusal::of(&error)),
        };
        Poll::Ready(answer(tag, &request_id, outcome, this.counted.take()))
    }
}

fn answer(
    tag: u64,
    request_id: &str,
    outcome: Result<Outcome, Refusal>,
    mut counted: Option<Counted>,
) -> ExecuteStreamResponse {
    end(&mut counted, outcome.as_ref().map_or_else(|refusal| refusal.kind().code(), |_| "ok"));
    let outcome = outcome.unwrap_or_else(|refusal| Outcome::Error(as_message(&refusal.into_status(Some(request_id)))));
    ExecuteStreamResponse { tag, outcome: Some(outcome) }
}

/// Counts the end of a request.
fn end(counted: &mut Option<Counted>, outcome: &'static str) {
    if let Some(counted) = counted {
        counted.end(outcome);
    }
}
