//! What the other files ask the service with, and what holds for all kernels.

use bytes::Bytes;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::register_all;
use tower_kernels::service::{
    DType, InvalidInput, KernelError, KernelRegistry, KernelRequest, KernelService, Mode, Payload, Tensor, Tensors,
};

pub(crate) async fn run(id: &'static str, payload: Payload) -> Result<Payload, KernelError> {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    service.ready().await?.call(KernelRequest::new(id, payload)).await.map(|response| response.payload)
}

/// The output for a JSON document.
pub(crate) async fn ask(id: &'static str, document: &str) -> Result<serde_json::Value, KernelError> {
    match run(id, Payload::json(document.to_owned())).await? {
        Payload::Json(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
        other => panic!("{other:?} for JSON"),
    }
}

/// The error of a document or tensors that the kernel rejects.
pub(crate) fn rejection<T: std::fmt::Debug>(answer: Result<T, KernelError>) -> InvalidInput {
    match answer.unwrap_err() {
        KernelError::InvalidInput(invalid) => invalid,
        other => panic!("{other}"),
    }
}

pub(crate) fn tensor<T: bytemuck::NoUninit>(dtype: DType, shape: &[usize], elements: &[T]) -> Tensor {
    Tensor::new(dtype, shape.to_vec(), Bytes::copy_from_slice(bytemuck::cast_slice(elements))).unwrap()
}

pub(crate) fn tensors<const N: usize>(named: [(&str, Tensor); N]) -> Payload {
    let mut tensors = Tensors::new();
    for (name, tensor) in named {
        tensors.insert(name, tensor).unwrap();
    }
    tensors.into()
}

/// A tensor of an output.
pub(crate) fn read<T: bytemuck::Pod>(answer: &Payload, name: &str, dtype: DType) -> Vec<T> {
    let Payload::Tensors(tensors) = answer else { panic!("{answer:?} for tensors") };
    let tensor = tensors.get(name).unwrap();
    assert_eq!(tensor.dtype(), dtype);
    bytemuck::pod_collect_to_vec(tensor.data())
}

#[test]
fn the_catalogue_is_complete_and_described() {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    let ids: Vec<String> = registry.list().iter().map(|kernel| kernel.info().id.to_string()).collect();
    let expected = [
        "core/sort",
        "core/top-k",
        "graph/adamic-adar",
        "graph/betweenness-centrality",
        "graph/clustering-coefficient",
        "graph/common-neighbors",
        "graph/connected-components",
        "graph/cosine-similarity",
        "graph/degree-centrality",
        "graph/degree-ratio",
        "graph/density",
        "graph/jaccard-similarity",
        "graph/k-clique",
        "graph/pagerank",
        "graph/shortest-path",
        "graph/star-topology",
        "graph/triangle-counting",
        "linalg/dot",
        "linalg/saxpy",
        "linalg/weighted-sum-product",
        "ml/kmeans-cluster",
        "ml/semantic-similarity",
        "orderbook/matching",
        "risk/monte-carlo-var",
        "risk/option-pricing",
        "stats/moments",
        "temporal/volatility-analysis",
    ];
    assert_eq!(ids, expected);
    for id in ids {
        let description = serde_json::to_value(registry.describe(&id).unwrap()).unwrap();
        assert!(description["input_schema"]["properties"].as_object().is_some_and(|fields| !fields.is_empty()), "{id}");
        assert!(description["output_schema"]["properties"].is_object(), "{id}");
    }
    assert!(register_all(&registry).is_err(), "names are taken once");
}

/// At sizes around a warp and a block and at a large one, with NaN, and in shared runs.
#[test]
fn every_kernel_agrees_with_its_reference_on_the_cpu() {
    let cases = tower_kernels::kernels::cases();
    assert!(cases.len() >= 9);
    for kernel in cases {
        kernel.check_cpu().unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test]
async fn the_ring_kernel_is_listed_and_not_run() {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    assert_eq!(registry.get("orderbook/matching").unwrap().info().mode, Mode::Ring);
    let error = ask("orderbook/matching", r#"{"id": 1, "side": "buy", "price": 5, "quantity": 1}"#).await.unwrap_err();
    assert!(matches!(error, KernelError::RingKernel { .. }), "{error}");
}
