//! Graphs: the input and the compressed sparse row type that graph kernels share, and centrality.

pub mod betweenness_centrality;
mod cancel_check;
mod canonical;
pub mod csr;
pub mod input;
pub mod operand;
