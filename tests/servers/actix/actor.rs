//! One actor: answers, refusals, deadlines, cancellation.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use serde_json::json;
use tower::{ServiceBuilder, service_fn};
use tower_kernels::actix::{
    ActorError, ExecuteKernel, ExecuteMetadata, GetKernelInfo, GetStats, KernelActor, KernelActorConfig, ListKernels,
};
use tower_kernels::error::{Classify, ErrorKind, chain};
use tower_kernels::layers::{RateLimiterLayer, TimeoutLayer};
use tower_kernels::middleware::timeout::TimeoutError;
use tower_kernels::request::{BackendKind, Execution, Priority, TraceContext};
use tower_kernels::service::{
    KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Mode, Payload,
};
use tower_layer::Layer;

use crate::actix::kernels::{SOON, Service, Watch, busy, execute, registry, run, saxpy, service, until};

fn start(workers: usize, queue: usize, config: KernelActorConfig) -> (Addr<KernelActor<Service>>, Watch) {
    let (service, watch) = service(workers, queue);
    let registry = Arc::clone(service.registry());
    (KernelActor::with_service(service, registry, config).start(), watch)
}

fn within(timeout: Duration, message: ExecuteKernel) -> ExecuteKernel {
    ExecuteKernel { metadata: ExecuteMetadata { timeout: Some(timeout), ..Default::default() }, ..message }
}

#[test]
fn a_kernel_is_run_and_its_output_returned() {
    run(async {
        let (actor, _watch) = start(1, 1, KernelActorConfig::default());
        let response = actor.send(saxpy()).await.unwrap().unwrap();
        assert_eq!((response.kernel_id.as_str(), response.output), ("linalg/saxpy", json!({"y": [12.0, 24.0]})));
        assert_eq!((response.execution.backend, response.execution.batch_size), ("CPU", 1));
    });
}

#[test]
fn every_rejection_has_its_kind_and_reason_and_the_actor_continues() {
    run(async {
        let (actor, _watch) = start(1, 1, KernelActorConfig::default());
        for (message, kind, says) in [
            (execute("no/such", json!({})), ErrorKind::NotFound, "no/such"),
            (execute("orderbook/matching", json!({})), ErrorKind::Unsupported, "ring runtime"),
            (execute("linalg/saxpy", json!({"a": 1})), ErrorKind::InvalidArgument, "invalid: x: "),
            (execute("linalg/saxpy", json!({"a": 1, "x": ["1"], "y": [1]})), ErrorKind::InvalidArgument, "x[0]: "),
            (execute("linalg/saxpy", json!({"a": 1, "x": [1], "y": []})), ErrorKind::InvalidArgument, "y: "),
            (execute("linalg/saxpy", json!(null)), ErrorKind::InvalidArgument, "input: "),
            (execute("test/panics", json!({})), ErrorKind::Internal, "as it was told to"),
        ] {
            let error = actor.send(message).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            let text = chain(&error).to_string();
            assert!(text.contains(says), "{text}");
            let ActorError::Service(error) = error else { panic!("{error:?}") };
            assert_eq!(error.downcast_ref::<KernelError>().unwrap().kind(), kind);
        }
        actor.send(saxpy()).await.unwrap().unwrap();
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.completed, stats.failed), (1, 7));
    });
}

#[test]
fn what_tower_puts_into_boxes_keeps_its_kind() {
    run(async {
        let registry = Arc::new(KernelRegistry::new());
        tower_kernels::kernels::register_all(&registry).unwrap();
        let limit = RateLimiterLayer::new(1, Duration::from_secs(3600));
        let kernels = KernelService::new(Arc::clone(&registry));
        let service = ServiceBuilder::new().buffer(16).load_shed().layer(limit).service(kernels);
        let actor = KernelActor::with_service(service, registry, KernelActorConfig::default()).start();
        actor.send(saxpy()).await.unwrap().unwrap();
        let error = actor.send(saxpy()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error:?}");
        assert!(error.retry_after().is_some_and(|wait| wait > Duration::from_secs(3000)), "{error:?}");
    });
}

