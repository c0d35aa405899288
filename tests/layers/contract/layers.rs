//! The contract over each layer, around a probe with one place, and what holds for layers only.

use std::convert::Infallible;
use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Map, MapOk, TryFutureExt};
use http_body_util::Full;
use tower::load::Load;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::{
    ClassifyLayer, ErrorResponseLayer, MetricsLayer, OptionalLayer, RateLimiterLayer, TimeoutLayer, TracingLayer,
};
use tower_kernels::middleware::error_response::ErrorResponse;
use tower_kernels::middleware::rate_limit::{ByTenant, PerKey, WaitLayer};

use super::contract;
use crate::support::checks::Subject;
use crate::support::probe::{Act, Probe, ProbeError, ProbeFuture, Request, Response, Watch, probe};

/// A layer around a probe.
pub(crate) struct Around<L> {
    layer: L,
    probe: Probe,
    watch: Watch,
    /// Of the layer.
    gauge: Box<dyn Fn() -> usize>,
}

pub(crate) fn around<L>(layer: L) -> Around<L> {
    gauged(layer, || 0)
}

pub(crate) fn gauged<L>(layer: L, gauge: impl Fn() -> usize + 'static) -> Around<L> {
    let (probe, watch) = probe(1);
    Around { layer, probe, watch, gauge: Box::new(gauge) }
}

impl<L> Subject for Around<L>
where
    L: Layer<Probe>,
    L::Service: Service<Request, Error: std::fmt::Debug + Send, Response: std::fmt::Debug + Send, Future: Send>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    type Request = Request;
    type Service = L::Service;

    fn service(&self) -> L::Service {
        self.layer.layer(self.probe.clone())
    }
    fn quick(&self) -> Request {
        Request::new(Act::Answer)
    }
    fn endless(&self) -> Request {
        Request::new(Act::Never)
    }
    fn failing(&self) -> Request {
        Request::new(Act::Fail(ErrorKind::Internal))
    }
    fn in_use(&self) -> usize {
        // A call in flight counts in both; what is asked is that both go back to zero.
        self.watch.in_use().max((self.gauge)())
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

fn metrics() -> Around<MetricsLayer> {
    let layer = MetricsLayer::new();
    let handle = layer.handle();
    gauged(layer, move || handle.in_flight() as usize)
}

fn waiting() -> Around<WaitLayer<tower_kernels::middleware::rate_limit::Shared>> {
    let layer = RateLimiterLayer::new(1000, SECOND).wait(SECOND, 8);
    let gauge = layer.clone();
    gauged(layer, move || gauge.snapshot().waiting)
}

/// One token a second, the first of which is gone: each call waits.
fn out_of_tokens() -> Around<WaitLayer<tower_kernels::middleware::rate_limit::Shared>> {
    let limiter = RateLimiterLayer::new(1, SECOND);
    tower_kernels::middleware::rate_limit::Limit::take(&**limiter.limit(), &()).unwrap();
    let layer = limiter.wait(SECOND * 60, 8);
    let gauge = layer.clone();
    gauged(layer, move || gauge.snapshot().waiting)
}

fn classify() -> ClassifyLayer {
    ClassifyLayer::new().keep::<ProbeError>()
}

fn off() -> OptionalLayer<TimeoutLayer> {
    OptionalLayer::new(None)
}

fn tenants() -> RateLimiterLayer<PerKey<std::sync::Arc<str>, ByTenant>> {
    RateLimiterLayer::new(1000, SECOND).per_tenant()
}

contract!(timeout, around(TimeoutLayer::new(SECOND)));
contract!(rate_limit, around(RateLimiterLayer::new(1000, SECOND)));
contract!(rate_limit_per_tenant, around(tenants()));
contract!(rate_limit_wait, waiting());
contract!(tracing_layer, around(TracingLayer::new()));
contract!(metrics_layer, metrics());
contract!(answer_layer, around(over_http()));
contract!(classify_layer, around(classify()));
contract!(optional_layer, around(OptionalLayer::new(Some(TimeoutLayer::new(SECOND)))));
contract!(optional_layer_that_is_off, around(off()));
contract!(
    four_layers,
    around(
        ServiceBuilder::new()
            .layer(MetricsLayer::new())
            .layer(TracingLayer::new())
            .layer(RateLimiterLayer::new(1000, SECOND))
            .layer(TimeoutLayer::new(SECOND))
    )
);

pub(crate) type Answered = http::Response<Full<Bytes>>;

/// The layer that answers takes HTTP and never fails; around it, refusals are made errors again for the checks to see.
fn over_http() -> impl Layer<
    Probe,
    Service: Service<Request, Response = Answered, Error = http::StatusCode, Future: Send>
                 + Load<Metric = usize>
                 + Clone
                 + std::fmt::Debug
                 + Send
                 + Sync
                 + 'static,
> {
    tower::layer::layer_fn(|probe| OverHttp(ErrorResponseLayer::new().layer(OfHttp(probe))))
}

/// A probe whose requests come over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct OfHttp(pub(crate) Probe);

impl Service<http::Request<Request>> for OfHttp {
    type Response = Answered;
    type Error = ProbeError;
    type Future = MapOk<ProbeFuture, fn(Response) -> Answered>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Request>) -> Self::Future {
        self.0.call(request.into_body()).map_ok(|_| http::Response::new(Full::default()))
    }
}

impl Load for OfHttp {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.load()
    }
}

#[derive(Clone, Debug)]
struct OverHttp(ErrorResponse<OfHttp>);

