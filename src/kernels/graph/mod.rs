//! Graphs: the input and the compressed sparse row type that graph kernels share, and the kernels.

pub mod betweenness_centrality;
mod cancel_check;
mod cases;
pub mod connected_components;
pub mod csr;
mod degree;
pub mod degree_centrality;
pub mod degree_ratio;
pub mod density;
mod fields;
pub mod input;
mod node_ranges;
pub mod operand;
pub mod pagerank;
pub mod shortest_path;
mod spmv;
#[cfg(feature = "cuda")]
mod spmv_cuda;
pub mod star_topology;
