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
fn every_kernel_is_described() {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    for kernel in registry.list() {
        let id = &kernel.info().id;
        let description = serde_json::to_value(registry.describe(id).unwrap()).unwrap();
        assert!(description["input_schema"]["properties"].as_object().is_some_and(|fields| !fields.is_empty()), "{id}");
        assert!(description["output_schema"]["properties"].is_object(), "{id}");
    }
    assert!(register_all(&registry).is_err(), "names are taken once");
}

/// The table of the README, as the registry has it.
#[cfg(feature = "cuda")]
#[test]
fn the_readme_lists_the_catalogue() {
    let registry = KernelRegistry::new();
    register_all(&registry).unwrap();
    let kernels = registry.list();
    let mut table = String::from("| kernel | what it computes | runs on |\n|---|---|---|\n");
    let mut domain = "";
    for info in kernels.iter().map(|kernel| kernel.info()) {
        if info.domain() != domain {
            domain = info.domain();
            table.push_str(&format!("| **[{domain}](src/kernels/{domain}/mod.rs)** | | |\n"));
        }
        let ids: Vec<String> = std::iter::once(&info.id).chain(&info.aliases).map(|id| format!("`{id}`")).collect();
        let backends: Vec<&str> = info.backends.iter().map(|backend| backend.as_str()).collect();
        let runs_on = if info.mode == Mode::Ring { "not as a request".to_owned() } else { backends.join(", ") };
        table.push_str(&format!("| {} | {} | {runs_on} |\n", ids.join(", "), info.description));
    }
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "the README's table is to be:\n{table}");
    let greeting = format!("\n  kernels  {}\n", kernels.len());
    assert!(readme.contains(&greeting), "the README's greeting is to have:{greeting}");
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
