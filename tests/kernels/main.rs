//! The built-in kernels: against goldens, against plain references, and through the service.

mod batched;
mod betweenness;
mod closeness;
mod communities;
mod connected_components;
mod core;
#[path = "../support/core_goldens.rs"]
mod core_goldens;
mod gnn;
#[path = "../support/gnn_goldens.rs"]
mod gnn_goldens;
mod graph_input;
mod graphs;
mod kmeans;
#[path = "../support/kmeans_goldens.rs"]
mod kmeans_goldens;
mod monte_carlo_var;
mod motifs;
mod names;
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
mod value_similarity;
mod volatility;
