//! Linear algebra.
//!
//! A vector can be a tensor of an [operand](crate::service::Operands). With `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/quotes?type=tensors' -H 'content-type: application/json' \
//!     -d '{"weights": {"dtype": "float32", "data": [0.25, 0.25, 0.25, 0.25]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "linalg/dot", "input":
//!     {"x": {"operand": "quotes/weights"}, "y": [4, 8, 12, 16]}}'
//! # "output":{"dot":10.0}
//! ```

pub mod dot;
pub mod saxpy;
pub mod weighted_sum_product;