impl Service<Request> for OverHttp {
    type Response = Answered;
    type Error = http::StatusCode;
    type Future = Map<
        <ErrorResponse<OfHttp> as Service<http::Request<Request>>>::Future,
        fn(Result<Answered, Infallible>) -> Result<Answered, http::StatusCode>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), http::StatusCode>> {
        self.0.poll_ready(cx).map_err(|never| match never {})
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(http::Request::new(request)).map(|result| {
            let Ok(response) = result;
            if response.status().is_success() { Ok(response) } else { Err(response.status()) }
        })
    }
}

impl Load for OverHttp {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.load()
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_that_answers_passes_the_load_on_and_keeps_its_future_small() {
    load_is_passed_on(around(over_http())).await;
    type Future<S> = <S as Service<http::Request<Request>>>::Future;
    let added = size_of::<Future<ErrorResponse<OfHttp>>>() - size_of::<Future<OfHttp>>();
    assert!(added <= 16, "the future has grown by {added} bytes");
}

/// A call that waits for its token holds no place, so the checks that count one do not apply to it; these do.
mod rate_limit_wait_out_of_tokens {
    use super::*;
    use crate::support::checks;

    #[tokio::test(start_paused = true)]
    async fn a_future_dropped_unpolled_gives_the_place_back() {
        checks::a_future_dropped_unpolled_gives_the_place_back(out_of_tokens()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
        checks::the_service_that_was_polled_ready_is_the_one_that_is_called(out_of_tokens()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_gives_the_place_back() {
        checks::a_failure_gives_the_place_back(out_of_tokens()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_serves_after_everything_was_dropped() {
        checks::it_serves_after_everything_was_dropped(out_of_tokens()).await;
    }
}

/// What an error of the inner service says is what the layer's error says, from `call` and from `poll_ready`.
pub(crate) async fn errors_keep_their_meaning<L>(subject: Around<L>)
where
    L: Layer<Probe>,
    L::Service: Service<Request, Error: Classify + Error>,
{
    for kind in ErrorKind::ALL {
        let mut service = subject.layer.layer(subject.probe.clone());
        let request = Request::new(Act::Fail(kind));
        let Err(error) = service.ready().await.unwrap().call(request).await else { panic!("it was told to fail") };
        assert_eq!(error.kind(), kind);
        assert_eq!(error.retry_after(), Some(SECOND * 7));
        if let Some(source) = error.source() {
            assert!(!error.to_string().contains(&source.to_string()), "Display prints its own level only");
        }
    }
    subject.watch.fail_readiness(ErrorKind::Unavailable);
    let mut service = subject.layer.layer(subject.probe.clone());
    let Err(error) = service.ready().await else { panic!("readiness was told to fail") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// The load of a layer's service is that of the inner one, so a balancer finds the one that is free.
pub(crate) async fn load_is_passed_on<L>(subject: Around<L>)
where
    L: Layer<Probe>,
    L::Service: Service<Request> + Load<Metric = usize>,
    <L::Service as Service<Request>>::Error: std::fmt::Debug,
{
    let mut service = subject.layer.layer(subject.probe.clone());
    assert_eq!(service.load(), 0);
    service.ready().await.unwrap();
    assert_eq!(service.load(), 1);
}

/// What a layer adds to the future of the inner service, in bytes. A larger figure is not wrong, but is to be noticed.
pub(crate) fn adds_at_most<L>(subject: Around<L>, most: usize)
where
    L: Layer<Probe>,
    L::Service: Service<Request>,
{
    fn size<S: Service<R>, R>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let added = size(&subject.layer.layer(subject.probe)) - size_of::<ProbeFuture>();
    assert!(added <= most, "the future has grown by {added} bytes");
}

macro_rules! of_each_layer {
    ($($name:ident: $subject:expr, $size:literal;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn errors_keep_their_meaning() {
                super::errors_keep_their_meaning($subject).await;
            }

            #[tokio::test(start_paused = true)]
            async fn load_is_passed_on() {
                super::load_is_passed_on($subject).await;
            }

            #[tokio::test(start_paused = true)]
            async fn its_future_is_small() {
                super::adds_at_most($subject, $size);
            }
        }
    )*};
}
pub(crate) use of_each_layer;

of_each_layer! {
    timeout_as_a_layer: around(TimeoutLayer::new(SECOND)), 144;
    rate_limit_as_a_layer: around(RateLimiterLayer::new(1000, SECOND)), 8;
    rate_limit_per_tenant_as_a_layer: around(tenants()), 8;
    // It keeps the request, the service and a timer.
    rate_limit_wait_as_a_layer: waiting(), 240;
    tracing_as_a_layer: around(TracingLayer::new()), 48;
    metrics_as_a_layer: metrics(), 40;
    classify_as_a_layer: around(classify()), 16;
    // As the layer that it may be.
    optional_as_a_layer: around(OptionalLayer::new(Some(RateLimiterLayer::new(1000, SECOND)))), 16;
    optional_that_is_off_as_a_layer: around(off()), 152;
}

#[tokio::test(start_paused = true)]
async fn a_balancer_over_stacks_chooses_the_one_that_is_free() {
    let layers = || {
        ServiceBuilder::new()
            .layer(MetricsLayer::new())
            .layer(TracingLayer::new())
            .layer(RateLimiterLayer::new(1000, SECOND))
            .layer(TimeoutLayer::new(SECOND))
    };
    let (first, first_watch) = probe(8);
    let (second, second_watch) = probe(8);
    // Seven of the first one's places are taken, so each choice between the two is for the second.
    let mut held = vec![first.clone(); 7];
    for probe in &mut held {
        probe.ready().await.unwrap();
    }
    let stacks = tower::discover::ServiceList::new([layers().service(first), layers().service(second)]);
    let mut balance = tower::balance::p2c::Balance::new(stacks);
    for _ in 0..20 {
        balance.ready().await.unwrap().call(Request::new(Act::Answer)).await.unwrap();
    }
    assert_eq!((first_watch.calls(), second_watch.calls()), (0, 20));
}
