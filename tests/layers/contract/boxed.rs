//! Every layer inside and outside of tower's layers that put errors into boxes: errors keep their kind and the time to retry,
//! and no service is called that is not ready.

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use tower::buffer::Buffer;
use tower::load_shed::LoadShed;
use tower::timeout::Timeout;
use tower::util::{BoxCloneService, BoxCloneSyncService};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_kernels::error::{AnyError, Classify, ErrorKind};
use tower_kernels::layers::{
    ClassifyLayer, CoalesceLayer, ConcurrencyLayer, FallbackLayer, HedgeLayer, LoadShedLayer, MetricsLayer,
    OptionalLayer, PriorityQueueLayer, RateLimiterLayer, RetryLayer, TimeoutLayer, TracingLayer,
};
use tower_kernels::middleware::classify::{Classified, ClassifiedError};
use tower_kernels::middleware::concurrency::{Aimd, Gradient};

use crate::contract::circuit_breaker::always_closed;
use crate::contract::layers::SECOND;
use crate::support::probe::{Act, Probe, ProbeError, Request, Response, Watch, probe};

const HOUR: Duration = Duration::from_secs(3600);

/// The time to retry that each error of a probe brings.
const RETRY_AFTER: Duration = Duration::from_secs(7);

/// What is asked of a service in boxes: all of it with a service of its own, which `make` puts around a probe.
async fn keeps_the_contract<S>(make: impl Fn(Probe) -> S)
where
    S: Service<Request, Response: Debug + Send, Error: AnyError + Send, Future: Send> + Send + 'static,
{
    errors_keep_their_meaning(&make).await;
    failed_readiness_keeps_its_meaning(&make).await;
    only_what_is_ready_is_called(&make).await;
}

async fn errors_keep_their_meaning<S>(make: impl Fn(Probe) -> S)
where
    S: Service<Request, Response: Debug, Error: AnyError>,
{
    for kind in ErrorKind::ALL {
        let (probe, watch) = probe(1);
        let mut service = make(probe);
        let error = service.ready().await.unwrap().call(Request::new(Act::Fail(kind))).await.unwrap_err();
        let classification = error.classify();
        assert_eq!((classification.kind, classification.retry_after), (kind, Some(RETRY_AFTER)), "{error:?}");
        assert!(error.to_string().contains("the probe was told to fail"), "{error}");
        drop(service);
        free(&watch).await;
    }
}

async fn failed_readiness_keeps_its_meaning<S>(make: impl Fn(Probe) -> S)
where
    S: Service<Request, Response: Debug, Error: AnyError>,
{
    let (probe, watch) = probe(1);
    watch.fail_readiness(ErrorKind::MemoryExhausted);
    let mut service = make(probe);
    let error = match service.ready().await {
        // A service with a queue asks the inner one later.
        Ok(service) => service.call(Request::new(Act::Answer)).await.unwrap_err(),
        Err(error) => error,
    };
    let classification = error.classify();
    let expected = (ErrorKind::MemoryExhausted, Some(RETRY_AFTER));
    assert_eq!((classification.kind, classification.retry_after), expected, "{error:?}");
    assert_eq!(watch.calls(), 0);
}

async fn only_what_is_ready_is_called<S>(make: impl Fn(Probe) -> S)
where
    S: Service<Request, Response: Debug + Send, Error: AnyError + Send, Future: Send> + Send + 'static,
{
    let (mut holder, watch) = probe(1);
    let service = make(holder.clone());
    holder.ready().await.unwrap();
    // A probe that is called without its place panics, and the place is taken.
    let call = tokio::spawn(service.oneshot(Request::new(Act::Answer)));
    // Without a pause, in which the clock would run on to a timeout.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(watch.calls(), 0, "called while it was full");
    drop(holder);
    match call.await.unwrap() {
        Ok(_) => assert_eq!(watch.calls(), 1),
        // Those that shed load do not wait.
        Err(error) => assert_eq!((error.classify().kind, watch.calls()), (ErrorKind::Overloaded, 0), "{error:?}"),
    }
    free(&watch).await;
}

/// Waits until no place is in use. A worker of tower's may take a moment to end.
async fn free(watch: &Watch) {
    let begun = Instant::now();
    while watch.in_use() != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} places are still in use", watch.in_use());
        tokio::task::yield_now().await;
    }
}

/// Checks a layer around a probe, which `make` makes, inside of each of tower's boxes.
async fn inside<S>(make: impl Fn(Probe) -> S)
where
    S: Service<Request, Response = Response, Error: Classify + Error + Send + Sync + 'static, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
{
    keeps_the_contract(|probe| Buffer::new(make(probe), 4)).await;
    keeps_the_contract(|probe| LoadShed::new(make(probe))).await;
    keeps_the_contract(|probe| Timeout::new(make(probe), HOUR)).await;
    keeps_the_contract(|probe| BoxCloneService::new(make(probe))).await;
    keeps_the_contract(|probe| BoxCloneSyncService::new(make(probe))).await;
    keeps_the_contract(|probe| BoxCloneSyncService::new(make(probe).map_err(BoxError::from))).await;
    keeps_the_contract(|probe| Buffer::new(LoadShed::new(Timeout::new(make(probe), HOUR)), 4)).await;
}

/// A probe whose errors keep their meaning in a box, where their own type would not be known.
fn kept(probe: Probe) -> Classified<Probe> {
    ClassifyLayer::new().keep::<ProbeError>().layer(probe)
}

