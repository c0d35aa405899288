//! The ready pipeline as a whole: its order, and what follows from it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::middleware::circuit_breaker::CircuitState;
use tower_kernels::pipeline::{
    BatchConfig, BreakerConfig, CacheConfig, CoalesceConfig, InvalidPipeline, Pipeline, PipelineConfig, PipelineFuture,
    PipelineHandle, PipelineLayer, QueueConfig, QuotaConfig, RateLimitConfig, RetryConfig,
};
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelError, KernelRequest, KernelResponse, KernelService, Payload};

use crate::support::catalogue;

mod errors;

const SECOND: Duration = Duration::from_secs(1);

fn saxpy(input: &'static str) -> KernelRequest {
    KernelRequest::new("linalg/saxpy", Payload::json(input))
}

/// Kernels that are told by their input: `[seconds]` to take a while, `never`, or `fail`; and so many at a time.
#[derive(Clone, Debug)]
struct Told {
    limit: tower::limit::ConcurrencyLimit<Slow>,
    calls: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
struct Slow;

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<KernelResponse, KernelError>> + Send>>;

impl Service<KernelRequest> for Slow {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: KernelRequest) -> Answer {
        let Payload::Json(told) = &request.payload else { panic!("no JSON") };
        let told = String::from_utf8(told.to_vec()).unwrap();
        Box::pin(async move {
            match told.as_str() {
                "fail" => return Err(KernelError::Stopped { backend: "test" }),
                "never" => std::future::pending().await,
                seconds => tokio::time::sleep(SECOND.mul_f64(seconds.parse().unwrap())).await,
            }
            Ok(KernelResponse::new(Payload::json("{}"), Execution::new("CPU")))
        })
    }
}

impl Service<KernelRequest> for Told {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = <tower::limit::ConcurrencyLimit<Slow> as Service<KernelRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        self.limit.poll_ready(cx)
    }

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.limit.call(request)
    }
}

fn told(config: PipelineConfig, places: usize) -> (Pipeline<Told>, PipelineHandle, Arc<AtomicUsize>) {
    let layer = PipelineLayer::new(catalogue(), config).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let kernels = Told { limit: tower::limit::ConcurrencyLimit::new(Slow, places), calls: Arc::clone(&calls) };
    (layer.layer(kernels), layer.handle(), calls)
}

fn ended(handle: &PipelineHandle, outcome: &str) -> u64 {
    handle.metrics().ended().iter().filter(|calls| calls.outcome == outcome).map(|calls| calls.count).sum()
}

fn all() -> PipelineConfig {
    let rate_limit = RateLimitConfig {
        default: QuotaConfig { burst: 100, period: SECOND },
        tenants: BTreeMap::from([("acme".to_owned(), QuotaConfig { burst: 1, period: SECOND })]),
    };
    PipelineConfig {
        rate_limit: Some(rate_limit),
        cache: Some(CacheConfig::default()),
        coalesce: Some(CoalesceConfig::default()),
        retry: Some(RetryConfig { attempts: 3 }),
        concurrency: NonZeroUsize::new(8),
        batch: Some(BatchConfig::default()),
        ..Default::default()
    }
}

#[test]
fn it_prints_the_order_that_it_makes() {
    assert_eq!(
        PipelineLayer::new(catalogue(), all()).unwrap().to_string(),
        "metrics          on\n\
         tracing          on\n\
         tenants          0 named; others: a share each, priority up to high\n\
         rate limit       100 calls per 1s and tenant, 1 overrides\n\
         cache            268435456 bytes, time to live 600s, per tenant\n\
         coalesce         per tenant\n\
         load shed        expected wait over 5s or past the deadline\n\
         circuit breaker  per kernel and tenant, opens at 20 consecutive failures or a rate of 0.5; for all once 3 tenants agree\n\
         timeout          30s\n\
         retry            3 attempts, pure kernels only\n\
         priority queue   1024 calls, 1073741824 bytes\n\
         concurrency      8 calls at a time\n\
         batch            up to 256 requests or 16777216 bytes, on CUDA devices\n\
         kernels"
    );
    let plain = PipelineLayer::new(catalogue(), PipelineConfig::default()).unwrap().to_string();
    assert!(plain.contains("\ncache            off\n") && plain.contains("\nconcurrency      off\n"), "{plain}");
    assert!(plain.ends_with("\nbatch            off\nkernels"), "{plain}");
}

