//! [`ArcUnits`]: the weights of arcs as integers.

use super::csr::{Adjacency, CsrGraph};

/// The weights of arcs as multiples of a unit, so that their sums are exact and do not depend on the order of the additions.
///
/// Without weights each arc is one unit. Otherwise the unit is a power of two, chosen so that all arcs together are between
/// 2^61 and 2^62 units, and weights are rounded to it: a weight is changed only if it is below 2^-38 of the sum of all.
/// Device code has the same rounding.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArcUnits<'a> {
    weights: Option<&'a [f32]>,
    /// The units of a weight of 1.
    scale: f64,
}

impl<'a> ArcUnits<'a> {
    /// Returns the units of a graph's [successors](CsrGraph::successors): those of their weights, which are not negative, if
    /// the graph has weights and `use_weights` is set.
    pub(super) fn new(graph: &'a CsrGraph, use_weights: bool) -> Self {
        let weights = graph.successors().weights().filter(|_| use_weights);
        Self { weights, scale: weights.map_or(1.0, |_| scale(graph.total_weight())) }
    }

    /// Returns the units of the same arcs the other way round.
    pub(super) fn of_predecessors(self, predecessors: &'a Adjacency) -> Self {
        Self { weights: self.weights.and(predecessors.weights()), ..self }
    }

    /// Returns the weights, if they are used, and the units of a weight of 1.
    pub(super) fn weights(self) -> Option<(&'a [f32], f64)> {
        self.weights.map(|weights| (weights, self.scale))
    }

    /// Returns the units of an arc, by its index among those of all nodes.
    #[inline]
    pub(super) fn get(self, arc: usize) -> u64 {
        self.weights.map_or(1, |weights| (f64::from(weights[arc]) * self.scale).round_ties_even() as u64)
    }
}

/// Returns the power of two by which a total weight is multiplied to be at least 2^61 and below 2^62; 1 without a weight.
fn scale(total_weight: f64) -> f64 {
    const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
    /// What the bits of the exponent are more than the exponent.
    const BIAS: u64 = 1023;
    if total_weight == 0.0 {
        return 1.0;
    }
    // A sum of `f32` numbers that are not negative is no subnormal `f64` number, and below 2^160.
    let exponent_bits = total_weight.to_bits() >> MANTISSA_BITS;
    f64::from_bits((2 * BIAS + 61 - exponent_bits) << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::Direction;

    fn units(weights: &[f32]) -> Vec<u64> {
        let edges: Vec<[u32; 2]> = (1..=weights.len() as u32).map(|node| [0, node]).collect();
        let graph = CsrGraph::from_weighted_edges(weights.len() + 1, &edges, weights, Direction::Directed).unwrap();
        let units = ArcUnits::new(&graph, true);
        (0..weights.len()).map(|arc| units.get(arc)).collect()
    }

    #[test]
    fn all_arcs_are_about_2_to_the_62_units() {
        for weights in [&[1.0][..], &[0.1, 0.2, 7.5], &[f32::MAX; 9], &[f32::from_bits(1); 3], &[1e-30, 3e38]] {
            let total: u64 = units(weights).iter().sum();
            assert!((1 << 61..=1 << 62).contains(&total), "{weights:?}: {total}");
        }
        assert_eq!(units(&[0.0, 0.0]), [0, 0]);
    }

    #[test]
    fn weights_keep_their_ratios() {
        let ratio = |weights: &[f32]| units(weights).iter().map(|&units| units as f64).collect::<Vec<_>>();
        let of_tenths = ratio(&[0.1, 0.3]);
        assert_eq!(of_tenths[1] / of_tenths[0], f64::from(0.3_f32) / f64::from(0.1_f32));
        assert_eq!(units(&[2.0, 1.0]), [2 * units(&[2.0, 1.0])[1], 1 << 60]);
    }

    #[test]
    fn without_weights_an_arc_is_one_unit() {
        let graph = CsrGraph::from_weighted_edges(2, &[[0, 1]], &[5.0], Direction::Undirected).unwrap();
        let units = ArcUnits::new(&graph, false);
        assert_eq!((units.get(0), units.get(1)), (1, 1));
    }
}