type ProbeFuture = <Classified<Probe> as Service<Request>>::Future;

fn buffered(probe: Probe) -> Buffer<Request, ProbeFuture> {
    Buffer::new(kept(probe), 4)
}

fn shed(probe: Probe) -> LoadShed<Classified<Probe>> {
    LoadShed::new(kept(probe))
}

fn timed(probe: Probe) -> Timeout<Classified<Probe>> {
    Timeout::new(kept(probe), HOUR)
}

fn boxed(probe: Probe) -> BoxCloneService<Request, Response, ClassifiedError> {
    BoxCloneService::new(kept(probe))
}

fn boxed_errors(probe: Probe) -> BoxCloneSyncService<Request, Response, BoxError> {
    BoxCloneSyncService::new(kept(probe).map_err(BoxError::from))
}

/// A test for each layer inside of tower's boxes and one outside of them.
macro_rules! in_boxes {
    ($($name:ident: $layer:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn inside() {
                super::inside(|probe| $layer.layer(kept(probe))).await;
            }

            #[tokio::test(start_paused = true)]
            async fn outside() {
                keeps_the_contract(|probe| $layer.layer(buffered(probe))).await;
                keeps_the_contract(|probe| $layer.layer(shed(probe))).await;
                keeps_the_contract(|probe| $layer.layer(timed(probe))).await;
                keeps_the_contract(|probe| $layer.layer(boxed(probe))).await;
                keeps_the_contract(|probe| $layer.layer(boxed_errors(probe))).await;
            }
        }
    )*};
}

in_boxes! {
    timeout: TimeoutLayer::new(HOUR);
    rate_limit: RateLimiterLayer::new(1000, SECOND);
    rate_limit_per_tenant: RateLimiterLayer::new(1000, SECOND).per_tenant();
    rate_limit_wait: RateLimiterLayer::new(1000, SECOND).wait(SECOND, 8);
    tracing: TracingLayer::new();
    metrics: MetricsLayer::new();
    circuit_breaker: always_closed();
    circuit_breaker_per_operation: always_closed().per_operation();
    concurrency: ConcurrencyLayer::new(8);
    concurrency_by_errors: ConcurrencyLayer::adaptive(Aimd::new(1).range(1..=1));
    concurrency_by_latency: ConcurrencyLayer::adaptive(Gradient::new(8));
    concurrency_fair: ConcurrencyLayer::new(8).per_tenant(SECOND, 8);
    fallback: FallbackLayer::<_, Request>::new(probe(1).0).on([]);
    hedge: HedgeLayer::new(|_: &Request| true);
    load_shed: LoadShedLayer::new();
    load_shed_predicting: LoadShedLayer::predicting(HOUR);
    priority_queue: PriorityQueueLayer::new(8);
    // What fails so is not made again, so that the time to retry is not waited for.
    retry: RetryLayer::new(|_: &Request| true).on([ErrorKind::Unavailable]).backoff(SECOND / 100, SECOND);
    coalesce: CoalesceLayer::new(key);
    classify: ClassifyLayer::new().keep::<ProbeError>();
    optional: OptionalLayer::new(Some(RateLimiterLayer::new(1000, SECOND)));
    optional_off: OptionalLayer::new(None::<RateLimiterLayer>);
}

/// An error of a type that nobody knows keeps its meaning where it is boxed as a part of an error of this crate.
#[tokio::test(start_paused = true)]
async fn the_errors_of_layers_take_what_is_inside_of_them_along() {
    inside(|probe| RateLimiterLayer::new(1000, SECOND).layer(probe)).await;
    inside(|probe| TimeoutLayer::new(HOUR).layer(CoalesceLayer::new(key).layer(probe))).await;
    inside(|probe| OptionalLayer::new(None::<PriorityQueueLayer>).layer(LoadShedLayer::new().layer(probe))).await;
}

#[cfg(feature = "cache")]
in_boxes! {
    cache: tower_kernels::layers::CacheLayer::new(1 << 20, key);
}

fn key(request: &Request) -> Option<String> {
    Some(request.operation.clone())
}

/// The batch layer, whose inner service takes batches.
mod batch {
    use super::*;
    use crate::contract::batch::InBatches;
    use tower_kernels::layers::BatchLayer;

    type Batched = Vec<Result<Response, BoxError>>;

    /// Takes batches, and has the one type of error for a batch and for each request in it.
    fn in_batches(probe: Probe) -> BoxCloneSyncService<Vec<Request>, Batched, BoxError> {
        let to_box = |error: ProbeError| BoxError::from(ClassifiedError::new(error.classification(), error));
        let service = InBatches(probe).map_err(to_box);
        BoxCloneSyncService::new(service.map_response(move |responses: Vec<Result<Response, ProbeError>>| {
            responses.into_iter().map(|response| response.map_err(to_box)).collect::<Batched>()
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn inside() {
        super::inside(|probe| BatchLayer::new(4).layer(InBatches(probe))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn outside() {
        keeps_the_contract(|probe| BatchLayer::new(4).layer(in_batches(probe))).await;
        keeps_the_contract(|probe| BatchLayer::new(4).layer(Buffer::new(in_batches(probe), 4))).await;
        keeps_the_contract(|probe| BatchLayer::new(4).layer(LoadShed::new(in_batches(probe)))).await;
        keeps_the_contract(|probe| BatchLayer::new(4).layer(Timeout::new(in_batches(probe), HOUR))).await;
    }
}