#[test]
fn what_cannot_be_made_is_said() {
    let invalid = |change: fn(&mut PipelineConfig)| {
        let mut config = all();
        change(&mut config);
        PipelineLayer::new(catalogue(), config).unwrap_err()
    };
    let error = invalid(|config| {
        let limit = config.rate_limit.as_mut().unwrap();
        limit.tenants.insert("umbrella".to_owned(), QuotaConfig { burst: 0, period: SECOND });
    });
    assert_eq!(error.field(), "rate_limit.tenants.umbrella");
    assert_eq!(error.to_string(), "rate_limit.tenants.umbrella: a rate limit must allow at least one call per period");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("at least one call"));
    let error = invalid(|config| config.rate_limit.as_mut().unwrap().default.period = Duration::ZERO);
    assert!(error.to_string().starts_with("rate_limit.default: the period"), "{error}");
    let error = invalid(|config| config.retry = Some(RetryConfig { attempts: 0 }));
    assert_eq!(error.to_string(), "retry.attempts: must be at least 1");
    for rate in [0.0, 1.5, f64::NAN] {
        let mut config = all();
        config.circuit_breaker.as_mut().unwrap().failure_rate = rate;
        let error: InvalidPipeline = PipelineLayer::new(catalogue(), config).unwrap_err();
        assert_eq!(error.to_string(), "circuit_breaker.failure_rate: must be above 0 and at most 1");
    }
}

