//! The built-in kernels: against goldens, against plain references, and through the service.

mod batched;
mod betweenness;
mod connected_components;
mod graph_input;
mod graphs;
mod option_pricing;
mod pricing_input;
mod saxpy;
mod service;
mod shortest_path;
mod sums;
