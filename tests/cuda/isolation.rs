//! Devices that processes of their own have open: a fault costs one request one error.

use std::time::{Duration, Instant};

use tower::ServiceExt;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::backends::process::ProcessConfig;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::service::{
    KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload, Placement, PutOptions,
    TensorSet,
};

use crate::device_faults::{DeviceFault, Fault};

crate::tests! {
    each_fault_of_an_isolated_device_costs_one_request
    requests_beside_a_fault_are_repeated
    outputs_of_an_isolated_device_are_those_of_this_process
    operands_survive_a_fault
}

/// The kernels of this program, in its device processes as well.
pub(crate) fn registry() -> KernelRegistry {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(DeviceFault).unwrap();
    registry
}

struct Isolated {
    service: KernelService<CudaBackend>,
    runtime: tokio::runtime::Runtime,
}

impl Isolated {
    fn new(workers: usize) -> Self {
        let hang_timeout = Duration::from_millis(300);
        let config = CudaConfig { workers, hang_timeout, operand_memory: Some(1 << 30), ..CudaConfig::default() };
        let processes = ProcessConfig { max_faults: 0, ..ProcessConfig::default() };
        let backend = CudaBackend::isolated(0, &config, &processes).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { service: KernelService::with_backend(registry(), backend), runtime }
    }

    fn call(&self, request: KernelRequest) -> Result<KernelResponse, KernelError> {
        let call = self.service.clone().oneshot(request);
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), call).await.expect("it ends") })
    }

    fn saxpy(&self) -> Vec<f32> {
        let input = SaxpyInput { a: 2.0, x: vec![1.0; 1000].into(), y: vec![3.0; 1000].into() };
        let response = self.call(KernelRequest::new("linalg/saxpy", Payload::typed(input))).unwrap();
        assert_eq!(response.execution.backend, "CUDA");
        response.payload.downcast::<SaxpyOutput>().unwrap().y.to_vec()
    }
}

fn fault(fault: Fault) -> KernelRequest {
    KernelRequest::new("test/device-fault", Payload::typed(fault))
}

fn each_fault_of_an_isolated_device_costs_one_request() {
    let isolated = Isolated::new(2);
    for (what, words) in [
        (Fault::IllegalAddress, "ILLEGAL_ADDRESS"),
        (Fault::MisalignedAddress, "MISALIGNED_ADDRESS"),
        (Fault::Trap, "LAUNCH_FAILED"),
        (Fault::Abort, "SIGABRT"),
    ] {
        assert_eq!(isolated.saxpy(), [5.0; 1000]);
        let start = Instant::now();
        let error = isolated.call(fault(what)).unwrap_err();
        let faulted = start.elapsed();
        assert!(
            matches!(&error, KernelError::DeviceFault { reason, .. } if reason.contains(words)),
            "{what:?}: {error:?}"
        );
        assert_eq!(isolated.saxpy(), [5.0; 1000]);
        println!("    {what:?}: the error after {faulted:?}, another request's response after {:?}", start.elapsed());
    }
    // A run that does not end is ended after its deadline.
    let start = Instant::now();
    let error = isolated.call(fault(Fault::Endless).with_timeout(Duration::from_millis(100))).unwrap_err();
    assert!(matches!(error, KernelError::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(isolated.saxpy(), [5.0; 1000]);
    println!("    Endless: another request's response after {:?}", start.elapsed());
    let processes = isolated.service.backend().processes().unwrap();
    assert_eq!(processes.replaced, 5, "{processes:?}");
    assert!(isolated.service.backend().lost().is_none());
}

fn requests_beside_a_fault_are_repeated() {
    let isolated = Isolated::new(4);
    let input = |len: usize| SaxpyInput { a: 2.0, x: vec![1.0; len].into(), y: vec![3.0; len].into() };
    isolated.runtime.block_on(async {
        let guilty = tokio::spawn(isolated.service.clone().oneshot(fault(Fault::IllegalAddress)));
        let request = |len| KernelRequest::new("linalg/saxpy", Payload::typed(input(len)));
        let start = |len| tokio::spawn(isolated.service.clone().oneshot(request(len)));
        let others: Vec<_> = (0..64).map(|at| start(1000 * (1 + at % 3))).collect();
        for other in others {
            let response = tokio::time::timeout(Duration::from_secs(60), other).await.unwrap().unwrap().unwrap();
            assert!(response.payload.downcast::<SaxpyOutput>().unwrap().y.iter().all(|y| *y == 5.0));
        }
        let error = guilty.await.unwrap().unwrap_err();
        assert!(matches!(error, KernelError::DeviceFault { .. }), "{error:?}");
    });
}

fn outputs_of_an_isolated_device_are_those_of_this_process() {
    let isolated = Isolated::new(2);
    let here = KernelService::with_backend(registry(), CudaBackend::open(0).unwrap());
    for (kernel, document) in [
        ("linalg/saxpy", r#"{"a": 2.5, "x": [1.0, 2.0, 3.5], "y": [0.1, 0.2, 0.3]}"#),
        ("core/sort", r#"{"values": [3, 1, 2]}"#),
        ("graph/pagerank", r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]]}"#),
        ("graph/betweenness-centrality", r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]]}"#),
        ("stats/moments", r#"{"x": [1.0, 2.0, 4.0, 8.0]}"#),
    ] {
        let request = || KernelRequest::new(kernel, Payload::json(document));
        let expected = isolated.runtime.block_on(here.clone().oneshot(request())).unwrap();
        let response = isolated.call(request()).unwrap();
        let [expected, response] = [expected, response].map(|response| match response.payload {
            Payload::Json(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(response, expected, "{kernel}");
    }
}

fn operands_survive_a_fault() {
    let isolated = Isolated::new(2);
    let edges: Vec<[u32; 2]> = (0..200_000).map(|at| [at % 4099, at * 7 % 8191]).collect();
    let graph = CsrGraph::from_edges(8191, &edges, Direction::Directed).unwrap();
    isolated.service.registry().operands().put("links", graph).unwrap();
    let ranks = || {
        let document = r#"{"graph": {"operand": "links"}}"#;
        let response = isolated.call(KernelRequest::new("graph/pagerank", Payload::json(document))).unwrap();
        let [graph] = response.execution.operands() else { panic!("one operand") };
        let resident = graph.resident;
        let Payload::Json(text) = response.payload else { panic!("JSON in, JSON out") };
        (text, resident)
    };
    let (first, _) = ranks();
    let (second, resident) = ranks();
    assert!(resident, "the second request finds the copy of the first");
    let mut options = PutOptions::default();
    options.placement = Placement::HostOnly;
    let x: Vec<f64> = (0..100_000).map(f64::from).collect();
    isolated.service.registry().operands().put_with("host", TensorSet::of("x", x), &options).unwrap();
    for _ in 0..2 {
        let document = r#"{"x": {"operand": "host"}}"#;
        let response = isolated.call(KernelRequest::new("stats/moments", Payload::json(document))).unwrap();
        assert!(!response.execution.operands()[0].resident, "no device has a copy");
    }
    isolated.call(fault(Fault::IllegalAddress)).unwrap_err();
    let (after, _) = ranks();
    let (again, resident) = ranks();
    assert!(resident && [second, after, again].iter().all(|text| *text == first));
}