#[tokio::test]
async fn it_runs_kernels_and_can_be_written_down() {
    struct Server {
        pipeline: Pipeline<KernelService<CpuBackend>>,
    }
    fn crosses_threads<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn is_sent<T: Send>() {}
    is_sent::<PipelineFuture<KernelService<CpuBackend>>>();

    let registry = catalogue();
    let layer = PipelineLayer::new(Arc::clone(&registry), all()).unwrap();
    let mut server = Server { pipeline: layer.layer(KernelService::with_backend(registry, CpuBackend::new())) };
    crosses_threads(&server.pipeline);
    for backend in ["CPU", "cache"] {
        let request = saxpy(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#);
        let response = server.pipeline.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.execution.backend, backend);
        let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
        assert_eq!(output, r#"{"y":[3.0]}"#);
    }
    assert_eq!(ended(&layer.handle(), "ok"), 2);
}

#[tokio::test(start_paused = true)]
async fn hits_are_answered_while_the_machine_is_full() {
    let (pipeline, handle, _) = told(all(), 1);
    pipeline.clone().oneshot(saxpy("0.1")).await.unwrap();
    let busy = tokio::spawn(pipeline.clone().oneshot(saxpy("5")));
    let waits = tokio::spawn(pipeline.clone().oneshot(saxpy("1")));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let hit = pipeline.clone().oneshot(saxpy("0.1")).await.unwrap();
    assert_eq!((hit.execution.backend, begun.elapsed()), ("cache", Duration::ZERO));
    busy.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!((handle.cache().snapshot().hits, handle.queue().unwrap().served), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_finds_no_answers_of_another_and_hits_count_against_its_limit() {
    let (pipeline, handle, calls) = told(all(), 4);
    let of = |tenant: &str| {
        let mut request = saxpy("0.1");
        request.tenant = Some(tenant.into());
        pipeline.clone().oneshot(request)
    };
    of("umbrella").await.unwrap();
    of("acme").await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    of("umbrella").await.unwrap();
    assert_eq!(of("acme").await.unwrap_err().kind(), ErrorKind::RateLimited);
    assert_eq!((calls.load(Ordering::SeqCst), handle.cache().snapshot().hits), (2, 1));
    // Metrics are outside of all that refuses.
    assert_eq!((ended(&handle, "rate_limited"), ended(&handle, "ok")), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_timeouts_and_one_failure_of_a_shared_run() {
    let mut config = all();
    config.timeout = SECOND;
    config.cache = None;
    config.retry = None;
    config.circuit_breaker.as_mut().unwrap().consecutive_failures = 3;
    let (pipeline, handle, calls) = told(config, 64);
    let together = (0..10).map(|_| tokio::spawn(pipeline.clone().oneshot(saxpy("fail"))));
    for call in together.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let failures = calls.load(Ordering::SeqCst);
    assert!(failures <= 3, "{failures} runs of one question");
    for _ in failures..3 {
        let error = pipeline.clone().oneshot(saxpy("never")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
    assert_eq!(handle.circuits()[0].state, CircuitState::Open);
    let error = pipeline.clone().oneshot(saxpy("0.1")).await.unwrap_err();
    assert_eq!((error.kind(), calls.load(Ordering::SeqCst)), (ErrorKind::Unavailable, 3));
}

#[tokio::test(start_paused = true)]
async fn all_names_of_a_kernel_share_metrics_and_a_circuit() {
    let mut config = all();
    (config.cache, config.coalesce, config.retry) = (None, None, None);
    config.circuit_breaker.as_mut().unwrap().consecutive_failures = 2;
    let (pipeline, handle, calls) = told(config, 4);
    for name in ["orderbook/matching", "orderbook/matching-engine"] {
        let request = KernelRequest::new(name, Payload::json("fail"));
        assert_eq!(pipeline.clone().oneshot(request).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let request = KernelRequest::new("orderbook/matching-engine", Payload::json("0.1"));
    pipeline.clone().oneshot(request).await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 2, "the circuit is open for all names");
    let circuits = handle.circuits().into_iter().filter(|circuit| circuit.calls + circuit.opened > 0);
    assert_eq!(circuits.map(|circuit| circuit.circuit).collect::<Vec<_>>(), ["orderbook/matching"]);
    let operations: Vec<_> = handle.metrics().ended().into_iter().map(|calls| (calls.operation, calls.count)).collect();
    assert_eq!(operations, [("orderbook/matching".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_the_time_of_the_call() {
    let mut config = all();
    config.timeout = SECOND * 2;
    (config.cache, config.coalesce, config.circuit_breaker) = (None, None, None);
    let (pipeline, handle, calls) = told(config, 1);
    let begun = Instant::now();
    pipeline.clone().oneshot(saxpy("fail")).await.unwrap_err();
    assert_eq!((calls.load(Ordering::SeqCst), handle.retries().unwrap().retries), (3, 2));
    assert!(begun.elapsed() < SECOND * 2);
    let begun = Instant::now();
    pipeline.clone().oneshot(saxpy("never")).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_the_page_says_so() {
    let mut config = all();
    config.queue = Some(QueueConfig { capacity: 1, max_bytes: 1 << 20 });
    (config.coalesce, config.cache, config.retry, config.load_shed) = (None, None, None, None);
    let (pipeline, handle, _) = told(config, 1);
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(pipeline.clone().oneshot(saxpy("1")))).collect();
    let mut refused = 0;
    for call in calls {
        refused += u64::from(call.await.unwrap().is_err_and(|error| error.kind() == ErrorKind::Overloaded));
    }
    assert_eq!(refused, 2);
    let page = handle.render();
    for line in [
        r#"kernel_requests_total{operation="linalg/saxpy",outcome="overloaded"} 2"#,
        "kernel_pipeline_queue_rejected_total 2",
        r#"kernel_pipeline_queue_waiting{priority="normal"} 0"#,
        "kernel_concurrency_limit 8",
        r#"kernel_circuit_state{circuit="linalg/saxpy",state="closed"} 1"#,
    ] {
        assert!(page.contains(line), "no {line} in\n{page}");
    }
    assert!(!page.contains("kernel_cache_hits"), "there is no cache");
}

/// So many calls of 0.4 s each that nobody gave a deadline, one at a time, with a second for each.
async fn too_many(change: fn(&mut PipelineConfig)) -> (Vec<(Option<ErrorKind>, Duration)>, PipelineHandle) {
    let mut config = PipelineConfig { timeout: SECOND, ..Default::default() };
    change(&mut config);
    let (pipeline, handle, _) = told(config, 1);
    // What calls take is known from one.
    pipeline.clone().oneshot(saxpy("0.4")).await.unwrap();
    let begun = Instant::now();
    let call = |_| {
        let call = pipeline.clone().oneshot(saxpy("0.4"));
        tokio::spawn(async move { (call.await.err().map(|error| error.kind()), begun.elapsed()) })
    };
    let calls: Vec<_> = (0..60).map(call).collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    (outcomes, handle)
}

#[tokio::test(start_paused = true)]
async fn calls_that_had_no_turn_in_time_are_no_failures_of_the_kernel() {
    let (outcomes, handle) = too_many(|config| config.load_shed = None).await;
    let answered = outcomes.iter().filter(|(refusal, _)| refusal.is_none()).count();
    let overloaded = outcomes.iter().filter(|(refusal, _)| *refusal == Some(ErrorKind::Overloaded)).count();
    assert_eq!((answered, overloaded), (2, 58), "{outcomes:?}");
    assert_eq!(handle.circuits()[0].state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn load_is_shed_by_the_time_that_the_pipeline_gives_a_call() {
    // One at a time is told. Where it has to be learned nothing is refused before.
    let (outcomes, handle) = too_many(|_| ()).await;
    assert!(outcomes.iter().all(|(refusal, at)| refusal.is_none() || !at.is_zero()), "{outcomes:?}");
    assert_eq!(handle.load_shed().unwrap().snapshot().rejected, 0, "refused on the strength of a guess");

    let (outcomes, handle) = too_many(|config| config.concurrency = NonZeroUsize::new(1)).await;
    let at_once =
        outcomes.iter().filter(|(refusal, at)| *refusal == Some(ErrorKind::Overloaded) && at.is_zero()).count();
    assert!(at_once >= 56, "{outcomes:?}");
    assert_eq!(handle.load_shed().unwrap().snapshot().rejected, at_once as u64);
    assert_eq!(handle.circuits()[0].state, CircuitState::Closed);
}

#[cfg(feature = "cuda")]
mod batch {
    use futures::future::join_all;
    use tower_kernels::backends::Local;
    use tower_kernels::backends::cpu::CpuConfig;
    use tower_kernels::backends::cuda::CudaDevices;
    use tower_kernels::cuda::Unavailable;
    use tower_kernels::pipeline::LocalPipeline;

    use super::*;

    /// One worker, which runs everything.
    fn one_worker() -> Local {
        let mut config = CpuConfig::default();
        (config.workers, config.inline) = (1, Duration::ZERO);
        let cpu = CpuBackend::with_config(config).unwrap();
        Local::with_backends(cpu, Err::<CudaDevices, _>(Unavailable::TurnedOff))
    }

    /// Runs wait for so many calls.
    fn of(calls: usize) -> PipelineConfig {
        let mut config = all();
        (config.rate_limit, config.cache, config.coalesce) = (None, None, None);
        config.concurrency = None;
        let max_delay = SECOND * 10;
        config.batch = NonZeroUsize::new(calls).map(|max_requests| BatchConfig {
            max_requests,
            max_delay,
            on_cpu: true,
            ..Default::default()
        });
        config
    }

    async fn call_all(pipeline: &LocalPipeline, calls: usize) -> Vec<KernelResponse> {
        let call = |x: usize| {
            let input = format!(r#"{{"a": 2.0, "x": [{x}], "y": [1.0]}}"#);
            tokio::spawn(pipeline.clone().oneshot(KernelRequest::new("linalg/saxpy", Payload::json(input))))
        };
        let answers = join_all((0..calls).map(call)).await;
        answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect()
    }

    fn outputs(answers: &[KernelResponse]) -> Vec<String> {
        let json = |answer: &KernelResponse| match &answer.payload {
            Payload::Json(output) => String::from_utf8(output.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        answers.iter().map(json).collect()
    }

    #[tokio::test]
    async fn over_a_machine_calls_share_runs_and_answers_are_as_without() {
        let layer = PipelineLayer::new(catalogue(), of(4)).unwrap();
        let (handle, shared) = (layer.handle(), layer.over(one_worker()));
        let together = call_all(&shared, 8).await;
        assert!(together.iter().all(|answer| answer.execution.batch_size == 4), "{together:?}");
        let stats = handle.batch().unwrap();
        assert_eq!((stats.batches, stats.requests, stats.waiting), (2, 8, 0));

        // Another pipeline of the layer, on another machine, counts with it.
        call_all(&layer.over(one_worker()), 4).await;
        assert_eq!(handle.batch().unwrap().requests, 12);

        for change in [(|config| config.batch = None) as fn(&mut PipelineConfig), |config| {
            config.batch.as_mut().unwrap().on_cpu = false
        }] {
            let mut config = of(4);
            change(&mut config);
            let layer = PipelineLayer::new(catalogue(), config).unwrap();
            let alone = call_all(&layer.over(one_worker()), 8).await;
            assert!(alone.iter().all(|answer| answer.execution.batch_size == 1));
            assert_eq!(outputs(&alone), outputs(&together));
            assert_eq!(layer.handle().batch().unwrap_or_default(), Default::default());
        }
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_before_its_run_is_not_in_it() {
        let layer = PipelineLayer::new(catalogue(), of(2)).unwrap();
        let (handle, pipeline) = (layer.handle(), layer.over(one_worker()));
        let call = tokio::spawn(pipeline.clone().oneshot(saxpy(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#)));
        while handle.batch().unwrap().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        call.abort();
        call.await.unwrap_err();
        let answers = call_all(&pipeline, 2).await;
        assert!(answers.iter().all(|answer| answer.execution.batch_size == 2), "{answers:?}");
        let stats = handle.batch().unwrap();
        assert_eq!((stats.cancelled, stats.expired, stats.requests), (1, 0, 2));
    }
}

#[test]
fn a_call_keeps_little_beside_what_the_kernels_keep() {
    type Kernels = KernelService<CpuBackend>;
    let added = size_of::<PipelineFuture<Kernels>>() - size_of::<<Kernels as Service<KernelRequest>>::Future>();
    assert!(added <= 832, "the future of a call has grown by {added} bytes");
}
