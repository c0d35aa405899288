//! The census of the connected triads of a directed graph.

use std::ops::Range;

use super::triangle_census::{COMBINATIONS, combination};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::degree::try_map_nodes;
use crate::kernels::graph::intersect::for_each_common;
use crate::kernels::graph::node_ranges::map_ranges;
use crate::kernels::graph::oriented::OrientedGraph;
use crate::service::{Buffer, KernelError, RunContext};

/// The number of classes.
pub(super) const CLASSES: usize = 13;

/// The arcs between two nodes with an edge, seen from the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Dyad {
    /// To the second.
    Outward = 0,
    /// From the second.
    Inward = 1,
    /// In both directions.
    Mutual = 2,
}

impl Dyad {
    /// The number of different ones.
    pub(super) const COUNT: usize = 3;
    const ALL: [Self; 3] = [Self::Outward, Self::Inward, Self::Mutual];

    /// The same arcs, seen from the second node.
    fn reversed(self) -> Self {
        match self {
            Self::Outward => Self::Inward,
            Self::Inward => Self::Outward,
            Self::Mutual => Self::Mutual,
        }
    }
}

/// The classes of connected triads, named by the numbers of mutual, single and absent dyads, in the order of the
/// output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Triad {
    T021D,
    T021U,
    T021C,
    T111D,
    T111U,
    T030T,
    T030C,
    T201,
    T120D,
    T120U,
    T120C,
    T210,
    T300,
}

impl Triad {
    /// The class of a node with these dyads to two others that have no arc between them.
    fn open(a: Dyad, b: Dyad) -> Self {
        use Dyad::{Inward, Mutual, Outward};
        match (a, b) {
            (Outward, Outward) => Self::T021D,
            (Inward, Inward) => Self::T021U,
            (Outward, Inward) | (Inward, Outward) => Self::T021C,
            (Mutual, Inward) | (Inward, Mutual) => Self::T111D,
            (Mutual, Outward) | (Outward, Mutual) => Self::T111U,
            (Mutual, Mutual) => Self::T201,
        }
    }

    /// The class of three nodes with these dyads: from the first to the second, from the first to the third, and from
    /// the second to the third.
    fn closed([ab, ac, bc]: [Dyad; 3]) -> Self {
        use Dyad::{Inward, Mutual, Outward};
        let corners = [(ab, ac, bc), (ab.reversed(), bc, ac), (ac.reversed(), bc.reversed(), ab)];
        match [ab, ac, bc].iter().filter(|&&dyad| dyad == Mutual).count() {
            3 => Self::T300,
            2 => Self::T210,
            1 => {
                // The corner opposite the mutual dyad.
                let opposite = corners.into_iter().find(|(_, _, other)| *other == Mutual);
                match opposite.map(|(a, b, _)| (a, b)) {
                    Some((Outward, Outward)) => Self::T120D,
                    Some((Inward, Inward)) => Self::T120U,
                    _ => Self::T120C,
                }
            }
            _ if corners.iter().any(|(a, b, _)| a == b) => Self::T030T,
            _ => Self::T030C,
        }
    }
}

/// Returns the dyad of each arc of the oriented form of a directed graph.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn dyads(
    graph: &CsrGraph,
    oriented: &OrientedGraph,
    context: &RunContext<'_>,
) -> Result<Vec<Dyad>, KernelError> {
    graph.make_predecessors(context)?;
    let of_range = |range: Range<u32>, cancel_check: &mut CancelCheck<'_>| {
        let mut dyads = Vec::new();
        for node in range {
            let [successors, predecessors] = [graph.successors().row(node), graph.predecessors().row(node)];
            let row = oriented.arcs().row(node);
            cancel_check.spend(row.len())?;
            let dyad = |other| match (successors.binary_search(other), predecessors.binary_search(other)) {
                (Ok(_), Ok(_)) => Dyad::Mutual,
                (Ok(_), Err(_)) => Dyad::Outward,
                (Err(_), _) => Dyad::Inward,
            };
            dyads.extend(row.iter().map(dyad));
        }
        Ok(dyads)
    };
    Ok(map_ranges(oriented.num_nodes(), context, of_range)?.concat())
}

