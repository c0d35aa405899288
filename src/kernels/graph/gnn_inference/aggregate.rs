//! The aggregation of a node's neighbours on the CPU.

use pulp::Arch;

use super::Aggregation;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::degree::map_nodes;
use crate::service::{KernelError, RunContext};

/// Numbers of a row that take as long as the visit of an arc.
const NUMBERS_PER_UNIT: usize = 32;

/// Combines the rows of the predecessors of nodes.
pub(super) struct Aggregator<'a> {
    graph: &'a CsrGraph,
    aggregation: Aggregation,
    has_self_loops: bool,
    /// 1 / sqrt(number of neighbours) of each node, 0 without neighbours; empty unless the aggregation is `gcn`.
    inverse_roots: Vec<f32>,
    arch: Arch,
}

impl<'a> Aggregator<'a> {
    pub(super) fn new(
        graph: &'a CsrGraph,
        aggregation: Aggregation,
        has_self_loops: bool,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let predecessors = graph.predecessors();
        let inverse_root = |node: u32| match predecessors.degree(node) + usize::from(has_self_loops) {
            0 => 0.0,
            degree => 1.0 / (degree as f32).sqrt(),
        };
        let inverse_roots = match aggregation {
            Aggregation::Gcn => map_nodes(graph.num_nodes(), context, inverse_root)?,
            _ => Vec::new(),
        };
        Ok(Self { graph, aggregation, has_self_loops, inverse_roots, arch: Arch::new() })
    }

    /// Writes the combination of the rows of a node's neighbours to `out`, which is as wide as a row of `rows`.
    pub(super) fn aggregate(
        &self,
        node: usize,
        rows: &[f32],
        out: &mut [f32],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let predecessors = self.graph.predecessors().row(node as u32);
        let own = self.has_self_loops.then_some(node as u32);
        let (neighbours, count) = (predecessors.iter().chain(&own), predecessors.len() + usize::from(own.is_some()));
        let width = out.len();
        let units = width.div_ceil(NUMBERS_PER_UNIT);
        let is_max = self.aggregation == Aggregation::Max && count > 0;
        out.fill(if is_max { f32::NEG_INFINITY } else { 0.0 });
        for &neighbour in neighbours {
            cancel_check.spend(units)?;
            let row = &rows[neighbour as usize * width..][..width];
            let weight = self.inverse_roots.get(neighbour as usize).copied();
            self.arch.dispatch(
                #[inline(always)]
                || match weight {
                    _ if is_max => out.iter_mut().zip(row).for_each(|(most, &number)| *most = larger(*most, number)),
                    None => out.iter_mut().zip(row).for_each(|(sum, number)| *sum += number),
                    Some(weight) => out.iter_mut().zip(row).for_each(|(sum, number)| *sum += weight * number),
                },
            );
        }
        let scale = match self.aggregation {
            Aggregation::Sum | Aggregation::Max => return Ok(()),
            Aggregation::Mean => 1.0 / count.max(1) as f32,
            Aggregation::Gcn => self.inverse_roots[node],
        };
        out.iter_mut().for_each(|number| *number *= scale);
        Ok(())
    }
}

/// The larger of two numbers; NaN is larger than any other.
fn larger(most: f32, number: f32) -> f32 {
    if number > most || number.is_nan() { number } else { most }
}
