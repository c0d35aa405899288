use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use crate::service::{KernelError, KernelResponse, MemberResult, MemberResults};

/// The response future of [`Batches`](super::Batches): the responses to a batch of jobs, in order.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct BatchFuture<F> {
    #[pin]
    run: Option<F>,
    members: Members,
}

/// How long each job has waited to be merged.
#[derive(Debug)]
enum Members {
    One(Duration),
    Several(Vec<Duration>),
}

impl<F> BatchFuture<F> {
    pub(super) fn one(run: F, waited: Duration) -> Self {
        Self { run: Some(run), members: Members::One(waited) }
    }

    pub(super) fn several(run: F, waited: Vec<Duration>) -> Self {
        Self { run: Some(run), members: Members::Several(waited) }
    }

    /// Completes a batch of no jobs.
    pub(super) fn none() -> Self {
        Self { run: None, members: Members::Several(Vec::new()) }
    }
}

impl<F, E> Future for BatchFuture<F>
where
    F: Future<Output = Result<KernelResponse, E>>,
    E: From<KernelError>,
{
    type Output = Result<Vec<Result<KernelResponse, E>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(run) = this.run.as_pin_mut() else { return Poll::Ready(Ok(Vec::new())) };
        let mut response = ready!(run.poll(cx))?;
        let responses = match this.members {
            Members::One(waited) => {
                response.execution.queued += *waited;
                vec![Ok(response)]
            }
            Members::Several(waited) => split(response, waited),
        };
        Poll::Ready(Ok(responses))
    }
}

/// Splits the response of a shared run into those of its members.
fn split<E: From<KernelError>>(response: KernelResponse, waited: &[Duration]) -> Vec<Result<KernelResponse, E>> {
    let KernelResponse { payload, execution, .. } = response;
    let Some(results) = MemberResults::from_payload(payload) else {
        let error = || KernelError::kernel("a layer inside of the batch layer replaced the payload of a shared run");
        return waited.iter().map(|_| Err(error().into())).collect();
    };
    let response = |(result, waited): (MemberResult, &Duration)| {
        let mut execution = execution.clone();
        execution.queued += *waited;
        let (payload, memory) = result?;
        Ok(KernelResponse::new(payload, execution).with_memory(memory))
    };
    results.into_iter().zip(waited).map(response).collect()
}
