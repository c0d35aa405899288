//! The checks of arrays that a graph is built from.

use rayon::prelude::*;

use super::{CsrGraph, Direction, FREE_NODES, LARGE, MAX_NODES, NODES_PER_EDGE};
use crate::service::InvalidInput;

impl CsrGraph {
    /// Runs the checks of [`from_edges`](Self::from_edges) alone.
    ///
    /// # Errors
    /// As `from_edges`.
    pub fn check_edges(num_nodes: usize, edges: &[[u32; 2]]) -> Result<(), InvalidInput> {
        if num_nodes > MAX_NODES {
            return Err(InvalidInput::new("num_nodes", format!("{num_nodes}, and {MAX_NODES} is the most")));
        }
        let limit = FREE_NODES.max(edges.len().saturating_mul(NODES_PER_EDGE));
        if num_nodes > limit {
            let reason = format!("{num_nodes}, and {limit} is the most for {} edges", edges.len());
            return Err(InvalidInput::new("num_nodes", reason));
        }
        for (edge, ends) in edges.iter().enumerate() {
            for (end, &node) in ends.iter().enumerate() {
                if node as usize >= num_nodes {
                    let reason = format!("node {node}, and num_nodes is {num_nodes}");
                    return Err(InvalidInput::new(format!("edges[{edge}][{end}]"), reason));
                }
            }
        }
        Ok(())
    }

    /// Checks that there is a finite weight for each edge.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check_weights(weights: &[f32], num_edges: usize) -> Result<(), InvalidInput> {
        if weights.len() != num_edges {
            let reason = format!("{} values, and there are {num_edges} edges", weights.len());
            return Err(InvalidInput::new("weights", reason));
        }
        match weights.iter().position(|weight| !weight.is_finite()) {
            Some(index) => Err(InvalidInput::new(format!("weights[{index}]"), "a weight is a finite number")),
            None => Ok(()),
        }
    }

    /// Runs the checks of [`from_csr`](Self::from_csr) alone.
    ///
    /// # Errors
    /// As `from_csr`.
    pub fn check_csr(row_offsets: &[u32], column_indices: &[u32]) -> Result<(), InvalidInput> {
        Self::check_row_offsets(row_offsets, column_indices.len())?;
        Self::check_columns(row_offsets.len() - 1, column_indices)
    }

    pub(super) fn check_row_offsets(row_offsets: &[u32], num_columns: usize) -> Result<(), InvalidInput> {
        let (Some(&first), Some(&last)) = (row_offsets.first(), row_offsets.last()) else {
            return Err(InvalidInput::new("row_offsets", "empty, and num_nodes + 1 values are needed"));
        };
        let num_nodes = row_offsets.len() - 1;
        if num_nodes > MAX_NODES {
            return Err(InvalidInput::new("row_offsets", format!("{num_nodes} nodes, and {MAX_NODES} is the most")));
        }
        if first != 0 {
            return Err(InvalidInput::new("row_offsets[0]", format!("{first}, and 0 is where rows start")));
        }
        if let Some(row) = first_descent(row_offsets) {
            let reason = format!("{}, less than the {} before it", row_offsets[row + 1], row_offsets[row]);
            return Err(InvalidInput::new(format!("row_offsets[{}]", row + 1), reason));
        }
        if last as usize != num_columns {
            let reason = format!("{last}, and column_indices has {num_columns} values");
            return Err(InvalidInput::new(format!("row_offsets[{num_nodes}]"), reason));
        }
        Ok(())
    }

    pub(super) fn check_columns(num_nodes: usize, column_indices: &[u32]) -> Result<(), InvalidInput> {
        match first_not_below(num_nodes, column_indices) {
            Some(index) => {
                let reason = format!("node {}, and row_offsets describes {num_nodes} nodes", column_indices[index]);
                Err(InvalidInput::new(format!("column_indices[{index}]"), reason))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_arcs(field: &str, num_edges: usize, direction: Direction) -> Result<(), InvalidInput> {
        let arcs = match direction {
            Direction::Directed => Some(num_edges),
            Direction::Undirected => num_edges.checked_mul(2),
        };
        match arcs {
            Some(arcs) if arcs <= u32::MAX as usize => Ok(()),
            _ => Err(InvalidInput::new(field, format!("{num_edges} edges are more than 32-bit offsets can count"))),
        }
    }
}

/// Returns the index of the first value that is larger than the next.
fn first_descent(values: &[u32]) -> Option<usize> {
    let ascends = |pair: &[u32]| pair[0] <= pair[1];
    let all_ascend = if values.len() < LARGE {
        values.windows(2).all(ascends)
    } else {
        values.par_windows(2).with_min_len(LARGE / 4).all(ascends)
    };
    if all_ascend { None } else { values.windows(2).position(|pair| !ascends(pair)) }
}

/// Returns the index of the first node that is not below `num_nodes`.
fn first_not_below(num_nodes: usize, nodes: &[u32]) -> Option<usize> {
    // The maximum, unlike the first that is too high, is found by vector instructions.
    let are_below = |nodes: &[u32]| nodes.iter().max().is_none_or(|&highest| (highest as usize) < num_nodes);
    let all_below = if nodes.len() < LARGE { are_below(nodes) } else { nodes.par_chunks(LARGE / 4).all(are_below) };
    if all_below { None } else { nodes.iter().position(|&node| node as usize >= num_nodes) }
}
