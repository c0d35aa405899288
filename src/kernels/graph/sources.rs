//! The nodes that searches start from: all, some that the input names, or a sample.

use std::borrow::Cow;
use std::collections::HashSet;

use super::input::to_usize;
use crate::random::SplitMix64;
use crate::service::InvalidInput;

/// The fields of a kernel's input that choose sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourcesInput<'a> {
    /// Nodes by name.
    pub(super) sources: Option<&'a [u32]>,
    /// The number of nodes to draw.
    pub(super) samples: Option<u64>,
    /// What the draw depends on.
    pub(super) seed: Option<u64>,
}

impl<'a> SourcesInput<'a> {
    /// Checks the fields.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(super) fn validate(&self, num_nodes: usize) -> Result<(), InvalidInput> {
        if self.seed.is_some() && self.samples.is_none() {
            return Err(InvalidInput::new("seed", "there are no samples to draw"));
        }
        match (self.sources, self.samples) {
            (Some(_), Some(_)) => Err(InvalidInput::new("samples", "there are sources already; give one of the two")),
            (Some(sources), None) => check_distinct("sources", sources, num_nodes),
            (None, Some(0)) => Err(InvalidInput::new("samples", "0, and at least 1 is needed")),
            (None, Some(samples)) if to_usize(samples) > num_nodes => {
                Err(InvalidInput::new("samples", format!("{samples}, and num_nodes is {num_nodes}")))
            }
            (None, _) => Ok(()),
        }
    }

    /// Returns the number of sources that the input claims to have, before it is checked.
    pub(super) fn claimed(&self, num_nodes: u64) -> u64 {
        self.sources.map(|sources| sources.len() as u64).or(self.samples).unwrap_or(num_nodes)
    }

    /// Returns the host memory of [`choose`](Self::choose): the nodes, and the set of those that were drawn.
    pub(super) fn memory(&self, num_nodes: u64) -> u64 {
        if self.sources.is_some() {
            0
        } else {
            self.claimed(num_nodes).saturating_mul(if self.samples.is_some() { 32 } else { 4 })
        }
    }

    /// Returns the sources of a valid input.
    pub(super) fn choose(&self, num_nodes: usize) -> Cow<'a, [u32]> {
        match (self.sources, self.samples) {
            (Some(sources), _) => Cow::Borrowed(sources),
            (None, Some(samples)) => Cow::Owned(draw(to_usize(samples), self.seed.unwrap_or(0), num_nodes)),
            (None, None) => Cow::Owned((0..num_nodes as u32).collect()),
        }
    }
}

/// Checks that a field has nodes of the graph, at least one, and none twice.
///
/// # Errors
/// The first that is wrong.
pub(super) fn check_distinct(field: &str, nodes: &[u32], num_nodes: usize) -> Result<(), InvalidInput> {
    if nodes.is_empty() {
        return Err(InvalidInput::new(field, "empty"));
    }
    if let Some(index) = nodes.iter().position(|&node| node as usize >= num_nodes) {
        let reason = format!("node {}, and num_nodes is {num_nodes}", nodes[index]);
        return Err(InvalidInput::new(format!("{field}[{index}]"), reason));
    }
    let mut sorted: Vec<(u32, usize)> = nodes.iter().copied().zip(0..).collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let [(node, first), (_, second)] = [pair[0], pair[1]];
        let reason = format!("node {node}, which {field}[{first}] is already");
        return Err(InvalidInput::new(format!("{field}[{second}]"), reason));
    }
    Ok(())
}

/// Draws nodes without replacement, at most `num_nodes`, the same for the same `seed` and sizes.
pub(super) fn draw(samples: usize, seed: u64, num_nodes: usize) -> Vec<u32> {
    // Floyd's algorithm (Bentley and Floyd, 1987): memory by the sample, not by the graph.
    let random = SplitMix64::new(seed);
    let mut seen = HashSet::with_capacity(samples);
    let draw = |last: usize| {
        let node = random.up_to(last as u64) as u32;
        if seen.insert(node) {
            node
        } else {
            seen.insert(last as u32);
            last as u32
        }
    };
    (num_nodes - samples..num_nodes).map(draw).collect()
}
