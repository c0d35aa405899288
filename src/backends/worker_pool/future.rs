//! The future of a job that runs on lanes.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::coop;

use super::worker::run_inline;
use super::{Place, Slot, Task, WorkerPool};
use crate::backends::cpu::CpuWorker;
use crate::request::RequestContext;
use crate::service::{BackendKind, Failed, Job, KernelError, KernelResponse, Progress, Returned, RunContext};

type Answer = Result<KernelResponse, Failed>;

/// A job that runs on a backend of this process.
///
/// Nothing happens before the first poll. Dropped before that, the job is never decoded; dropped while it waits, it is
/// never started; dropped while it runs, the kernel is told, and its slot is free once it has stopped.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct RunFuture {
    // Before the lanes, whose end waits for a kernel that must have been told by then.
    state: State,
    lanes: Arc<WorkerPool>,
}

#[derive(Debug)]
enum State {
    Unpolled(Job, Place),
    /// Another pool has given it back.
    Again(Box<Returned>, Place),
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

    /// A job that another pool has given back, for the slot that has been reserved.
    pub(crate) fn again(slot: &mut Slot, returned: Box<Returned>) -> Self {
        Self { lanes: Arc::clone(slot.lanes()), state: State::Again(returned, slot.take()) }
    }

    /// What it runs on.
    pub(crate) fn lanes(&self) -> &Arc<WorkerPool> {
        &self.lanes
    }

    /// A run that fails without having started.
    pub(crate) fn refuse(lanes: &Arc<WorkerPool>, error: KernelError) -> Self {
        Self { lanes: Arc::clone(lanes), state: State::Failed(error) }
    }

    /// Does at once what is small, and hands the rest to a lane.
    fn start(
        &self,
        mut job: Job,
        mut slot: Place,
        accepted: Instant,
    ) -> ControlFlow<Answer, oneshot::Receiver<Answer>> {
        let profile = self.lanes.profile();
        if let Err(error) = job.prepare(Some(profile.inline), None) {
            return ControlFlow::Break(Err(error.into()));
        }
        let time = job.input().map(|input| profile.time(input.cost));
        let cheap = time.is_some_and(|time| time <= profile.inline);
        if cheap && profile.backend == BackendKind::Cpu {
            let progress = job.extensions().get::<Progress>().cloned();
            let memory = job.memory().cloned();
            let context = RunContext::new(None, job.deadline()).watched_by(progress.as_ref());
            let context = context.with_memory(memory.as_ref());
            let answer = run_inline(&mut CpuWorker, profile, &mut job, accepted, &context);
            return ControlFlow::Break(answer.map_err(Failed::from));
        }
        slot.expect(time.unwrap_or_else(|| job.expected_unread(|cost| profile.time(cost))));
        let small =
            !profile.linger.is_zero() && self.lanes.in_flight() == 1 && time.is_some_and(|time| time <= profile.linger);
        let (reply, mut answer) = oneshot::channel();
        let span = tracing::Span::current();
        match self.lanes.submit(Task { job, reply, accepted, span, slot, started: false, reservation: None }) {
            None => match small.then(|| linger(&mut answer, profile.linger)).flatten() {
                Some(answer) => ControlFlow::Break(answer),
                None => ControlFlow::Continue(answer),
            },
            Some(task) => ControlFlow::Break(Err(task.into_failed(self.lanes.state().error()))),
        }
    }

    /// As `poll`, with the job where the pool has ended and the job is of use in another.
    pub(crate) fn poll_answer(&mut self, cx: &mut TaskContext<'_>) -> Poll<Answer> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Unpolled(job, slot) => {
                    // A task that runs one cheap kernel after another has to yield now and then.
                    let Poll::Ready(budget) = coop::poll_proceed(cx) else {
                        self.state = State::Unpolled(job, slot);
                        return Poll::Pending;
                    };
                    budget.made_progress();
                    match self.start(job, slot, Instant::now()) {
                        ControlFlow::Continue(answer) => self.state = State::Waiting(answer),
                        ControlFlow::Break(answer) => return Poll::Ready(answer),
                    }
                }
                State::Again(returned, slot) => {
                    let Returned { job, accepted, .. } = *returned;
                    match self.start(job, slot, accepted) {
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
                        Err(_) => self.state = State::Failed(self.lanes.state().lost_job()),
                    }
                }
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Poll::Ready(Err(error.into()));
                }
                State::Done => panic!("`RunFuture` polled after completion"),
            }
        }
    }
}

impl Future for RunFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.poll_answer(cx).map_err(|failed| failed.error)
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
