//! Risk: pricing of derivatives and their sensitivities, and the risk of books.
//!
//! The Cholesky factor of many factors is stored once, as an [operand](crate::service::Operands). With `tower-kernels
//! serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/factors?type=tensors' -H 'content-type: application/json' \
//!     -d '{"cholesky": {"dtype": "float64", "data": [1.0, 0.0, 0.6, 0.8]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "risk/monte-carlo-var", "input":
//!     {"values": [1e6, -5e5], "volatilities": [0.01, 0.02], "cholesky": {"operand": "factors/cholesky"},
//!      "confidence_levels": [0.95, 0.99], "num_scenarios": 1000000}}'
//! # "output":{"value_at_risk":[14719.4130859375,20789.640625],"expected_shortfall":[18443.57883488281,...],...}
//! ```

pub mod monte_carlo_var;
pub mod option_pricing;
