//! Requests that share a run of a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::batched::Batched;
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::backends::{BatchedLayer, Local};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::middleware::batch::BatchError;
use tower_kernels::service::{
    BatchKey, Buffer, Cost, DType, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest,
    KernelResponse, KernelService, Payload, Progress, RunContext, Tensor, Tensors,
};

/// Far more work than is done inside the call, on next to no bytes.
const LARGE: Cost = Cost { bytes: 0, operations: 1 << 40, device_memory: 0 };

/// Doubles numbers. A run fails where any of them is 13, panics where one is 14, and waits for its end where one is 15.
struct Double {
    cost: Cost,
    runs: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Numbers {
    numbers: Buffer<f64>,
}

impl Kernel for Double {
    type Input = Numbers;
    type Output = Numbers;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/double", "1.0.0", "Doubles numbers.")
    }

    fn validate(&self, input: &Numbers) -> Result<(), InvalidInput> {
        match input.numbers.iter().position(|number| *number < 0.0) {
            Some(at) => Err(InvalidInput::new(format!("numbers[{at}]"), "below 0")),
            None => Ok(()),
        }
    }

    fn cost(&self, _: &Numbers) -> Cost {
        self.cost
    }

    fn run_cpu(&self, input: &Numbers, context: &RunContext<'_>) -> Result<Numbers, KernelError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        for number in input.numbers.iter() {
            match number {
                13.0 => return Err(KernelError::kernel("13")),
                14.0 => panic!("14"),
                15.0 => loop {
                    context.check()?;
                    std::thread::sleep(Duration::from_micros(100));
                },
                _ => {}
            }
        }
        Ok(Numbers { numbers: input.numbers.iter().map(|number| 2.0 * number).collect() })
    }

    fn batch_key(&self, _: &Numbers) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
}

type Service_ = KernelService<Batched<CpuBackend>>;
type Answer = Result<KernelResponse, BatchError<KernelError>>;

/// A service with one worker, whose runs wait for this many requests.
fn service(requests: usize, cost: Cost) -> (Service_, Arc<AtomicUsize>) {
    let (registry, runs) = (KernelRegistry::new(), Arc::new(AtomicUsize::new(0)));
    registry.register(Double { cost, runs: Arc::clone(&runs) }).unwrap();
    let mut config = CpuConfig::default();
    (config.workers, config.queue) = (1, 8);
    let layer =
        BatchedLayer::for_workers(1).max_requests(requests).max_bytes(u64::MAX).max_delay(Duration::from_secs(1));
    (KernelService::with_backend(registry, layer.layer(CpuBackend::with_config(config).unwrap())), runs)
}

fn typed(numbers: &[f64]) -> Payload {
    Payload::typed(Numbers { numbers: numbers.to_vec().into() })
}

fn request(payload: Payload) -> KernelRequest {
    KernelRequest::new("test/double", payload)
}

async fn all(service: &Service_, payloads: impl IntoIterator<Item = Payload>) -> Vec<Answer> {
    join_all(payloads.into_iter().map(|payload| service.clone().oneshot(request(payload)))).await
}

fn numbers(answer: &Answer) -> Vec<f64> {
    answer.as_ref().unwrap().payload.downcast::<Numbers>().unwrap().numbers.to_vec()
}

