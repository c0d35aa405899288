use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use crate::service::{Answers, KernelError, KernelResponse, MemberResult};

/// The answers to a batch of jobs.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct BatchFuture<F> {
    #[pin]
    run: Option<F>,
    members: Members,
}

/// How long each has waited before the run was called.
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

    /// Of no jobs.
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
        let answers = match this.members {
            Members::One(waited) => {
                response.execution.queued += *waited;
                vec![Ok(response)]
            }
            Members::Several(waited) => take_apart(response, waited),
        };
        Poll::Ready(Ok(answers))
    }
}

fn take_apart<E: From<KernelError>>(response: KernelResponse, waited: &[Duration]) -> Vec<Result<KernelResponse, E>> {
    let KernelResponse { payload, execution, .. } = response;
    // Something between here and the lanes has put another payload in its place.
    let Some(answers) = Answers::from_payload(payload) else {
        let strange = || KernelError::kernel("the answer to a batch of jobs was replaced by another");
        return waited.iter().map(|_| Err(strange().into())).collect();
    };
    let answer = |(answer, waited): (MemberResult, &Duration)| {
        let mut execution = execution.clone();
        execution.queued += *waited;
        let (payload, memory) = answer?;
        Ok(KernelResponse::new(payload, execution).with_memory(memory))
    };
    answers.into_iter().zip(waited).map(answer).collect()
}
