//! The built-in kernels: against goldens, against plain references, and through the service.

mod batched;
mod betweenness;
mod connected_components;
mod core;
#[path = "../support/core_goldens.rs"]
mod core_goldens;
mod graph_input;
mod graphs;
mod monte_carlo_var;
mod neighborhoods;
mod option_pricing;
mod pricing_input;
mod saxpy;
mod semantic_similarity;
mod service;
mod shortest_path;
#[path = "../support/similarity_inputs.rs"]
mod similarity_inputs;
mod sums;
mod volatility;
