//! Kernels that do anything but what they should.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;
use tower_kernels::request::Execution;
use tower_kernels::service::{
    BatchKey, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelResponse,
    RunContext,
};

use crate::support::random::Random;

pub(crate) const PANIC: &str = "the kernels were told to panic";

/// Says what it is for a [`Chaotic`] service, and is run by a machine as that runs it: by chance.
struct Named(&'static str, bool, Mutex<Random>);

impl Kernel for Named {
    type Input = Vec<u64>;
    type Output = Vec<u64>;

    fn info(&self) -> KernelInfo {
        let info = KernelInfo::new(self.0, "1.0.0", "Takes part in chaos");
        if self.1 { info.pure() } else { info }
    }
    fn validate(&self, _: &Vec<u64>) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// 50 µs, so that it goes to a lane.
    fn cost(&self, _: &Vec<u64>) -> Cost {
        Cost { operations: 100_000, ..Cost::default() }
    }
    fn batch_key(&self, _: &Vec<u64>) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
    fn run_cpu(&self, input: &Vec<u64>, run: &RunContext<'_>) -> Result<Vec<u64>, KernelError> {
        let act = act(&mut self.2.lock().unwrap());
        let end = match act {
            Act::Answer => Some(Duration::ZERO),
            // WorkerPool are fewer than the service's places, and those who share a run wait for all of it.
            Act::Take(time) => Some(time / 16),
            Act::Never => None,
            Act::Panic | Act::PanicAtOnce => panic!("{PANIC}"),
            Act::Fail(error) => return Err(error),
        };
        let begun = Instant::now();
        while end.is_none_or(|end| begun.elapsed() < end) {
            run.check()?;
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(input.clone())
    }
}

pub(crate) fn registry(seed: u64) -> KernelRegistry {
    let registry = KernelRegistry::new();
    for (id, pure) in [("chaos/pure", true), ("chaos/pure-as-well", true), ("chaos/impure", false)] {
        registry.register(Named(id, pure, Mutex::new(Random::new(!seed)))).unwrap();
    }
    registry
}

/// A service with so many places, which answers as chance has it.
#[derive(Debug)]
pub(crate) struct Chaotic {
    places: usize,
    semaphore: Arc<Semaphore>,
    poll: PollSemaphore,
    place: Option<OwnedSemaphorePermit>,
    random: Arc<Mutex<Random>>,
}

impl Chaotic {
    pub(crate) fn new(seed: u64, places: usize) -> Self {
        let semaphore = Arc::new(Semaphore::new(places));
        let poll = PollSemaphore::new(Arc::clone(&semaphore));
        Self { places, semaphore, poll, place: None, random: Arc::new(Mutex::new(Random::new(!seed))) }
    }

    /// Places that are reserved, or where a kernel runs.
    pub(crate) fn in_use(&self) -> usize {
        self.places - self.semaphore.available_permits()
    }

    fn act(&self) -> Act {
        // A panic comes after this lock is free.
        act(&mut self.random.lock().unwrap())
    }
}

fn act(random: &mut Random) -> Act {
    match random.below(100) {
        0..40 => Act::Answer,
        40..80 => Act::Take(Duration::from_micros(random.below(6000))),
        80..84 => Act::Take(Duration::from_millis(random.below(100))),
        84..86 => Act::Never,
        86..90 => Act::Panic,
        90 => Act::PanicAtOnce,
        91..94 => Act::Fail(KernelError::Device("it was told to fail".into())),
        94..96 => Act::Fail(KernelError::Stopped { backend: "chaos" }),
        96..98 => Act::Fail(KernelError::OutOfMemory { need: 1, free: 0, total: 2 }),
        _ => Act::Fail(KernelError::InvalidInput(InvalidInput::new("input", "it was told to fail"))),
    }
}

#[derive(Debug)]
enum Act {
    Answer,
    Take(Duration),
    Never,
    Panic,
    /// In the call, and not in a poll.
    PanicAtOnce,
    Fail(KernelError),
}

// By hand: what is reserved is this one's own.
impl Clone for Chaotic {
    fn clone(&self) -> Self {
        let (semaphore, random) = (Arc::clone(&self.semaphore), Arc::clone(&self.random));
        Self { places: self.places, poll: PollSemaphore::new(Arc::clone(&semaphore)), semaphore, place: None, random }
    }
}

impl Service<KernelRequest> for Chaotic {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = Running;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        if self.place.is_none() {
            self.place = ready!(self.poll.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: KernelRequest) -> Running {
        let place = self.place.take().expect("called without being polled ready");
        if request.kernel_id == "chaos/unknown" {
            let act = Act::Fail(KernelError::UnknownKernel { id: request.kernel_id.clone() });
            return Running { request, act, place: Some(place), sleep: None };
        }
        let act = self.act();
        let sleep = match act {
            Act::Take(time) => Some(Box::pin(tokio::time::sleep(time))),
            Act::PanicAtOnce => panic!("{PANIC}"),
            _ => None,
        };
        Running { request, act, place: Some(place), sleep }
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    request: KernelRequest,
    act: Act,
    place: Option<OwnedSemaphorePermit>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for Running {
    type Output = Result<KernelResponse, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        let result = match &self.act {
            Act::Answer | Act::Take(_) => Ok(KernelResponse::new(self.request.payload.clone(), Execution::new("CPU"))),
            Act::Never => return Poll::Pending,
            Act::Panic | Act::PanicAtOnce => panic!("{PANIC}"),
            Act::Fail(error) => Err(error.clone()),
        };
        self.place = None;
        Poll::Ready(result)
    }
}
