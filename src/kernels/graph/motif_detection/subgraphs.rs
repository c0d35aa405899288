//! The counts that follow from triangles, cycles, cliques and degrees.

use std::iter::Sum;

use crate::kernels::graph::node_ranges::map_ranges;
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{KernelError, RunContext};

/// How often each graph of three or four nodes is a part of the graph, whether or not its nodes have further edges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subgraphs {
    pub(super) paths_3: u128,
    pub(super) triangles: u128,
    pub(super) paths_4: u128,
    pub(super) stars: u128,
    pub(super) cycles: u128,
    pub(super) tailed_triangles: u128,
    pub(super) diamonds: u128,
    pub(super) cliques: u128,
}

/// Sums over the nodes, and over the arcs of the oriented graph.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    paths_3: u128,
    stars: u128,
    /// Triangles, at each of their edges.
    triangles: u128,
    /// Edges that touch a triangle, at each of its edges at their common node: twice the tailed triangles.
    tails: u128,
    /// Paths with the edge in the middle, of which the ends may be the same node.
    middles: u128,
    diamonds: u128,
}

impl Sums {
    /// Returns the sums at a node and its arcs, which have these numbers of triangles.
    fn at(node: u32, oriented: &OrientedGraph, triangles: &[u32]) -> Self {
        let degree = |node: u32| u128::from(oriented.degrees()[node as usize]);
        let own = degree(node);
        let pairs = own * own.saturating_sub(1) / 2;
        let mut sums = Self { paths_3: pairs, stars: pairs * own.saturating_sub(2) / 3, ..Self::default() };
        for (&other, &count) in oriented.arcs().row(node).iter().zip(triangles) {
            let (count, other) = (u128::from(count), degree(other));
            sums.triangles += count;
            // Where there is a triangle, both degrees are two or more.
            sums.tails += count * (own + other).saturating_sub(4);
            sums.middles += (own - 1) * (other - 1);
            sums.diamonds += count * count.saturating_sub(1) / 2;
        }
        sums
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            paths_3: a.paths_3 + b.paths_3,
            stars: a.stars + b.stars,
            triangles: a.triangles + b.triangles,
            tails: a.tails + b.tails,
            middles: a.middles + b.middles,
            diamonds: a.diamonds + b.diamonds,
        })
    }
}

impl Subgraphs {
    /// Returns the counts, given the triangles of each arc, and the cycles and cliques of four nodes.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(
        oriented: &OrientedGraph,
        triangles: &[u32],
        cycles: u128,
        cliques: u128,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let offsets = oriented.arcs().row_offsets();
        let sums = map_ranges(oriented.num_nodes(), context, |nodes, cancel_check| {
            let mut sums = Vec::with_capacity(nodes.len());
            for node in nodes {
                let row = offsets[node as usize] as usize..offsets[node as usize + 1] as usize;
                cancel_check.spend(1 + row.len())?;
                sums.push(Sums::at(node, oriented, &triangles[row]));
            }
            Ok(sums.into_iter().sum::<Sums>())
        })?;
        let Sums { paths_3, stars, triangles, tails, middles, diamonds } = sums.into_iter().sum();
        let triangles = triangles / 3;
        let (paths_4, tailed_triangles) = (middles - 3 * triangles, tails / 2);
        Ok(Self { paths_3, triangles, paths_4, stars, cycles, tailed_triangles, diamonds, cliques })
    }

    /// Returns how often each graph is all that there is between its nodes: less the times that it is a part of one
    /// with more edges.
    pub(super) fn induced(self) -> Self {
        let cliques = self.cliques;
        let diamonds = self.diamonds - 6 * cliques;
        let cycles = self.cycles - diamonds - 3 * cliques;
        let tailed_triangles = self.tailed_triangles - 4 * diamonds - 12 * cliques;
        let stars = self.stars - tailed_triangles - 2 * diamonds - 4 * cliques;
        let paths_4 = self.paths_4 - 2 * tailed_triangles - 4 * cycles - 6 * diamonds - 12 * cliques;
        let paths_3 = self.paths_3 - 3 * self.triangles;
        Self { paths_3, triangles: self.triangles, paths_4, stars, cycles, tailed_triangles, diamonds, cliques }
    }
}
