//! Everything at once: kernels that take their time, fail, panic and never answer, and callers that ask the same, have
//! little time and leave, through the whole pipeline. Each call has exactly one outcome, the metrics add up to them, and
//! nothing is left behind.
//!
//! It takes some seconds; `TOWER_KERNELS_CHAOS_SECONDS=60` makes it a minute, and `TOWER_KERNELS_CHAOS_SEED` another run.

mod kernels;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::pipeline::{
    BatchConfig, CoalesceConfig, KernelHandler, Pipeline, PipelineConfig, PipelineHandle, PipelineLayer, QueueConfig,
    QuotaConfig, RateLimitConfig, RetryConfig,
};
use tower_kernels::request::Priority;
use tower_kernels::service::{KernelRequest, Payload};

use self::kernels::{Chaotic, registry};
use crate::support::random::Random;

/// How calls ended, by the code that metrics have for it.
type Tally = BTreeMap<&'static str, u64>;

fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

fn config() -> PipelineConfig {
    let mut config = PipelineConfig { timeout: Duration::from_millis(50), ..Default::default() };
    let default = QuotaConfig { burst: 150, period: Duration::from_millis(100) };
    config.rate_limit = Some(RateLimitConfig { default, tenants: BTreeMap::new() });
    #[cfg(feature = "cache")]
    {
        use tower_kernels::pipeline::CacheConfig;
        let ttl = Some(Duration::from_millis(5));
        config.cache = Some(CacheConfig { max_bytes: 1 << 20, ttl, share_across_tenants: true });
    }
    config.coalesce = Some(CoalesceConfig { share_across_tenants: true });
    config.retry = Some(RetryConfig { attempts: 3 });
    config.queue = Some(QueueConfig { capacity: 32, max_bytes: 1 << 20 });
    config.concurrency = NonZeroUsize::new(6);
    // It is to open now and then, and to close again.
    if let Some(breaker) = &mut config.circuit_breaker {
        breaker.consecutive_failures = 10;
        breaker.failure_rate = 0.9;
    }
    config
}

fn request(random: &mut Random) -> KernelRequest {
    let kernel = random.of(&["chaos/pure", "chaos/pure-as-well", "chaos/impure", "chaos/unknown"]);
    // Few distinct ones, so that many are repeats.
    let payload = Payload::json(format!("[{}]", random.below(40)));
    let mut request = KernelRequest::new(*kernel, payload);
    request.priority = *random.of(&[Priority::Low, Priority::Normal, Priority::High]);
    request.tenant = random.one_in(3).then(|| (*random.of(&["acme", "umbrella"])).into());
    if random.one_in(2) {
        request = request.with_timeout(Duration::from_micros(random.below(40_000)));
    }
    request
}

/// Makes calls one after the other until `end`. `None` in place of an outcome is a call that was never made.
async fn caller<S: KernelHandler + Sync>(pipeline: Pipeline<S>, mut random: Random, end: Instant) -> (Tally, u64) {
    let (mut tally, mut never_made) = (Tally::new(), 0);
    while Instant::now() < end {
        let (mut pipeline, request) = (pipeline.clone(), request(&mut random));
        let called = Arc::new(AtomicBool::new(false));
        let calls = Arc::clone(&called);
        let unpolled = random.one_in(50);
        let call = tokio::spawn(async move {
            let ready = pipeline.ready().await.map_err(|error| error.kind())?;
            calls.store(true, Ordering::SeqCst);
            let future = ready.call(request);
            if unpolled {
                drop(future);
                return Ok(None);
            }
            future.await.map(Some).map_err(|error| error.kind())
        });
        if random.one_in(4) {
            let abort = call.abort_handle();
            tokio::time::sleep(Duration::from_micros(random.below(30_000))).await;
            abort.abort();
        }
        // A call that is never answered would hold the test up for good.
        let ended = tokio::time::timeout(Duration::from_secs(60), call).await.expect("a call was never answered");
        let outcome = match ended {
            Ok(Ok(Some(_))) => "ok",
            Ok(Ok(None)) => "cancelled",
            Ok(Err(kind)) => kind.code(),
            Err(error) if error.is_panic() => "internal",
            Err(_) => "cancelled",
        };
        if called.load(Ordering::SeqCst) {
            *tally.entry(outcome).or_default() += 1;
        } else {
            assert_eq!(outcome, "cancelled", "the pipeline was not ready, and said so");
            never_made += 1;
        }
    }
    (tally, never_made)
}

fn ended(handle: &PipelineHandle) -> Tally {
    handle.metrics().ended().into_iter().fold(Tally::new(), |mut tally, calls| {
        *tally.entry(calls.outcome).or_default() += calls.count;
        tally
    })
}

