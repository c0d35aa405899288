//! `graph/cosine-similarity`: the cosine similarity of the neighbourhoods of two nodes.
//!
//! The score of nodes of degrees a and b with c common neighbours is `c / sqrt(a * b)`, the cosine of the angle between
//! their rows of the adjacency matrix, and 0 if a or b is 0. Salton and McGill, *Introduction to Modern Information
//! Retrieval* (1983), after which it is also called the Salton index.
//!
//! [`similarity`](super::similarity) has the fields, which all kernels on the similarity of nodes share, the time and
//! the errors.

use super::similarity::similarity_kernel;

similarity_kernel!(
    CosineSimilarity,
    CosineSimilarityInput,
    Cosine,
    "graph/cosine-similarity",
    "Cosine similarity of the neighbourhoods of pairs of nodes, or the nodes that are most similar to given ones."
);
