//! Graphs: the input and the compressed sparse row type that graph kernels share, and the kernels.

pub mod betweenness_centrality;
mod cancel_check;
pub mod csr;
mod fields;
pub mod input;
pub mod operand;
