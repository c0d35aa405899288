//! `graph/common-neighbors`: the number of common neighbours of two nodes.
//!
//! The score of two nodes is how many nodes are neighbours of both: the length of `common_neighbors` of networkx 3.6.
//! Newman, *Clustering and preferential attachment in growing networks* (2001).
//!
//! [`similarity`](super::similarity) has the fields, which all kernels on the similarity of nodes share, the time and
//! the errors.

use super::similarity::similarity_kernel;

similarity_kernel!(
    CommonNeighbors,
    CommonNeighborsInput,
    CommonNeighbors,
    "graph/common-neighbors",
    "Number of common neighbours of pairs of nodes, or the nodes that have most with given ones."
);
