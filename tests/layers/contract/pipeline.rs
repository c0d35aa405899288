//! The contract over the ready pipeline, with all that it has but load shedding and the queue, with which it is ready while the
//! kernels are not.

use std::num::NonZeroUsize;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::Map;
use tower::load::Load;
use tower::{Layer, Service};
use tower_kernels::error::ErrorKind;
use tower_kernels::pipeline::{CoalesceConfig, Pipeline, PipelineConfig, PipelineLayer, RateLimitConfig, RetryConfig};
use tower_kernels::request::Execution;
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelResponse, Payload};

use super::contract;
use crate::support::checks::Subject;
use crate::support::probe::{Act, Probe, ProbeError, ProbeFuture, Request, Response, Watch, probe};

/// A probe in place of kernels: the kernel's id says what it is to do.
#[derive(Clone, Debug)]
struct Kernels(Probe);

type Answered = Result<Response, ProbeError>;

impl Service<KernelRequest> for Kernels {
    type Response = KernelResponse;
    type Error = ProbeError;
    type Future = Map<ProbeFuture, fn(Answered) -> Result<KernelResponse, ProbeError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        let act = match &*request.kernel_id {
            "quick" => Act::Answer,
            "endless" => Act::Never,
            _ => Act::Fail(ErrorKind::Internal),
        };
        let answer =
            |answered: Answered| answered.map(|_| KernelResponse::new(Payload::json("{}"), Execution::new("CPU")));
        self.0.call(Request::new(act)).map(answer as fn(Answered) -> _)
    }
}

impl Load for Kernels {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.load()
    }
}

struct Piped {
    layer: PipelineLayer,
    kernels: Kernels,
    watch: Watch,
}

fn piped() -> Piped {
    let (probe, watch) = probe(1);
    let config = PipelineConfig {
        rate_limit: Some(RateLimitConfig::default()),
        coalesce: Some(CoalesceConfig::default()),
        retry: Some(RetryConfig { attempts: 2 }),
        concurrency: NonZeroUsize::new(1),
        queue: None,
        load_shed: None,
        ..Default::default()
    };
    Piped { layer: PipelineLayer::new(KernelRegistry::new(), config).unwrap(), kernels: Kernels(probe), watch }
}

impl Subject for Piped {
    type Request = KernelRequest;
    type Service = Pipeline<Kernels>;

    fn service(&self) -> Pipeline<Kernels> {
        self.layer.layer(self.kernels.clone())
    }
    fn quick(&self) -> KernelRequest {
        KernelRequest::new("quick", Payload::json("{}"))
    }
    fn endless(&self) -> KernelRequest {
        KernelRequest::new("endless", Payload::json("{}"))
    }
    fn failing(&self) -> KernelRequest {
        KernelRequest::new("failing", Payload::json("{}"))
    }
    fn in_use(&self) -> usize {
        let handle = self.layer.handle();
        let limited = handle.concurrency().map_or(0, |limit| limit.snapshot().in_flight);
        self.watch.in_use().max(handle.metrics().in_flight() as usize).max(limited)
    }
}

contract!(ready_pipeline, piped());

#[tokio::test(start_paused = true)]
async fn the_load_of_a_pipeline_is_that_of_its_kernels() {
    let subject = piped();
    let mut service = subject.service();
    assert_eq!(service.load(), 0);
    tower::ServiceExt::ready(&mut service).await.unwrap();
    assert_eq!(service.load(), 1);
}
