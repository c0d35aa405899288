//! Statistics of samples.
//!
//! A sample can be a tensor of an [operand](crate::service::Operands). With `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/quotes?type=tensors' -H 'content-type: application/json' \
//!     -d '{"close": {"dtype": "float64", "data": [3.5, 1.25, 2.0, 8.0]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "stats/moments", "input":
//!     {"x": {"operand": "quotes/close"}}}'
//! # "output":{"mean":3.6875,"variance":6.85546875,"skewness":0.8483206969390206,"kurtosis":-0.9292307692307693}
//! ```

pub mod moments;
