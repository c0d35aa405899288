//! Every kernel of the catalogue: its CUDA code against its `f64` reference, at sizes around a warp and a block and at a
//! large one, with NaN, and in shared runs.

use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};

crate::tests! {
    every_kernel_agrees_with_its_reference
}

fn every_kernel_agrees_with_its_reference() {
    let backend = CudaBackend::with_config(0, CudaConfig { poison_uninitialized: true, ..Default::default() }).unwrap();
    let cases = tower_kernels::kernels::cases();
    assert!(cases.len() >= 9);
    let errors: Vec<String> = cases.iter().filter_map(|kernel| kernel.check_cuda(&backend).err()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}
