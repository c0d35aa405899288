//! A pool with limited memory, whose workers only hold the memory that they were granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backends::worker_pool::{MemoryBudget, PoolHandle, Profile, Reservation, RunFuture, Worker, WorkerPool};
use crate::service::{
    BackendKind, Cost, InvalidInput, Job, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, Payload,
    RunContext, Typed,
};

/// Needs as much memory as its input says.
struct Needs;

impl Kernel for Needs {
    type Input = u64;
    type Output = u64;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/needs", "1", "A test.")
    }
    fn validate(&self, _: &u64) -> Result<(), InvalidInput> {
        Ok(())
    }
    fn cost(&self, input: &u64) -> Cost {
        Cost { device_memory: *input, ..Cost::default() }
    }
}

/// Memory in use, and the most that there was.
#[derive(Clone, Default)]
struct Used(Arc<[AtomicU64; 2]>);

struct Holding(Used);

impl Worker for Holding {
    fn run(
        &mut self,
        job: &Job,
        context: &RunContext<'_>,
        reservation: Option<Reservation>,
    ) -> Result<Typed, KernelError> {
        let needs = self.needs(job);
        assert_eq!(reservation.as_ref().map_or(0, Reservation::bytes), needs);
        let Used(used) = &self.0;
        used[1].fetch_max(used[0].fetch_add(needs, Ordering::SeqCst) + needs, Ordering::SeqCst);
        let start = Instant::now();
        // 70 runs until it is cancelled.
        let result = loop {
            match context.check() {
                Ok(()) if needs != 70 && start.elapsed() > Duration::from_millis(2) => break Ok(Typed::new(needs)),
                Ok(()) => std::thread::sleep(Duration::from_micros(100)),
                Err(reason) => break Err(reason),
            }
        };
        used[0].fetch_sub(needs, Ordering::SeqCst);
        result
    }

    fn needs(&self, job: &Job) -> u64 {
        job.cost().map_or(0, |cost| cost.device_memory)
    }

    fn recover(&mut self) {}
}

struct Pool {
    workers: Arc<WorkerPool>,
    memory_budget: Arc<MemoryBudget>,
    registry: KernelRegistry,
    used: Used,
}

impl Pool {
    /// Of 100 bytes.
    fn new(workers: usize) -> Self {
        let profile = Profile {
            backend: BackendKind::Cpu,
            device: Some(0),
            // Nothing runs on the caller's thread.
            launch: Duration::from_nanos(1),
            idle_spin: Duration::ZERO,
            inline: Duration::ZERO,
            isolated: false,
            busy_poll: Duration::ZERO,
            shutdown_grace: Duration::from_secs(120),
            bytes_per_second: 1.0,
            operations_per_second: 1.0,
            pinned_memory: None,
        };
        let (memory_budget, used) = (MemoryBudget::new(100), Used::default());
        let registry = KernelRegistry::new();
        registry.register(Needs).unwrap();
        let start = |_: &_| Ok((0..workers).map(|_| Holding(used.clone())).collect());
        let workers = Arc::new(WorkerPool::start(profile, 64, Some(Arc::clone(&memory_budget)), start).unwrap());
        Self { workers, memory_budget, registry, used }
    }

    fn run(&self, needs: u64, timeout: Option<Duration>) -> RunFuture {
        let mut handle = PoolHandle::new(Arc::clone(&self.workers));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(handle.poll_reserve(&mut cx).is_ready());
        // JSON, so that it has to be decoded: on the caller's thread nothing is.
        let mut request = KernelRequest::new("test/needs", Payload::json(needs.to_string()));
        if let Some(timeout) = timeout {
            request = request.with_timeout(timeout);
        }
        RunFuture::new(&mut handle, Job::new(self.registry.get("test/needs").unwrap(), request).unwrap())
    }

    fn level(&self) -> (u64, usize, usize) {
        (self.memory_budget.usage().reserved, self.memory_budget.usage().waiting, self.workers.in_flight())
    }

