use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::backends::BatchedLayer;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::RetryLayer;
use tower_kernels::request::{Execution, Priority};
use tower_kernels::service::{
    Buffer, Cost, DType, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelResponse,
    KernelService, Payload, RunContext, Tensor, Tensors,
};

use crate::kernels::{LARGE, Nothing, Numbers, Panics, Sum, Total, busy, service};
use crate::support::custom_backends::{Forward, ThreadBackend};

const SOON: Duration = Duration::from_secs(60);

async fn call(cost: Cost, id: &'static str, payload: Payload) -> Result<KernelResponse, KernelError> {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost }).unwrap();
    service(registry, 1, 0).oneshot(KernelRequest::new(id, payload)).await
}

fn tensors(fields: impl IntoIterator<Item = (&'static str, Tensor)>) -> Payload {
    let mut tensors = Tensors::new();
    for (name, tensor) in fields {
        tensors.insert(name, tensor).unwrap();
    }
    tensors.into()
}

fn f64s(shape: Vec<usize>, elements: &[f64]) -> Tensor {
    let data: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    Tensor::new(DType::F64, shape, data.into()).unwrap()
}

#[tokio::test]
async fn every_encoding_reaches_the_kernel_inline_and_on_a_worker() {
    for cost in [Cost::default(), LARGE] {
        let json = call(cost, "sum", Payload::json(r#"{"numbers": [1, 2.5], "scale": 2}"#)).await.unwrap();
        let Payload::Json(output) = json.payload else { panic!("JSON was asked for") };
        assert_eq!(output, r#"{"total":7.0}"#);

        let named = tensors([("numbers", f64s(vec![2], &[1.0, 2.5])), ("scale", f64s(vec![], &[2.0]))]);
        let Payload::Tensors(output) = call(cost, "sum", named).await.unwrap().payload else { panic!("no tensors") };
        assert_eq!(output.get("total").unwrap(), &f64s(vec![], &[7.0]));

        let typed = Payload::typed(Numbers { numbers: Buffer::from(vec![1.0, 2.5]), scale: Some(2.0) });
        let response = call(cost, "sum", typed).await.unwrap();
        assert_eq!(*response.payload.downcast::<Total>().unwrap(), Total { total: 7.0 });
        assert_eq!((response.execution.backend, response.execution.batch_size), ("CPU", 1));
        assert_eq!(response.execution.estimated.is_zero(), cost == Cost::default());
    }
}

/// Sleeps for as long as it is told to, whatever its cost says, and returns whether it ran on this thread.
struct Sleeps(ThreadId);

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Millis {
    millis: u64,
}

impl Kernel for Sleeps {
    type Input = Millis;
    type Output = bool;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/sleeps", "1.0.0", "Sleeps for as long as it is told to.")
    }

    fn validate(&self, _: &Millis) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Millis) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &Millis, context: &RunContext<'_>) -> Result<bool, KernelError> {
        thread::sleep(Duration::from_millis(input.millis));
        context.check()?;
        Ok(thread::current().id() == self.0)
    }
}

#[tokio::test]
async fn a_kernel_whose_cost_is_wrong_holds_the_thread_of_its_caller_up_once() {
    for is_in_time in [true, false] {
        let registry = KernelRegistry::new();
        registry.register(Sleeps(thread::current().id())).unwrap();
        let service = service(registry, 1, 64);
        let call = |millis: u64, timeout: Duration| {
            let payload = Payload::json(format!(r#"{{"millis": {millis}}}"#));
            service.clone().oneshot(KernelRequest::new("test/sleeps", payload).with_timeout(timeout))
        };
        let is_here = call(0, SOON).await.unwrap().json::<bool>().unwrap();
        assert!(is_here, "its cost says that it takes no time");
        // A run that fails at its deadline counts as well.
        let long = call(30, if is_in_time { SOON } else { Duration::from_millis(20) }).await;
        assert_eq!(long.is_ok(), is_in_time);
        let is_here = call(0, SOON).await.unwrap().json::<bool>().unwrap();
        assert!(!is_here, "in time: {is_in_time}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_by_kind_and_field() {
    let wide = Tensor::new(DType::F32, vec![2], Bytes::from_static(&[0; 8])).unwrap();
    for cost in [Cost::default(), LARGE] {
        let cases = [
            (Payload::json("{"), "input"),
            (Payload::json(r#"{"numbers": [1, "2"]}"#), "numbers[1]"),
            (Payload::json(r#"{"numbers": [1], "sclae": 1}"#), "sclae"),
            (Payload::json(format!(r#"{{"numbers": {}"#, "[".repeat(1 << 20))), "numbers[0]"),
            (Payload::json("[".repeat(1 << 20)), "input"),
            (tensors([("scale", f64s(vec![], &[1.0]))]), "numbers"),
            (tensors([("numbers", wide.clone())]), "numbers"),
            (tensors([("numbers", f64s(vec![1, 2], &[1.0, 2.0]))]), "numbers"),
            (tensors([("numbers", f64s(vec![2], &[1.0, f64::NAN]))]), "numbers[1]"),
            (tensors([("numbers", f64s(vec![1], &[1.0])), ("x", f64s(vec![], &[1.0]))]), "x"),
            (Payload::typed(1_u8), "input"),
        ];
        for (payload, field) in cases {
            let what = format!("{payload:?}");
            let error = call(cost, "test/sum", payload).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what:.80}: {error}");
            let KernelError::InvalidInput(invalid) = error else { panic!("{what:.80}: {error}") };
            assert_eq!(invalid.field, field, "{what:.80}: {invalid}");
        }
    }
}

#[tokio::test]
async fn an_unknown_kernel_is_not_found_and_releases_its_permit() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    let mut service = service(registry, 1, 0);
    let unknown = KernelRequest::new("test/none", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("test/none")), (ErrorKind::NotFound, true));
    let known = KernelRequest::new("sum", Payload::json(r#"{"numbers": []}"#));
    service.ready().await.unwrap().call(known).await.unwrap();
    assert_eq!(tower::load::Load::load(&service).jobs, 0);
}

#[tokio::test]
async fn a_panic_is_an_error_to_its_caller_and_nobody_else() {
    for cost in [Cost::default(), LARGE] {
        let registry = KernelRegistry::new();
        registry.register(Sum { cost }).unwrap();
        registry.register(Panics { cost, twice: false }).unwrap();
        let mut service = service(registry, 1, 0);
        for _ in 0..3 {
            let request = KernelRequest::new("test/panics", Payload::typed(Nothing {}));
            let error = service.ready().await.unwrap().call(request).await.unwrap_err();
            assert!(matches!(&error, KernelError::Panicked { message } if message == "as it was told to"), "{error}");
            let request = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1]}"#));
            service.ready().await.unwrap().call(request).await.unwrap();
        }
        assert_eq!(tower::load::Load::load(&service).jobs, 0);
    }
}

struct Resident;

impl Kernel for Resident {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/resident", "1.0.0", "Stays.").ring()
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }
}

/// Says that it has CPU code, and has none.
struct Hollow;

impl Kernel for Hollow {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/hollow", "1.0.0", "Has no code.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, _: &Nothing, context: &RunContext<'_>) -> Result<Total, KernelError> {
        context.check()?;
        Err(KernelError::kernel("no code, and it says so itself"))
    }
}

#[tokio::test]
async fn a_ring_kernel_is_described_and_not_executed() {
    let registry = KernelRegistry::new();
    registry.register(Resident).unwrap();
    registry.register(Hollow).unwrap();
    assert_eq!(serde_json::to_value(registry.describe("test/resident").unwrap()).unwrap()["mode"], "ring");
    let mut service = service(registry, 1, 0);
    let request = KernelRequest::new("test/resident", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("needs a ring runtime"), "{error}");

    let request = KernelRequest::new("test/hollow", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!((error.kind(), source.to_string().as_str()), (ErrorKind::Internal, "no code, and it says so itself"));
}

fn sum_service<B>(backend: B) -> KernelService<B> {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: LARGE }).unwrap();
    KernelService::with_backend(registry, backend)
}

#[tokio::test]
async fn a_backend_of_ones_own_runs_jobs_on_its_thread_in_every_encoding() {
    let mut service = sum_service(ThreadBackend::start());
    let json = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1, 2.5]}"#));
    let response = service.ready().await.unwrap().call(json).await.unwrap();
    assert!(matches!(response.payload, Payload::Json(output) if output == r#"{"total":3.5}"#));
    assert_eq!((response.execution.backend, response.execution.batch_size), ("CPU", 1));

    let named = tensors([("numbers", f64s(vec![2], &[1.0, 2.5]))]);
    let response = service.ready().await.unwrap().call(KernelRequest::new("sum", named)).await.unwrap();
    assert!(matches!(response.payload, Payload::Tensors(output) if output.get("total") == Some(&f64s(vec![], &[3.5]))));

    let invalid = KernelRequest::new("sum", Payload::json(r#"{"numbers": ["1"]}"#));
    let error = service.ready().await.unwrap().call(invalid).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_backend_of_ones_own_stops_its_kernel_when_the_future_is_dropped_or_late() {
    let (kernel, watch) = busy();
    let registry = KernelRegistry::new();
    registry.register(kernel).unwrap();
    let mut service = KernelService::with_backend(registry, ThreadBackend::start());
    let request = || KernelRequest::new("test/busy", Payload::typed(Nothing {}));
    let mut running = tokio_test::task::spawn(service.ready().await.unwrap().call(request()));
    assert!(running.poll().is_pending());
    watch.started.recv_timeout(SOON).unwrap();
    drop(running);
    assert!(matches!(watch.stopped.recv_timeout(SOON), Ok(KernelError::Cancelled)));
    // The only permit is released once the kernel has stopped.
    let late = request().with_timeout(Duration::from_millis(50));
    let error = service.ready().await.unwrap().call(late).await.unwrap_err();
    assert!(matches!(error, KernelError::DeadlineExceeded { started: true }), "{error:?}");
}

#[tokio::test]
async fn a_backend_that_forwards_hands_on_the_whole_request() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let remote = service_fn(move |request: KernelRequest| {
        seen.send(request).unwrap();
        async { Ok::<_, KernelError>(KernelResponse::new(Payload::json("7"), Execution::new("remote"))) }
    });
    let mut request = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1]}"#)).with_timeout(SOON);
    (request.priority, request.tenant) = (Priority::High, Some("acme".into()));
    request.extensions.insert(5_u8);
    let response = sum_service(Forward(remote)).oneshot(request.clone()).await.unwrap();
    assert_eq!((response.execution.backend, response.json::<u8>().unwrap()), ("remote", 7));
    let forwarded = requests.recv().await.unwrap();
    assert_eq!(forwarded.kernel_id, "test/sum", "an alias is resolved");
    assert!(matches!(&forwarded.payload, Payload::Json(document) if document == r#"{"numbers": [1]}"#));
    assert_eq!(
        (forwarded.deadline, forwarded.priority, forwarded.tenant),
        (request.deadline, Priority::High, request.tenant)
    );
    assert_eq!(forwarded.extensions.get(), Some(&5_u8));
}

#[tokio::test]
async fn a_backend_that_forwards_keeps_the_kind_of_errors_so_they_are_retried() {
    let calls = Arc::new(AtomicUsize::new(0));
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: LARGE }).unwrap();
    let remote = service(registry, 1, 0);
    let flaky = {
        let calls = Arc::clone(&calls);
        service_fn(move |request: KernelRequest| {
            let (remote, is_down) = (remote.clone(), calls.fetch_add(1, Ordering::SeqCst) < 2);
            async move {
                match is_down {
                    true => Err(KernelError::Stopped { backend: "remote" }),
                    false => remote.oneshot(request).await,
                }
            }
        })
    };
    let request = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1, 2]}"#));
    let error = sum_service(Forward(flaky.clone())).oneshot(request.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        (error.to_string().as_str(), source.to_string().as_str()),
        ("the backend failed", "the remote backend has stopped")
    );
    let KernelError::Backend(backend) = &error else { panic!("{error:?}") };
    assert!(matches!(backend.downcast_ref(), Some(KernelError::Stopped { .. })));

    let retry = RetryLayer::new(|_: &KernelRequest| true);
    let response = retry.layer(sum_service(Forward(flaky))).oneshot(request).await.unwrap();
    assert_eq!(response.json::<serde_json::Value>().unwrap()["total"], 3.0);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_job_that_was_decoded_is_not_forwarded() {
    let layer = BatchedLayer::for_workers(1);
    // The batch layer decodes inputs to find out which share a run, even of kernels that then share none.
    let mut service = sum_service(layer.layer(Forward(service(KernelRegistry::new(), 1, 0))));
    let request = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1]}"#));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    assert!(format!("{error:?}").contains("decoded and cannot be forwarded"), "{error:?}");
}

#[cfg(feature = "hyper")]
#[test]
fn the_example_of_a_backend_that_forwards_over_http_runs_to_its_end() {
    crate::example_custom_backend::main().unwrap();
}
