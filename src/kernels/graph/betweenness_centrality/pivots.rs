//! The sources that an estimate of betweenness starts from, and how its sums become scores.
//!
//! Exact betweenness adds up one traversal from each node. Brandes and Pich, *Centrality estimation in large networks*
//! (2007), start from a few nodes, the pivots, and scale up. The scaling is that of networkx 3.6
//! (`betweenness_centrality(G, k)`, `endpoints=False`): a pivot has one traversal fewer than the other nodes, because
//! its own contributes nothing to its score.

use rayon::prelude::*;

use crate::kernels::graph::csr::Direction;
use crate::kernels::graph::sources::{check_distinct, draw};
use crate::service::InvalidInput;

/// The nodes that traversals start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pivots {
    /// `None` for all nodes.
    chosen: Option<Vec<u32>>,
    num_nodes: usize,
}

impl Pivots {
    /// Every node: scores are exact.
    pub fn all(num_nodes: usize) -> Self {
        Self { chosen: None, num_nodes }
    }

    /// The given nodes, as if networkx had drawn them. Naming every node is [`all`](Self::all).
    ///
    /// # Errors
    /// No node, a node that is not below `num_nodes`, a node named twice, or a single one in a graph of three or more.
    pub fn chosen(sources: Vec<u32>, num_nodes: usize) -> Result<Self, InvalidInput> {
        check_distinct("sources", &sources, num_nodes)?;
        Self::distinct("sources", sources, num_nodes)
    }

    /// `samples` nodes drawn without replacement, the same for the same `seed` and sizes. The draw is not networkx's,
    /// so its pivots differ from those that networkx takes for the same seed.
    ///
    /// # Errors
    /// No sample, more than `num_nodes`, or a single one in a graph of three or more nodes.
    pub fn sampled(samples: usize, seed: u64, num_nodes: usize) -> Result<Self, InvalidInput> {
        if samples == 0 {
            return Err(InvalidInput::new("samples", "0, and at least 2 are needed"));
        }
        if samples > num_nodes {
            return Err(InvalidInput::new("samples", format!("{samples}, and num_nodes is {num_nodes}")));
        }
        Self::distinct("samples", draw(samples, seed, num_nodes), num_nodes)
    }

    fn distinct(field: &str, nodes: Vec<u32>, num_nodes: usize) -> Result<Self, InvalidInput> {
        if nodes.len() == num_nodes {
            return Ok(Self::all(num_nodes));
        }
        if nodes.len() == 1 && num_nodes > 2 {
            // networkx gives 0/0 = NaN for the pivot itself.
            return Err(InvalidInput::new(
                field,
                "one source contributes nothing to its own score; two or more are needed",
            ));
        }
        Ok(Self { chosen: Some(nodes), num_nodes })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.num_nodes, Vec::len)
    }

    /// Whether there are none: only where the graph has no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pivot at `index`, which is below [`len`](Self::len).
    pub fn node(&self, index: usize) -> u32 {
        match &self.chosen {
            Some(nodes) => nodes[index],
            None => index as u32,
        }
    }

    /// Turns sums of pair dependencies over these sources into scores, as `_rescale` of networkx 3.6 does.
    ///
    /// With `normalized`, a score is the fraction of node pairs whose shortest paths pass through the node. Without,
    /// it counts pairs, each unordered pair once in an undirected graph.
    pub fn rescale(&self, sums: &mut [f64], normalized: bool, direction: Direction) {
        // n - 1 nodes can be an end of a path through a given node; with fewer than two there is no such path.
        let ends = self.num_nodes.saturating_sub(1) as f64;
        if ends < 2.0 {
            return;
        }
        let scale = |traversals: f64| match (normalized, direction) {
            (true, _) => 1.0 / (traversals * (ends - 1.0)),
            (false, Direction::Undirected) => ends / (traversals * 2.0),
            (false, Direction::Directed) => ends / traversals,
        };
        match &self.chosen {
            None => multiply(sums, scale(ends)),
            Some(nodes) => {
                let traversals = nodes.len() as f64;
                let (of_pivot, of_other) = (scale(traversals - 1.0), scale(traversals));
                let own: Vec<f64> = nodes.iter().map(|&node| sums[node as usize] * of_pivot).collect();
                multiply(sums, of_other);
                for (&node, score) in nodes.iter().zip(own) {
                    sums[node as usize] = score;
                }
            }
        }
    }
}

/// Multiplies each number by `factor`, on several threads where there are many: the sums of a large graph have just come
/// from the device, and a single thread takes a millisecond for each million.
fn multiply(numbers: &mut [f64], factor: f64) {
    numbers.par_chunks_mut(1 << 16).for_each(|chunk| chunk.iter_mut().for_each(|number| *number *= factor));
}
