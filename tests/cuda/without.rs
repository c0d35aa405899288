//! A machine without CUDA.

use tower_kernels::backends::Local;
use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::cuda::devices;

pub(crate) fn says_why() {
    let why = devices().expect_err("this test is for machines without a device");
    assert_eq!(CudaBackend::open(0).expect_err("no device to open"), why);
    let status = serde_json::to_value(Local::detect().status()).unwrap();
    assert_eq!(status["cuda"]["reason"], why.to_string(), "{status}");
}
