use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::choice::{Chosen, Permits, choose};
use super::device_permit::DevicePermit;
use super::device_set::{DeviceSet, KINDS};
use crate::backends::worker_pool::{JobError, PoolHandle, Requeued, RunFuture, WorkerPool};
use crate::request::{BackendChoice, RequestContext};
use crate::service::{BackendKind, CODEC_INLINE, Job, KernelError, KernelResponse, Offloaded, PinnedMemory};

/// The response future of [`Local`](super::Local): a job that runs on the backend that is predicted to give the response first,
/// and on another if that one is lost or its kernel has no code for the input there.
///
/// Otherwise it is like [`RunFuture`]: nothing happens before the first poll, and dropping it cancels the job wherever it is.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LocalFuture {
    state: State,
    devices: Arc<DeviceSet>,
    /// Why it ran where it ran, unless it was moved.
    choice: Option<Box<BackendChoice>>,
}

#[derive(Debug)]
enum State {
    /// Not polled yet, with the permits that readiness has reserved.
    New(Job, Permits),
    /// A codec thread decodes a large input. The permit of the CPU bounds how many do at one time; a device's permit is left
    /// to jobs that can use it.
    Decoding(Offloaded<Job>, Option<PoolHandle>),
    /// Waits for the permits that were released meanwhile.
    Decoded(Box<Decoded>),
    Running(RunFuture),
    /// Waits for a permit of another pool.
    Moving(Box<Failover>),
    /// Every further poll returns the error again.
    Failed(KernelError),
    Done,
}

/// A job whose large input has been decoded.
#[derive(Debug)]
struct Decoded {
    job: Job,
    permits: [DevicePermit; KINDS.len()],
}

/// A job that its pool has handed back and that waits for a permit of another one.
#[derive(Debug)]
struct Failover {
    requeued: Box<Requeued>,
    /// The error with which it was handed back, and the pool.
    error: KernelError,
    from: Arc<WorkerPool>,
    permit: DevicePermit,
}

impl LocalFuture {
    pub(super) fn new(job: Job, permits: Permits, devices: &Arc<DeviceSet>) -> Self {
        Self { state: State::New(job, permits), devices: Arc::clone(devices), choice: None }
    }

    /// Decodes a small input on this thread and any other on a codec thread.
    fn start(&mut self, mut job: Job, permits: Permits) -> State {
        if let Err(error) = job.prepare(Some(CODEC_INLINE)) {
            return State::Failed(error);
        }
        if job.is_prepared() {
            return self.place(job, permits);
        }
        let memory = pinned_memory(&job, &permits);
        let cpu = permits.into_iter().flatten().find(|permit| permit.pool().profile().backend == BackendKind::Cpu);
        match job.offload_prepare(memory) {
            Ok(decoding) => State::Decoding(decoding, cpu),
            Err(error) => State::Failed(error),
        }
    }

    /// Starts a job whose input is decoded on a backend.
    fn place(&mut self, mut job: Job, permits: Permits) -> State {
        match choose(&self.devices, &job, permits) {
            Ok(Chosen { mut permit, choice, limit }) => {
                self.choice = choice.map(Box::new);
                if let Some(limit) = limit {
                    job.set_run_limit(limit);
                }
                State::Running(RunFuture::new(&mut permit, job))
            }
            Err(error) => State::Failed(error),
        }
    }

    /// Moves a job that failed on a pool to another one that can still run it.
    fn move_on(&mut self, from: &Arc<WorkerPool>, failed: JobError) -> State {
        let JobError { error, requeued } = failed;
        let Some(mut requeued) = requeued else { return State::Failed(error) };
        let kind = match &self.choice {
            Some(choice) if requeued.job.remove_run_limit() && from.is_open() => Some(choice.predicted[1].0),
            _ => self.devices.failover(from, &requeued, &error),
        };
        let Some(kind) = kind else { return State::Failed(error) };
        tracing::debug!(
            kernel = requeued.job.operation(),
            backend = kind.as_str(),
            %error,
            "moving a job to another backend"
        );
        self.choice = None;
        let (from, permit) = (Arc::clone(from), DevicePermit::new(kind));
        State::Moving(Box::new(Failover { requeued, error, from, permit }))
    }
}