    async fn reaches(&self, level: (u64, usize, usize)) {
        let start = Instant::now();
        while self.level() != level {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?} where {level:?} is expected", self.level());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn jobs_take_turns_at_what_is_there_and_all_of_them_are_done() {
    let pool = Pool::new(4);
    let jobs: Vec<_> = (0..40).map(|job| tokio::spawn(pool.run([60, 30, 0, 100, 10][job % 5], None))).collect();
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    pool.reaches((0, 0, 0)).await;
    assert!(pool.used.0[1].load(Ordering::SeqCst) <= 100);
    assert!(pool.memory_budget.usage().waits > 0, "they never met");
}

#[tokio::test]
async fn a_worker_goes_on_to_what_needs_less() {
    // One worker holds the memory, so all that is done meanwhile is done by the other.
    let pool = Pool::new(2);
    let holds = tokio::spawn(pool.run(70, None));
    pool.reaches((70, 0, 1)).await;
    let large: Vec<_> = (0..3).map(|_| tokio::spawn(pool.run(80, None))).collect();
    pool.reaches((70, 3, 4)).await;
    for needs in [0, 20, 0, 10] {
        tokio::time::timeout(Duration::from_secs(60), pool.run(needs, None)).await.unwrap().unwrap();
    }
    assert_eq!(pool.level(), (70, 3, 4));
    holds.abort();
    for job in large {
        job.await.unwrap().unwrap();
    }
    pool.reaches((0, 0, 0)).await;
}

#[tokio::test]
async fn a_waiting_job_may_be_cancelled_pass_its_deadline_or_be_too_large() {
    let pool = Pool::new(2);
    let holds = tokio::spawn(pool.run(70, None));
    pool.reaches((70, 0, 1)).await;
    let cancelled = tokio::spawn(pool.run(90, None));
    pool.reaches((70, 1, 2)).await;
    let late = pool.run(50, Some(Duration::from_millis(30))).await;
    assert!(matches!(late, Err(KernelError::DeadlineExceeded { started: false })), "{late:?}");
    cancelled.abort();
    pool.reaches((70, 0, 1)).await;
    let huge = pool.run(101, None).await;
    assert!(matches!(huge, Err(KernelError::OutOfMemory { need: 101, .. })), "{huge:?}");
    holds.abort();
    pool.reaches((0, 0, 0)).await;
    pool.run(100, None).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_pool_fails_waiting_jobs() {
    let pool = Pool::new(1);
    let holds = tokio::spawn(pool.run(70, None));
    pool.reaches((70, 0, 1)).await;
    // The only worker is busy, so the job waits in the queue.
    let waits = tokio::spawn(pool.run(90, None));
    pool.reaches((70, 0, 2)).await;
    pool.workers.state().close(KernelError::Stopped { backend: "test" });
    holds.abort();
    assert!(matches!(waits.await.unwrap(), Err(KernelError::Stopped { backend: "test" })));

    let pool = Pool::new(2);
    let holds = tokio::spawn(pool.run(70, None));
    pool.reaches((70, 0, 1)).await;
    let waiting = tokio::spawn(pool.run(90, None));
    pool.reaches((70, 1, 2)).await;
    pool.workers.state().close(KernelError::Stopped { backend: "test" });
    let result = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it hangs").unwrap();
    assert!(matches!(result, Err(KernelError::Stopped { backend: "test" })), "{result:?}");
    assert!(!holds.is_finished(), "what runs is not disturbed");
    holds.abort();
}

#[tokio::test]
async fn workers_end_with_jobs_waiting_for_memory() {
    let pool = Pool::new(2);
    let holds = tokio::spawn(pool.run(70, None));
    pool.reaches((70, 0, 1)).await;
    let waiting = tokio::spawn(pool.run(90, None));
    pool.reaches((70, 1, 2)).await;
    let Pool { workers, memory_budget, .. } = pool;
    let gone = Arc::downgrade(&workers);
    holds.abort();
    waiting.abort();
    drop(workers);
    let start = Instant::now();
    while gone.strong_count() > 0 || memory_budget.usage().reserved > 0 || memory_budget.usage().waiting > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", memory_budget.usage());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_last_future_cancels_its_kernel_before_it_waits_for_the_workers() {
    let pool = Pool::new(1);
    let mut future = Box::pin(pool.run(70, None));
    // It is polled until then, as another thread decodes its input first.
    tokio::select! {
        ended = future.as_mut() => panic!("it ended: {ended:?}"),
        () = pool.reaches((70, 0, 1)) => {}
    }
    drop(pool);
    let start = Instant::now();
    drop(future);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "it waited {:?} for a kernel that nobody cancelled",
        start.elapsed()
    );
}
