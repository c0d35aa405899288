//! Graphs: the input and the compressed sparse row type that graph kernels share, and the kernels.

pub mod adamic_adar;
pub mod betweenness_centrality;
mod cancel_check;
mod canonical;
mod cases;
pub mod clustering_coefficient;
pub mod common_neighbors;
pub mod connected_components;
pub mod cosine_similarity;
pub mod csr;
mod degree;
pub mod degree_centrality;
pub mod degree_ratio;
pub mod density;
mod fields;
pub mod input;
mod intersect;
pub mod jaccard_similarity;
pub mod k_clique;
mod node_ranges;
pub mod operand;
pub mod oriented;
pub mod pagerank;
mod row_counter;
pub mod shortest_path;
pub mod similarity;
mod spmv;
#[cfg(feature = "cuda")]
mod spmv_cuda;
pub mod star_topology;
pub mod triangle_counting;
mod triangles;
