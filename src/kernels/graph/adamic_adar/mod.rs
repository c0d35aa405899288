//! `graph/adamic-adar`, also `graph/adamic-adar-index`: the common neighbours of two nodes, of which those of low
//! degree count more.
//!
//! The score of two nodes is the sum of `1 / ln(degree)` over their common neighbours: `adamic_adar_index` of networkx
//! 3.6. The sum is exact for weights that are rounded to `f64`, whatever their order, and rounded once. Adamic and Adar,
//! *Friends and neighbors on the Web* (2003).
//!
//! [`similarity`](super::similarity) has the fields, which all kernels on the similarity of nodes share, the time and
//! the errors.

use super::similarity::similarity_kernel;

similarity_kernel!(
    AdamicAdar,
    AdamicAdarInput,
    AdamicAdar,
    "graph/adamic-adar",
    alias "graph/adamic-adar-index",
    "Adamic-Adar index of pairs of nodes, or the nodes that have the highest with given ones."
);
