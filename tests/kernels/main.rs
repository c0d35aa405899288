//! The built-in kernels: against goldens, against plain references, and through the service.

mod batched;
mod betweenness;
mod connected_components;
mod core;
#[path = "../support/core_goldens.rs"]
mod core_goldens;
mod graph_input;
mod graphs;
mod kmeans;
#[path = "../support/kmeans_goldens.rs"]
mod kmeans_goldens;
mod monte_carlo_var;
mod neighborhoods;
mod option_pricing;
mod pricing_input;
mod saxpy;
mod service;
mod shortest_path;
mod sums;
mod volatility;