/// Returns to how many nodes each node has arcs in both directions.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn mutual_degrees(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    graph.make_predecessors(context)?;
    try_map_nodes(graph.num_nodes(), context, |node, cancel_check| {
        let mut mutual = 0;
        for_each_common([graph.successors().row(node), graph.predecessors().row(node)], cancel_check, |_| mutual += 1)?;
        Ok(mutual)
    })
}

/// Returns the number of triads of each class, given the [mutual degrees](mutual_degrees) and the triangles by their
/// dyads.
///
/// # Errors
/// A count that 64 bits do not hold; those of [`RunContext::check`].
pub(super) fn census(
    graph: &CsrGraph,
    oriented: &OrientedGraph,
    mutual: &[u32],
    triangles: &[u64; COMBINATIONS],
    context: &RunContext<'_>,
) -> Result<Buffer<u64>, KernelError> {
    let mut counts = count_wedges(graph, oriented, mutual, context)?;
    for [ab, ac, bc] in all_combinations() {
        let found = u128::from(triangles[combination([ab, ac, bc])]);
        counts[Triad::closed([ab, ac, bc]) as usize] += found;
        // The three wedges of a triangle are closed.
        for (a, b) in [(ab, ac), (ab.reversed(), bc), (ac.reversed(), bc.reversed())] {
            counts[Triad::open(a, b) as usize] -= found;
        }
    }
    let too_many = |_| KernelError::kernel("a count of triads is above 2^64");
    let counts = counts.into_iter().map(|count| u64::try_from(count).map_err(too_many));
    Ok(counts.collect::<Result<Vec<_>, _>>()?.into())
}

fn all_combinations() -> impl Iterator<Item = [Dyad; 3]> {
    let pairs = Dyad::ALL.into_iter().flat_map(|a| Dyad::ALL.map(|b| (a, b)));
    pairs.flat_map(|(a, b)| Dyad::ALL.map(|c| [a, b, c]))
}

/// Counts the pairs of neighbours of each node, whether or not there is an arc between them.
fn count_wedges(
    graph: &CsrGraph,
    oriented: &OrientedGraph,
    mutual: &[u32],
    context: &RunContext<'_>,
) -> Result<[u128; CLASSES], KernelError> {
    let counts = map_ranges(graph.num_nodes(), context, |nodes, _| {
        let mut counts = [0; CLASSES];
        for node in nodes {
            let [degree, mutual] =
                [&oriented.degrees()[..], mutual].map(|of_nodes| u128::from(of_nodes[node as usize]));
            let successors = graph.successors().degree(node) as u128;
            add_wedges(&mut counts, [successors - mutual, degree - successors, mutual]);
        }
        Ok(counts)
    })?;
    let sum = |mut sums: [u128; CLASSES], counts: [u128; CLASSES]| {
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        sums
    };
    Ok(counts.into_iter().fold([0; CLASSES], sum))
}

/// Adds the pairs of neighbours of a node, given its numbers of outward, inward and mutual dyads.
fn add_wedges(counts: &mut [u128; CLASSES], [outward, inward, mutual]: [u128; Dyad::COUNT]) {
    use Dyad::{Inward, Mutual, Outward};
    let pairs = |count: u128| count * count.saturating_sub(1) / 2;
    for (a, b, found) in [
        (Outward, Outward, pairs(outward)),
        (Inward, Inward, pairs(inward)),
        (Mutual, Mutual, pairs(mutual)),
        (Outward, Inward, outward * inward),
        (Mutual, Outward, mutual * outward),
        (Mutual, Inward, mutual * inward),
    ] {
        counts[Triad::open(a, b) as usize] += found;
    }
}
