//! Several actors: who gets a message, and what becomes of one that died.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix::Arbiter;
use tower_kernels::actix::{
    ActorError, DispatchStrategy, ExecuteKernel, ExecuteMetadata, KernelActorConfig, KernelActorSupervisor, ListKernels,
};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{KernelError, KernelRequest};

use crate::actix::kernels::{SOON, Service, Watch, assert_adds_up, busy, run, saxpy, service};

/// Panics at the next clone after it has been told to, and so kills the actor that takes the next message.
#[derive(Debug)]
struct Fragile {
    inner: Service,
    dies: Arc<AtomicBool>,
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.dies.swap(false, Ordering::SeqCst), "as it was told to");
        Self { inner: self.inner.clone(), dies: Arc::clone(&self.dies) }
    }
}

impl tower::Service<KernelRequest> for Fragile {
    type Response = <Service as tower::Service<KernelRequest>>::Response;
    type Error = KernelError;
    type Future = <Service as tower::Service<KernelRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        tower::Service::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        self.inner.call(request)
    }
}

struct Stage {
    supervisor: KernelActorSupervisor<Fragile>,
    watch: Watch,
    dies: Arc<AtomicBool>,
}

fn stage(strategy: DispatchStrategy) -> Stage {
    let (inner, watch) = service(4, 16);
    let registry = Arc::clone(inner.registry());
    let dies = Arc::new(AtomicBool::new(false));
    let fragile = Fragile { inner, dies: Arc::clone(&dies) };
    Stage { supervisor: KernelActorSupervisor::with_service(fragile, registry).strategy(strategy), watch, dies }
}

impl Stage {
    fn spawn(&mut self, actors: usize, mailbox_capacity: usize) {
        for i in 0..actors {
            self.supervisor.spawn(KernelActorConfig {
                name: format!("worker-{i}"),
                mailbox_capacity,
                ..Default::default()
            });
        }
    }

    fn received(&self) -> Vec<u64> {
        self.supervisor.stats().iter().map(|stats| stats.received).collect()
    }
}

#[test]
fn in_turn_each_actor_gets_as_many() {
    run(async {
        let mut stage = stage(DispatchStrategy::RoundRobin);
        stage.spawn(3, 100);
        for reply in (0..9).map(|_| stage.supervisor.dispatch(saxpy())).collect::<Vec<_>>() {
            reply.await.unwrap();
        }
        assert_eq!(stage.received(), [3, 3, 3]);
        assert_eq!(stage.supervisor.stats().iter().map(|stats| stats.completed).sum::<u64>(), 9);
    });
}

#[test]
fn the_least_loaded_is_chosen_and_what_is_under_way_counts() {
    run(async {
        let mut stage = stage(DispatchStrategy::LeastLoaded);
        stage.spawn(3, 100);
        let actors = stage.supervisor.actors();
        let held = [actors[0].send(busy()), actors[0].send(busy()), actors[2].send(busy())];
        for _ in &held {
            stage.watch.started.recv().await.unwrap();
        }
        // None of these has reached an actor when the next is sent.
        let replies: Vec<_> = (0..3).map(|_| stage.supervisor.dispatch(saxpy())).collect();
        assert_eq!(stage.supervisor.stats().iter().map(|stats| stats.in_flight).collect::<Vec<_>>(), [2, 2, 2]);
        for reply in replies {
            reply.await.unwrap();
        }
        assert_eq!(stage.received(), [2, 2, 2]);
    });
}

#[test]
fn the_full_are_passed_over_and_where_all_are_it_is_an_error_at_once() {
    for strategy in [DispatchStrategy::RoundRobin, DispatchStrategy::LeastLoaded] {
        run(async {
            let mut stage = stage(strategy);
            stage.spawn(2, 2);
            let actors = stage.supervisor.actors();
            let held = [actors[0].send(busy()), actors[0].send(busy())];
            for _ in &held {
                stage.watch.started.recv().await.unwrap();
            }
            let others = [stage.supervisor.dispatch(busy()), stage.supervisor.dispatch(busy())];
            assert_eq!(stage.received(), [2, 2]);
            let rejected = tokio_test::task::spawn(stage.supervisor.dispatch(saxpy())).poll();
            let Poll::Ready(Err(error)) = rejected else { panic!("{rejected:?}") };
            assert!(matches!(error, ActorError::MailboxFull { .. }), "{error:?}");
            drop(others);
            drop(held);
        });
    }
}

