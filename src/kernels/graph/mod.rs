//! Graphs: a compressed sparse row type, and centrality on it.

pub mod betweenness_centrality;
pub mod brandes;
pub mod csr;
mod edges;
mod lanes;
pub mod pivots;
mod traversal;
