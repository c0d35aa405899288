//! Time series.
//!
//! Returns can be a tensor of an [operand](crate::service::Operands). With `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/history?type=tensors' -H 'content-type: application/json' \
//!     -d '{"returns": {"dtype": "float64", "data":
//!         [0.012, -0.004, 0.007, -0.021, 0.015, 0.003, -0.009, 0.011, -0.002, 0.018, -0.013, 0.006]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "temporal/volatility-analysis", "input":
//!     {"returns": {"operand": "history/returns"}, "mean": "zero", "forecast_horizon": 3}}'
//! # "output":{...,"persistence":[0.9977282549321941],...,"volatility":[0.011478011030217745],
//! #     "forecast":[0.00013144544810200114,...],...}
//! ```

pub mod volatility_analysis;