/// Everything that should be nothing when nothing is asked any more.
fn left_behind(handle: &PipelineHandle, in_use: impl Fn() -> usize) -> Vec<(&'static str, u64)> {
    let queue = handle.queue().expect("there is one");
    let mut gauges = vec![
        ("let in", handle.load_shed().expect("there is some").snapshot().in_flight as u64),
        ("calls in flight", handle.metrics().in_flight()),
        ("runs in flight", handle.coalesce().snapshot().in_flight as u64),
        ("waiting for a run", handle.coalesce().snapshot().waiting as u64),
        ("waiting for their turn", queue.waiting as u64),
        ("bytes waiting", queue.waiting_bytes),
        ("places reserved in the queue", queue.reserved as u64),
        ("waiting for another attempt", handle.retries().expect("there are some").waiting),
        ("running by the limit", handle.concurrency().expect("there is one").snapshot().in_flight as u64),
        ("waiting for a run to share", handle.batch().map_or(0, |batch| batch.waiting) as u64),
        ("kernels' places in use", in_use() as u64),
    ];
    gauges.retain(|(_, value)| *value != 0);
    gauges
}

/// Has the pipeline called by many for a while. `make` puts the layers around kernels, and says how to read the places
/// that these have in use.
fn main_of<S, U>(config: PipelineConfig, seed: u64, make: impl FnOnce(&PipelineLayer) -> (Pipeline<S>, U))
where
    S: KernelHandler + Sync,
    U: Fn() -> usize,
{
    let seconds = from_environment("TOWER_KERNELS_CHAOS_SECONDS", 4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let layer = PipelineLayer::new(registry(seed), config).unwrap();
        let (handle, (pipeline, in_use)) = (layer.handle(), make(&layer));
        let end = Instant::now() + Duration::from_secs(seconds);
        let callers = (0..64).map(|n| tokio::spawn(caller(pipeline.clone(), Random::new(seed + n), end)));
        let (mut tally, mut never_made) = (Tally::new(), 0);
        for one in callers.collect::<Vec<_>>() {
            let (outcomes, uncalled) = one.await.unwrap();
            never_made += uncalled;
            for (outcome, count) in outcomes {
                *tally.entry(outcome).or_default() += count;
            }
        }
        println!("{layer}\n\n{tally:#?}\nnever made: {never_made}\n{handle:?}");

        let settled = Instant::now();
        while !left_behind(&handle, &in_use).is_empty() {
            assert!(settled.elapsed() < Duration::from_secs(60), "left behind: {:?}", left_behind(&handle, &in_use));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(ended(&handle), tally, "the metrics do not add up to what callers were told");
        // It was chaos, and of each kind.
        for outcome in ["ok", "internal", "cancelled", "deadline_exceeded", "rate_limited", "unavailable", "not_found"]
        {
            assert!(tally.contains_key(outcome), "no call ended as {outcome}");
        }
        assert!(handle.coalesce().snapshot().joined > 0);
        #[cfg(feature = "cache")]
        assert!(handle.cache().snapshot().hits > 0);
        if let Some(batch) = handle.batch() {
            assert!(batch.requests > batch.batches && batch.batches > 0 && batch.cancelled > 0, "{batch:?}");
        }
    });
}

fn seed() -> u64 {
    // Panics are part of it, and their messages are not of interest.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let formatted =
                info.payload().downcast_ref::<String>().is_some_and(|message| message.contains(kernels::PANIC));
            let literal = info.payload().downcast_ref::<&str>().is_some_and(|message| message.contains(kernels::PANIC));
            if !formatted && !literal {
                tell(info);
            }
        }));
    });
    let seed = from_environment("TOWER_KERNELS_CHAOS_SEED", 20_261_122);
    println!("TOWER_KERNELS_CHAOS_SEED={seed}");
    seed
}

#[test]
fn every_call_has_one_outcome_and_nothing_is_left_behind() {
    let seed = seed();
    main_of(config(), seed, |layer| {
        let kernels = Chaotic::new(seed, 4);
        (layer.layer(kernels.clone()), move || kernels.in_use())
    });
}

#[test]
fn nor_is_it_where_calls_share_runs_of_a_machine() {
    let mut config = config();
    config.concurrency = NonZeroUsize::new(48);
    config.batch = Some(BatchConfig { max_delay: Duration::from_millis(1), on_cpu: true, ..BatchConfig::default() });
    main_of(config, seed(), |layer| {
        let machine = machine();
        let used = machine.clone();
        (layer.over(machine), move || used.status().cpu.pool.running + used.status().cpu.pool.queued)
    });
}

/// The CPU alone.
fn machine() -> Local {
    #[cfg(feature = "cuda")]
    return Local::with_backends(
        tower_kernels::backends::cpu::CpuBackend::new(),
        Err::<tower_kernels::backends::cuda::CudaDevices, _>(tower_kernels::cuda::Unavailable::TurnedOff),
    );
    #[cfg(not(feature = "cuda"))]
    Local::detect()
}