#[test]
fn a_deadline_stops_the_kernel() {
    run(async {
        let short = Duration::from_millis(30);
        let configs = [
            (KernelActorConfig::default(), within(short, busy())),
            (KernelActorConfig { default_timeout: short, ..Default::default() }, busy()),
            (KernelActorConfig { max_timeout: Some(short), ..Default::default() }, within(SOON * 9, busy())),
        ];
        for (config, message) in configs {
            let (actor, mut watch) = start(1, 1, config);
            let begun = Instant::now();
            let error = actor.send(message).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
            assert!(begun.elapsed() >= short, "{:?}", begun.elapsed());
            watch.stopped.recv().await.unwrap();
            assert_eq!(until(&actor, |stats| stats.in_flight == 0).await.failed, 1);
        }
    });
}

#[test]
fn a_longer_time_than_the_default_may_be_asked_for() {
    run(async {
        let config = KernelActorConfig { default_timeout: Duration::ZERO, ..Default::default() };
        let (actor, _watch) = start(1, 1, config);
        assert_eq!(actor.send(saxpy()).await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        actor.send(within(SOON, saxpy())).await.unwrap().unwrap();
        actor.send(within(Duration::MAX, saxpy())).await.unwrap().unwrap();
    });
}

#[test]
fn the_wait_for_capacity_counts_and_an_expired_message_is_never_started() {
    run(async {
        let (actor, mut watch) = start(1, 0, KernelActorConfig::default());
        let running = actor.send(busy());
        watch.started.recv().await.unwrap();
        let waiting = actor.send(within(Duration::from_millis(30), busy())).await.unwrap().unwrap_err();
        assert!(matches!(waiting, ActorError::DeadlineExceeded { called: false }), "{waiting:?}");

        let left = actor.send(busy());
        until(&actor, |stats| stats.in_flight == 2).await;
        drop(left);
        until(&actor, |stats| stats.in_flight == 1 && stats.cancelled == 1).await;
        drop(running);
        watch.stopped.recv().await.unwrap();
        actor.send(saxpy()).await.unwrap().unwrap();
        assert!(watch.started.try_recv().is_err(), "started though nobody waited");
    });
}

#[test]
fn many_messages_run_at_one_time() {
    run(async {
        let (actor, mut watch) = start(4, 0, KernelActorConfig::default());
        let running: Vec<_> = (0..4).map(|_| actor.send(busy())).collect();
        for _ in 0..4 {
            watch.started.recv().await.unwrap();
        }
        assert_eq!(actor.send(GetStats).await.unwrap().in_flight, 4);
        drop(running);
        for _ in 0..4 {
            assert!(matches!(watch.stopped.recv().await, Some(KernelError::Cancelled)));
        }
    });
}

#[test]
fn dropping_the_reply_cancels_the_kernel() {
    run(async {
        let (actor, mut watch) = start(1, 0, KernelActorConfig::default());
        let reply = actor.send(busy());
        watch.started.recv().await.unwrap();
        drop(reply);
        assert!(matches!(watch.stopped.recv().await, Some(KernelError::Cancelled)));
        until(&actor, |stats| stats.in_flight == 0 && stats.cancelled == 1).await;

        // The caller's own bound is a drop too.
        let error = actor.send(busy()).timeout(Duration::from_millis(30)).await.unwrap_err();
        assert_eq!(
            (error.kind(), ActorError::from(error).kind()),
            (ErrorKind::DeadlineExceeded, ErrorKind::DeadlineExceeded)
        );
        assert!(matches!(watch.stopped.recv().await, Some(KernelError::Cancelled)));
        until(&actor, |stats| stats.in_flight == 0 && stats.cancelled == 2).await;
        actor.send(saxpy()).await.unwrap().unwrap();
    });
}

#[test]
fn a_message_that_nobody_waits_for_runs_all_the_same() {
    run(async {
        let (actor, _watch) = start(1, 0, KernelActorConfig::default());
        actor.do_send(saxpy());
        actor.try_send(saxpy()).unwrap();
        until(&actor, |stats| stats.completed == 2).await;
    });
}

#[test]
fn kernels_are_listed_and_described() {
    run(async {
        let (actor, _watch) = start(1, 0, KernelActorConfig::default());
        let kernels = actor.send(ListKernels).await.unwrap();
        let ids: Vec<_> = kernels.iter().map(|kernel| kernel.info().id.as_ref()).collect();
        assert!(ids.is_sorted() && ids.contains(&"graph/betweenness-centrality"), "{ids:?}");
        let ring = kernels.iter().find(|kernel| kernel.info().mode == Mode::Ring).unwrap();
        assert_eq!(ring.info().id, "orderbook/matching");

        let describe = |kernel_id: &str| actor.send(GetKernelInfo { kernel_id: kernel_id.to_owned() });
        let kernel = describe("risk/option-pricing").await.unwrap().unwrap();
        assert!(kernel.input_schema().as_value()["properties"]["spot"].is_object());
        let error = describe("no/such").await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("no/such")), (ErrorKind::NotFound, true));

        let service = service(1, 1).0;
        let empty = KernelActor::with_service(service, KernelRegistry::new(), Default::default()).start();
        assert!(empty.send(ListKernels).await.unwrap().is_empty());
    });
}