impl Decoded {
    fn new(job: Job, cpu: Option<PoolHandle>) -> Self {
        let mut permits = KINDS.map(DevicePermit::new);
        if let (Some(cpu), Some(permit)) = (cpu, permits.iter_mut().find(|permit| permit.kind() == BackendKind::Cpu)) {
            permit.set(cpu);
        }
        Self { job, permits }
    }

    /// Waits for the permits of all backends that may run the job.
    fn poll_permits(&mut self, devices: &DeviceSet, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        if self.job.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(Err(KernelError::DeadlineExceeded { started: false }));
        }
        let mut is_pending = false;
        for permit in &mut self.permits {
            // A backend that the request does not ask for is only compared with the one that it asks for.
            if self.job.kernel().info().supports(permit.kind()) && permit.poll_reserve(devices, cx).is_pending() {
                is_pending |= self.job.may_run_on(permit.kind());
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

/// Returns the pinned memory of a device that may run the job.
fn pinned_memory(job: &Job, permits: &Permits) -> Option<PinnedMemory> {
    let profiles = permits.iter().flatten().map(|permit| permit.pool().profile());
    profiles.filter(|profile| job.may_run_on(profile.backend)).find_map(|profile| profile.pinned_memory.clone())
}

impl Failover {
    /// Waits for a permit of another pool. Fails if no pool is left that can run the job.
    fn poll_permit(&mut self, devices: &DeviceSet, cx: &mut Context<'_>) -> Poll<Result<PoolHandle, KernelError>> {
        let Self { requeued, error, from, permit } = self;
        loop {
            if requeued.job.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                return Poll::Ready(Err(KernelError::DeadlineExceeded { started: requeued.started }));
            }
            ready!(permit.poll_reserve(devices, cx));
            if let Some(handle) = permit.take() {
                return Poll::Ready(Ok(handle));
            }
            // The last pool of that kind has closed as well.
            match devices.failover(from, requeued, error).filter(|&kind| kind != permit.kind()) {
                Some(kind) => *permit = DevicePermit::new(kind),
                None => return Poll::Ready(Err(error.clone())),
            }
        }
    }
}

impl Future for LocalFuture {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::New(job, permits) => self.state = self.start(job, permits),
                State::Decoding(mut decoding, cpu) => match Pin::new(&mut decoding).poll(cx) {
                    Poll::Pending => {
                        self.state = State::Decoding(decoding, cpu);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(mut job)) => {
                        self.state = match job.prepare(None) {
                            Ok(()) => State::Decoded(Box::new(Decoded::new(job, cpu))),
                            Err(error) => State::Failed(error),
                        };
                    }
                    Poll::Ready(Err(error)) => self.state = State::Failed(error),
                },
                State::Decoded(mut decoded) => match decoded.poll_permits(&self.devices, cx) {
                    Poll::Pending => {
                        self.state = State::Decoded(decoded);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) => {
                        let Decoded { job, mut permits } = *decoded;
                        let permits = permits.each_mut().map(DevicePermit::take);
                        self.state = self.place(job, permits);
                    }
                    Poll::Ready(Err(error)) => self.state = State::Failed(error),
                },
                State::Running(mut run) => match run.poll_result(cx) {
                    Poll::Pending => {
                        self.state = State::Running(run);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(mut response)) => {
                        if let Some(choice) = self.choice.take() {
                            response.execution.set_choice(*choice);
                        }
                        return Poll::Ready(Ok(response));
                    }
                    Poll::Ready(Err(failed)) => self.state = self.move_on(run.pool(), failed),
                },
                State::Moving(mut failover) => match failover.poll_permit(&self.devices, cx) {
                    Poll::Pending => {
                        self.state = State::Moving(failover);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(mut handle)) => {
                        self.state = State::Running(RunFuture::resume(&mut handle, failover.requeued));
                    }
                    Poll::Ready(Err(error)) => self.state = State::Failed(error),
                },
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Poll::Ready(Err(error));
                }
                State::Done => panic!("`LocalFuture` polled after completion"),
            }
        }
    }
}
