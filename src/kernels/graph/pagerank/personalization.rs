//! The weights of nodes to which PageRank's random walk returns.

use super::PageRankInput;
use crate::service::InvalidInput;

/// The weights of one score vector, which add up to 1.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weights<'a> {
    /// All nodes have the same weight.
    Uniform,
    /// One node has all the weight.
    Node(u32),
    /// These, divided by their sum.
    Dense { weights: &'a [f64], sum: f64 },
}

impl Weights<'_> {
    /// Returns the weight of a node, of `num_nodes`.
    pub(super) fn of(self, node: usize, num_nodes: usize) -> f64 {
        match self {
            Self::Uniform => 1.0 / num_nodes as f64,
            Self::Node(only) => f64::from(u8::from(node == only as usize)),
            Self::Dense { weights, sum } => weights[node] / sum,
        }
    }
}

impl PageRankInput {
    /// Returns the weights of each score vector, for a graph of `num_nodes` nodes.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(super) fn weights(&self, num_nodes: usize) -> Result<Vec<Weights<'_>>, InvalidInput> {
        match (&self.personalization, &self.seed_nodes) {
            (Some(_), Some(_)) => {
                Err(InvalidInput::new("seed_nodes", "there is a personalization already; give one of the two"))
            }
            (Some(rows), None) if rows.is_empty() => Err(InvalidInput::new("personalization", "empty")),
            (Some(rows), None) => {
                rows.iter().enumerate().map(|(row, weights)| dense(row, weights, num_nodes)).collect()
            }
            (None, Some(nodes)) if nodes.is_empty() => Err(InvalidInput::new("seed_nodes", "empty")),
            (None, Some(nodes)) => {
                if let Some(index) = nodes.iter().position(|&node| node as usize >= num_nodes) {
                    let reason = format!("node {}, and num_nodes is {num_nodes}", nodes[index]);
                    return Err(InvalidInput::new(format!("seed_nodes[{index}]"), reason));
                }
                Ok(nodes.iter().map(|&node| Weights::Node(node)).collect())
            }
            (None, None) => Ok(vec![Weights::Uniform]),
        }
    }
}

fn dense(row: usize, weights: &[f64], num_nodes: usize) -> Result<Weights<'_>, InvalidInput> {
    let at = |reason| InvalidInput::new(format!("personalization[{row}]"), reason);
    if weights.len() != num_nodes {
        return Err(at(format!("{} weights, and num_nodes is {num_nodes}", weights.len())));
    }
    if let Some(node) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        let reason = format!("{}, and a weight is finite and not negative", weights[node]);
        return Err(InvalidInput::new(format!("personalization[{row}][{node}]"), reason));
    }
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 && sum.is_finite() {
        Ok(Weights::Dense { weights, sum })
    } else {
        Err(at(format!("the weights add up to {sum}, and a positive number is needed")))
    }
}