#[test]
fn what_the_message_says_reaches_the_service() {
    run(async {
        let seen = Arc::new(Mutex::new(None));
        let sink = Arc::clone(&seen);
        let service = service_fn(move |request: KernelRequest| {
            *sink.lock().unwrap() = Some(request);
            async { Ok::<_, KernelError>(KernelResponse::new(Payload::json("[1]"), Execution::new("CPU"))) }
        });
        let actor = KernelActor::with_service(service, registry().0, Default::default()).start();
        let trace = TraceContext::new(7, 8, true).unwrap();
        let metadata = ExecuteMetadata {
            timeout: Some(Duration::from_secs(3600)),
            priority: Priority::High,
            tenant: Some("acme".into()),
            backend: Some(BackendKind::Cpu),
            trace: Some(trace.clone()),
        };
        let message = ExecuteKernel { metadata, ..execute("a/b", json!({"x": 1})) };
        assert_eq!(actor.send(message).await.unwrap().unwrap().output, json!([1]));
        let request = seen.lock().unwrap().take().unwrap();
        assert_eq!((request.kernel_id.as_ref(), request.priority), ("a/b", Priority::High));
        assert_eq!((request.tenant.as_deref(), request.trace.as_deref()), (Some("acme"), Some(&trace)));
        assert_eq!(request.backend(), Some(BackendKind::Cpu));
        assert!(request.deadline.unwrap() > Instant::now() + Duration::from_secs(3000));
        let Payload::Json(input) = request.payload else { panic!("no JSON") };
        assert_eq!(input, r#"{"x":1}"#);
    });
}

#[test]
fn a_pipeline_of_ones_own_says_its_own_errors() {
    run(async {
        let (inner, _watch) = service(1, 1);
        let service = TimeoutLayer::new(Duration::from_millis(30)).layer(inner);
        let actor = KernelActor::with_service(service, registry().0, Default::default()).start();
        let error = actor.send(busy()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        let ActorError::Service(error) = error else { panic!("{error:?}") };
        assert!(error.downcast_ref::<TimeoutError<KernelError>>().is_some(), "{error:?}");
    });
}

#[test]
fn a_service_that_misbehaves_harms_its_caller_alone() {
    run(async {
        let service = service_fn(|request: KernelRequest| async move {
            let payload = match request.kernel_id.as_ref() {
                "test/typed" => Payload::typed(1),
                "test/text" => Payload::json("not JSON"),
                "test/none" => panic!("the service panics"),
                _ => Payload::json("null"),
            };
            Ok::<_, KernelError>(KernelResponse::new(payload, Execution::new("CPU")))
        });
        let actor = KernelActor::with_service(service, registry().0, Default::default()).start();
        for id in ["test/typed", "test/text"] {
            let error = actor.send(execute(id, json!({}))).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        }
        let error = actor.send(execute("test/none", json!({}))).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(
            !error.to_string().contains("the service panics")
                && chain(&error).to_string().contains("the service panics")
        );
        assert_eq!(actor.send(execute("test/good", json!({}))).await.unwrap().unwrap().output, json!(null));
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.completed, stats.failed, stats.cancelled), (1, 3, 0));
    });
}
