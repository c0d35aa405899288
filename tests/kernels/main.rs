//! The built-in kernels: against goldens, against plain references, and through the service.

mod batched;
mod betweenness;
mod graph_input;
mod option_pricing;
mod pricing_input;
mod saxpy;
mod service;
mod sums;
mod volatility;