#[test]
fn dropping_a_dispatch_cancels_the_kernel() {
    run(async {
        let mut stage = stage(DispatchStrategy::default());
        stage.spawn(1, 10);
        let reply = stage.supervisor.dispatch(busy());
        stage.watch.started.recv().await.unwrap();
        drop(reply);
        assert!(matches!(stage.watch.stopped.recv().await, Some(KernelError::Cancelled)));
        // Never taken: its actor has had no chance to.
        drop(stage.supervisor.dispatch(busy()));
        stage.supervisor.dispatch(saxpy()).await.unwrap();
        let stats = &stage.supervisor.stats()[0];
        assert_eq!((stats.received, stats.in_flight, stats.cancelled, stats.completed), (3, 0, 2, 1));
        assert!(stage.watch.started.try_recv().is_err());
    });
}

#[test]
fn the_time_on_the_way_to_a_busy_thread_counts() {
    run(async {
        let mut stage = stage(DispatchStrategy::default());
        stage.spawn(1, 10);
        let timeout = Duration::from_millis(5);
        let metadata = ExecuteMetadata { timeout: Some(timeout), ..Default::default() };
        let late = stage.supervisor.dispatch(ExecuteKernel { metadata, ..saxpy() });
        std::thread::sleep(timeout);
        assert!(matches!(late.await, Err(ActorError::DeadlineExceeded { called: false })));
    });
}

#[test]
fn one_that_died_is_started_again_and_what_it_had_taken_in_goes_on() {
    run(async {
        let mut stage = stage(DispatchStrategy::RoundRobin);
        stage.spawn(2, 10);
        let before = stage.supervisor.actors();
        let mut running = pin!(before[0].send(busy()));
        stage.watch.started.recv().await.unwrap();

        stage.dies.store(true, Ordering::SeqCst);
        let (killer, queued) = (before[0].send(saxpy()), before[0].send(ListKernels));
        let error = ActorError::from(killer.await.unwrap_err());
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "the actor has ended"));
        assert!(queued.await.is_err(), "it was behind the one that killed the actor");
        assert!(!before[0].connected() && before[1].connected());

        for _ in 0..4 {
            stage.supervisor.dispatch(saxpy()).await.unwrap();
        }
        let after = stage.supervisor.actors();
        assert!(after.iter().all(|actor| actor.connected()));
        assert!(before[0] != after[0] && before[1] == after[1], "only the dead one is another now");

        let stats = stage.supervisor.stats();
        stats.iter().for_each(assert_adds_up);
        assert_eq!(stats.iter().map(|stats| stats.restarts).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((stats[0].in_flight, stats[0].failed, stats[0].completed), (1, 1, 2));

        // It is still the kernel's caller who decides.
        assert!(tokio_test::task::spawn(running.as_mut()).poll().is_pending());
        assert!(stage.watch.stopped.try_recv().is_err());
    });
}

#[test]
fn it_serves_from_any_thread_and_starts_again_from_there() {
    run(async {
        let mut stage = stage(DispatchStrategy::default());
        stage.spawn(1, 10);
        let before = stage.supervisor.actors();
        let restarts = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            stage.dies.store(true, Ordering::SeqCst);
            let begun = Instant::now();
            // Its own thread may still be unwinding when another is told, so it can look alive for a moment more.
            while let Err(error) = runtime.block_on(stage.supervisor.dispatch(saxpy())) {
                assert!(matches!(error, ActorError::ActorGone) && begun.elapsed() < SOON, "{error:?}");
            }
            assert_adds_up(&stage.supervisor.stats()[0]);
            stage.supervisor.stats()[0].restarts
        });
        assert_eq!(restarts.await.unwrap(), 1);
        assert!(!before[0].connected());
    });
}

#[test]
fn with_its_arbiter_an_actor_ends_for_good_and_its_kernels_stop() {
    run(async {
        let arbiter = Arbiter::new();
        let mut stage = stage(DispatchStrategy::default());
        let (send, spawned) = tokio::sync::oneshot::channel();
        arbiter.spawn_fn(move || {
            stage.spawn(1, 10);
            assert!(send.send(stage).is_ok());
        });
        let mut stage = spawned.await.unwrap();
        let running = stage.supervisor.dispatch(busy());
        stage.watch.started.recv().await.unwrap();

        arbiter.stop();
        assert!(matches!(running.await, Err(ActorError::ActorGone)));
        assert!(matches!(stage.watch.stopped.recv().await, Some(KernelError::Cancelled)));
        arbiter.join().unwrap();
        assert!(matches!(stage.supervisor.dispatch(saxpy()).await, Err(ActorError::ActorGone)));
        assert_eq!(stage.supervisor.stats()[0].restarts, 0);

        // One on an arbiter that lives takes over.
        stage.spawn(1, 10);
        stage.supervisor.dispatch(saxpy()).await.unwrap();
        assert_eq!(stage.received(), [1, 1]);
    });
}

#[test]
fn without_actors_requests_fail() {
    run(async {
        let mut stage = stage(DispatchStrategy::default());
        assert!(stage.supervisor.actors().is_empty());
        let error = stage.supervisor.dispatch(saxpy()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "no actor has been spawned"));
    });
}
