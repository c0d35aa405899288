//! What layers of neural networks on graphs have in common: dense products, activation functions, and checks.

pub mod activation;
pub(super) mod dense;
pub(super) mod rows;
#[cfg(feature = "cuda")]
pub(super) mod rows_cuda;

use super::input::GraphInput;
use crate::service::{Footprint, InvalidInput};

/// The most numbers of a node before or after a layer.
pub const MAX_WIDTH: u32 = 1 << 14;

/// Returns the host memory of a row of `width` numbers for each node of a graph.
pub(super) fn rows_memory(graph: &GraphInput<'_>, width: u64) -> u64 {
    let (nodes, _) = graph.claimed_size();
    Footprint::of_array::<f32>(nodes.saturating_mul(width))
}

/// Returns the host memory of a run besides its output: the graph, what the threads hold, and these arrays.
pub(super) fn scratch(graph: &GraphInput<'_>, arrays: impl IntoIterator<Item = u64>) -> u64 {
    let of_graph = graph.load_memory().saturating_add(graph.predecessors_memory());
    arrays.into_iter().fold(of_graph.saturating_add(4 << 20), u64::saturating_add)
}

/// Checks the length of an array that is a matrix, row after row.
pub(super) fn check_matrix(field: &str, len: usize, rows: usize, columns: usize) -> Result<(), InvalidInput> {
    let expected = rows.checked_mul(columns);
    if expected == Some(len) {
        return Ok(());
    }
    let reason = format!("{len} numbers, and {rows} rows of {columns} are needed");
    Err(InvalidInput::new(field, reason))
}

/// Checks a slope for negative numbers, which is from 0 to 1.
pub(super) fn check_slope(field: &str, slope: f64) -> Result<(), InvalidInput> {
    if (0.0..=1.0).contains(&slope) {
        return Ok(());
    }
    Err(InvalidInput::new(field, format!("{slope}, and it is from 0 to 1")))
}

/// Checks the number of a node's numbers before or after a layer.
pub(super) fn check_width(field: &str, width: u32) -> Result<(), InvalidInput> {
    if (1..=MAX_WIDTH).contains(&width) {
        return Ok(());
    }
    Err(InvalidInput::new(field, format!("{width}, and it is from 1 to {MAX_WIDTH}")))
}
