use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;

use super::unencoded::Unencoded;
use super::{CODEC_INLINE, KernelError, KernelResponse, Offloaded};

/// The response future of [`KernelService`](super::KernelService). Dropping it cancels the run.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProjection)]
#[derive(Debug)]
enum State<F> {
    Rejected(KernelError),
    Running(#[pin] F),
    /// A codec thread encodes the output.
    Encoding(#[pin] Offloaded<Result<KernelResponse, KernelError>>),
}

impl<F> ResponseFuture<F> {
    pub(super) fn rejected(error: KernelError) -> Self {
        Self { state: State::Rejected(error) }
    }

    pub(super) fn running(future: F) -> Self {
        Self { state: State::Running(future) }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<KernelResponse, E>>,
    E: From<KernelError>,
{
    type Output = Result<KernelResponse, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Rejected(error) => return Poll::Ready(Err(error.clone().into())),
                StateProjection::Running(future) => {
                    let response = ready!(future.poll(cx))?;
                    let Some(output) = Unencoded::of(&response) else { return Poll::Ready(Ok(response)) };
                    if output.time() <= CODEC_INLINE {
                        return Poll::Ready(output.encode_here(response).map_err(E::from));
                    }
                    state.set(State::Encoding(output.offload(response)?));
                }
                StateProjection::Encoding(encoding) => {
                    return Poll::Ready(ready!(encoding.poll(cx)).flatten().map_err(E::from));
                }
            }
        }
    }
}
