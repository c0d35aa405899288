use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::counts::Call;
use super::outcome;
use crate::error::ErrorKind;
use crate::middleware::tracing::RequestScope;

/// Response body that counts its bytes and ends the request.
#[pin_project]
#[derive(Debug)]
pub struct CountedBody<B> {
    #[pin]
    body: B,
    call: Call,
    scope: Option<RequestScope>,
    /// Outcome according to the head; `None` if the trailers have it.
    outcome: Option<&'static str>,
}

impl<B: Body> CountedBody<B> {
    pub(super) fn new(
        body: B,
        mut call: Call,
        scope: Option<RequestScope>,
        outcome: Option<&'static str>,
        is_read: bool,
    ) -> Self {
        if !is_read || body.is_end_stream() {
            call.end(outcome.unwrap_or(NO_STATUS));
        }
        Self { body, call, scope, outcome }
    }
}

/// A response of gRPC without a status is an internal error.
const NO_STATUS: &str = ErrorKind::Internal.code();

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let _entered = this.scope.as_ref().map(|scope| scope.span().enter());
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(told) = frame.trailers_ref().and_then(outcome::of_grpc) {
                    *this.outcome = Some(told);
                }
                if let Some(entry) = this.call.entry() {
                    entry.sent += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                    frame.trailers_ref().into_iter().for_each(|trailers| entry.trailers(trailers));
                }
                // The server need not ask again, and counts are to be right once the client has read it all.
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.call.end(this.outcome.unwrap_or(NO_STATUS));
                }
            }
            Some(Err(_)) => this.call.fail(),
            None => this.call.end(this.outcome.unwrap_or(NO_STATUS)),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Request body that counts its bytes for the [log](super#log).
#[pin_project]
#[derive(Debug)]
pub struct RequestBody<B> {
    #[pin]
    body: B,
    scope: Option<RequestScope>,
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, scope: Option<RequestScope>) -> Self {
        Self { body, scope }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(scope), Some(Ok(frame))) = (this.scope, &frame)
            && let Some(data) = frame.data_ref()
        {
            scope.add_received(data.remaining() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
