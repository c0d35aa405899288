//! `graph/jaccard-similarity`: the Jaccard similarity of the neighbourhoods of two nodes.
//!
//! The score of nodes with the neighbours A and B is the size of their intersection divided by that of their union, and
//! 0 if both are empty: `jaccard_coefficient` of networkx 3.6. Liben-Nowell and Kleinberg, *The link-prediction problem
//! for social networks* (2007).
//!
//! [`similarity`](super::similarity) has the fields, which all kernels on the similarity of nodes share, the time and
//! the errors.

use super::similarity::similarity_kernel;

similarity_kernel!(
    JaccardSimilarity,
    JaccardSimilarityInput,
    Jaccard,
    "graph/jaccard-similarity",
    "Jaccard similarity of the neighbourhoods of pairs of nodes, or the nodes that are most similar to given ones."
);