#[tokio::test]
async fn each_answer_comes_in_the_encoding_of_its_own_request() {
    for cost in [Cost::default(), LARGE] {
        let (service, runs) = service(3, cost);
        let mut tensors = Tensors::new();
        let bytes = Bytes::from_owner(bytemuck::cast_slice(&[3.0_f64, 4.0]).to_vec());
        tensors.insert("numbers", Tensor::new(DType::F64, vec![2], bytes).unwrap()).unwrap();
        let payloads = [Payload::json(r#"{"numbers": [1, 2]}"#), tensors.into(), typed(&[5.0])];
        let answers = all(&service, payloads).await;
        let Payload::Json(json) = &answers[0].as_ref().unwrap().payload else { panic!("JSON in, JSON out") };
        assert_eq!(json, r#"{"numbers":[2.0,4.0]}"#);
        let Payload::Tensors(tensors) = &answers[1].as_ref().unwrap().payload else {
            panic!("tensors in, tensors out")
        };
        assert_eq!(**tensors.get("numbers").unwrap().data(), *bytemuck::cast_slice::<f64, u8>(&[6.0, 8.0]));
        assert_eq!(numbers(&answers[2]), [10.0]);
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().execution.batch_size == 3));
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn what_is_wrong_fails_before_it_joins_others() {
    let (service, _) = service(2, Cost::default());
    let wrong = [
        Payload::json(r#"{"numbers": [1, "2"]}"#),
        Payload::json(r#"{"numbers": [-1]}"#),
        Payload::typed("of another type"),
        Payload::json("{"),
    ];
    let answers = all(&service, wrong.into_iter().chain([typed(&[1.0]), typed(&[2.0])])).await;
    for answer in &answers[..4] {
        let error = answer.as_ref().unwrap_err();
        assert!(matches!(error, BatchError::Inner(KernelError::InvalidInput(_))), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!((numbers(&answers[4]), numbers(&answers[5])), (vec![2.0], vec![4.0]));
    assert_eq!(answers[4].as_ref().unwrap().execution.batch_size, 2);
}

#[tokio::test]
async fn who_makes_a_run_fail_fails_alone() {
    for cost in [Cost::default(), LARGE] {
        let (service, _) = service(4, cost);
        let answers = all(&service, [typed(&[1.0]), typed(&[13.0]), typed(&[14.0]), typed(&[2.0])]).await;
        assert_eq!((numbers(&answers[0]), numbers(&answers[3])), (vec![2.0], vec![4.0]));
        assert_eq!(answers[0].as_ref().unwrap().execution.batch_size, 1, "it was run alone in the end");
        let errors = [answers[1].as_ref().unwrap_err(), answers[2].as_ref().unwrap_err()];
        assert!(matches!(errors[0], BatchError::Inner(KernelError::Kernel(_))), "{errors:?}");
        assert!(matches!(errors[1], BatchError::Inner(KernelError::Panicked { .. })), "{errors:?}");
    }
}

#[tokio::test]
async fn a_run_ends_when_all_who_share_it_have_left_and_not_before() {
    let (service, runs) = service(2, LARGE);
    let call = |payload| tokio::spawn(service.clone().oneshot(request(payload)));
    let (first, second) = (call(typed(&[15.0])), call(typed(&[1.0])));
    let begun = Instant::now();
    while runs.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(service.backend().get_ref().backend().status().running, 1);
    second.abort();
    while service.backend().get_ref().backend().status().running > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the run goes on for nobody");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // And the worker is as good as before.
    let answers = all(&service, [typed(&[1.0]), typed(&[2.0])]).await;
    assert_eq!(numbers(&answers[1]), [4.0]);
}

#[tokio::test]
async fn who_is_late_by_the_time_of_the_run_is_told_so_and_holds_nobody_up() {
    let (service, _) = service(2, LARGE);
    // The only worker is busy until after the deadline.
    let busy = service.backend().get_ref().backend().clone();
    let busy = KernelService::with_backend(Arc::clone(service.registry()), busy);
    let mut held = request(typed(&[15.0]));
    let deadline = Instant::now() + Duration::from_secs(1);
    held.deadline = Some(deadline);
    let held = tokio::spawn(busy.oneshot(held));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let late = request(typed(&[1.0])).with_timeout(Duration::from_millis(10));
    let (late, other) = tokio::join!(service.clone().oneshot(late), service.clone().oneshot(request(typed(&[2.0]))));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(numbers(&other), [4.0]);
    assert!(other.is_ok() && Instant::now() >= deadline, "they have waited for the worker");
    assert_eq!(held.await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_request_whose_progress_is_watched_runs_alone() {
    let (service, _) = service(2, Cost::default());
    let mut watched = request(typed(&[1.0]));
    watched.extensions.insert(Progress::new());
    let response = service.clone().oneshot(watched).await.unwrap();
    assert_eq!(response.execution.batch_size, 1);
}

#[tokio::test]
async fn the_wait_for_others_counts_as_queued() {
    let (registry, layer) = (KernelRegistry::new(), BatchedLayer::for_workers(1).max_delay(Duration::from_millis(30)));
    registry.register(Double { cost: Cost::default(), runs: Arc::default() }).unwrap();
    let service = KernelService::with_backend(registry, layer.layer(CpuBackend::new()));
    let execution = service.oneshot(request(typed(&[1.0]))).await.unwrap().execution;
    assert!(execution.queued >= Duration::from_millis(25), "{execution:?}");
    assert_eq!(execution.batch_size, 1);
}

#[tokio::test]
async fn the_machine_behind_the_layer_answers_as_without() {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let local = Local::detect();
    let mut service = KernelService::with_backend(registry, BatchedLayer::over(&local).layer(local));
    let input = Payload::json(r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#);
    let response = service.ready().await.unwrap().call(KernelRequest::new("linalg/saxpy", input)).await.unwrap();
    let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
    assert_eq!(output, r#"{"y":[12.0,24.0]}"#);
    let unknown = service.ready().await.unwrap().call(KernelRequest::new("no/such", Payload::json("{}"))).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
}
