//! The future of a job that runs on lanes.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::coop;

use super::thread::run_inline;
use super::{Lanes, Slot, Task};
use crate::backends::cpu::CpuWorker;
use crate::service::{BackendKind, Context, Job, KernelError, KernelResponse, Progress, RequestContext};

type Answer = Result<KernelResponse, KernelError>;

/// A job that runs on a backend of this process.
///
/// Nothing happens before the first poll. Dropped before that, the job is never decoded; dropped while it waits, it is
/// never started; dropped while it runs, the kernel is told, and its slot is free once it has stopped.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture {
    // Before the lanes, whose end waits for a kernel that must have been told by then.
    state: State,
    lanes: Arc<Lanes>,
}

#[derive(Debug)]
enum State {
    Unpolled(Job, OwnedSemaphorePermit),
    Waiting(oneshot::Receiver<Answer>),
    /// The workers died. Whoever asks again is told again.
    Failed(KernelError),
    Done,
}

impl RunFuture {
    /// A job for the slot that has been reserved.
    pub(crate) fn new(slot: &mut Slot, job: Job) -> Self {
        Self { lanes: Arc::clone(slot.lanes()), state: State::Unpolled(job, slot.take()) }
    }

    /// A run that fails without having started.
    #[cfg(feature = "cuda")]
    pub(crate) fn refuse(slot: &Slot, error: KernelError) -> Self {
        Self { lanes: Arc::clone(slot.lanes()), state: State::Failed(error) }
    }

    /// Does at once what is small, and hands the rest to a lane.
    fn start(&self, mut job: Job, slot: OwnedSemaphorePermit) -> ControlFlow<Answer, oneshot::Receiver<Answer>> {
        let accepted = Instant::now();
        let profile = self.lanes.profile();
        if let Err(error) = job.prepare(Some(profile.inline), None) {
            return ControlFlow::Break(Err(error));
        }
        let cheap = job.input().is_some_and(|input| profile.time(input.cost) <= profile.inline);
        if cheap && profile.backend == BackendKind::Cpu {
            let progress = job.extensions().get::<Progress>().cloned();
            let context = Context::new(None, job.deadline()).watched_by(progress.as_ref());
            return ControlFlow::Break(run_inline(&mut CpuWorker, profile, &mut job, accepted, &context));
        }
        let small = !profile.linger.is_zero()
            && self.lanes.in_flight() == 1
            && job.input().is_some_and(|input| profile.time(input.cost) <= profile.linger);
        let (reply, mut answer) = oneshot::channel();
        let span = tracing::Span::current();
        match self.lanes.submit(Task { job, reply, accepted, span, slot, claim: None }) {
            Ok(()) => match small.then(|| linger(&mut answer, profile.linger)).flatten() {
                Some(answer) => ControlFlow::Break(answer),
                None => ControlFlow::Continue(answer),
            },
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }
}

/// Looks for an answer that is about to come: shorter than to be woken for it.
fn linger(answer: &mut oneshot::Receiver<Answer>, most: Duration) -> Option<Answer> {
    let start = Instant::now();
    while start.elapsed() < most {
        if let Ok(answer) = answer.try_recv() {
            return Some(answer);
        }
        std::hint::spin_loop();
    }
    None
}

impl Future for RunFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Unpolled(job, slot) => {
                    // A task that runs one cheap kernel after another has to yield now and then.
                    let Poll::Ready(budget) = coop::poll_proceed(cx) else {
                        self.state = State::Unpolled(job, slot);
                        return Poll::Pending;
                    };
                    budget.made_progress();
                    match self.start(job, slot) {
                        ControlFlow::Continue(answer) => self.state = State::Waiting(answer),
                        ControlFlow::Break(answer) => return Poll::Ready(answer),
                    }
                }
                State::Waiting(mut answer) => {
                    let Poll::Ready(result) = Pin::new(&mut answer).poll(cx) else {
                        self.state = State::Waiting(answer);
                        return Poll::Pending;
                    };
                    match result {
                        Ok(result) => return Poll::Ready(result),
                        Err(_) => self.state = State::Failed(self.lanes.state().error()),
                    }
                }
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Poll::Ready(Err(error));
                }
                State::Done => panic!("`RunFuture` polled after completion"),
            }
        }
    }
}
