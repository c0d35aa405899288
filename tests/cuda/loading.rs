//! Device code is loaded before requests need it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::ServiceExt;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::backends::{CudaState, Local};
use tower_kernels::service::{BackendKind, KernelRequest, KernelService, Payload};

use crate::support::catalogue;

crate::tests! {
    kernels_are_loaded_in_the_background_and_not_by_the_first_request
}

fn modules_loaded(local: &Local) -> usize {
    match local.status().cuda {
        CudaState::On { devices, .. } => devices[0].modules_loaded,
        CudaState::Off { reason } => panic!("{reason}"),
    }
}

fn kernels_are_loaded_in_the_background_and_not_by_the_first_request() {
    let (registry, local) = (catalogue(), Local::with_backends(CpuBackend::new(), CudaBackend::open(0)));
    assert_eq!(modules_loaded(&local), 0);
    local.load_kernels(&registry);
    let begun = Instant::now();
    while local.status().cuda.modules_loading() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("all kernels are loaded after {:?}", begun.elapsed());
    let loaded = modules_loaded(&local);
    assert_ne!(loaded, 0);

    let service = KernelService::with_backend(Arc::clone(&registry), local.clone());
    let numbers = vec!["1.5"; 100_000].join(",");
    let input = format!(r#"{{"a": 2.0, "x": [{numbers}], "y": [{numbers}]}}"#);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = KernelRequest::new("linalg/saxpy", Payload::json(input));
    let response = runtime.block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(response.execution.backend, "CUDA");
    assert_eq!(modules_loaded(&local), loaded, "the request has loaded a module");
    for kernel in registry.list().iter().filter(|kernel| kernel.info().supports(BackendKind::Cuda)) {
        let id = &*kernel.info().id;
        let example = &kernel.input_schema().get("examples").expect("an example")[0];
        let request = KernelRequest::new(id.to_owned(), Payload::json(example.to_string()));
        runtime.block_on(service.clone().oneshot(request)).unwrap();
        assert_eq!(modules_loaded(&local), loaded, "a request of {id} has loaded a module");
    }
}
