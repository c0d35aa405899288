//! `graph/value-similarity`: pairs of nodes with similar distributions of values.
//!
//! | field | type | |
//! |---|---|---|
//! | `distributions` | `f32` or `f64`, `[num_distributions * bins]` | the histogram of each node, one after the other |
//! | `num_distributions` | `u32`, at least 1 | how many histograms there are |
//! | `metric` | `"jsd"` or `"wasserstein"`, default jsd | the distance of two distributions |
//! | `bin_edges` | `f64`, `[bins + 1]`, ascending | where bins begin and end, for wasserstein; 0, 1, 2, ... if missing |
//! | `pairs` | `u32`, `[k, 2]` | pairs of nodes to compare; all pairs are searched if missing |
//! | `min_similarity` | `f64`, default 0, from 0 to 1 | of all pairs, leave out less similar ones |
//! | `max_pairs` | `u32`, default 1000, from 1 to 2^20 | of all pairs, return this many of the most similar ones |
//! | out: `node_a`, `node_b` | `u32`, `[k]` | the two nodes of each pair |
//! | out: `similarities` | `f64`, `[k]` | of each pair, from 0 to 1 |
//! | out: `distances` | `f64`, `[k]` | of each pair; in the unit of `bin_edges` for wasserstein |
//! | out: `matching_pairs` | `u64` | pairs with at least `min_similarity`; the given ones with `pairs` |
//!
//! Histograms are divided by their sum. Given pairs come in their order, in which a node is `node_a` of a pair if it was
//! its first. Of all pairs, the most similar come first; those of equal distance in the order of `node_a` and then
//! `node_b`, where `node_a` is less than `node_b`.
//!
//! - `jsd` is the Jensen-Shannon distance with logarithms of base 2, the square root of the divergence, from 0 to 1. The
//!   similarity is `1 - distance`.
//! - `wasserstein` is the 1-Wasserstein distance, the least mean way over which the values of one distribution have to be
//!   moved to make the other, where the values of a bin are at its middle. The similarity is `1 / (1 + distance)`.
//!
//! They are `scipy.spatial.distance.jensenshannon` with `base=2`, and `scipy.stats.wasserstein_distance` of the middles
//! with the histograms as weights. Lin, *Divergence measures based on the Shannon entropy* (1991); Endres and Schindelin,
//! *A new metric for probability distributions* (2003); Vallender, *Calculation of the Wasserstein distance between
//! probability distributions on the line* (1974).
//!
//! A pair takes time linear in the bins, and all arithmetic is in `f64`. The divergence is a sum of terms that are not
//! negative, and those of nearly equal bins are computed from their difference, so that also the distances of nearly
//! equal distributions have a small relative error. On CUDA, tiles of all pairs are compared, and only those that may be
//! among the first are stored. Given pairs are compared on the CPU, which is done with them before their distributions
//! would be on a device.
//!
//! # Errors
//! A histogram with a number that is negative or not finite, or with a sum of 0; lengths that do not fit; edges that are
//! not finite or do not ascend, or edges for `jsd`; a node that does not exist; a bound out of its range. The error names
//! the field.

mod all_pairs;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod distance;
mod rows;
mod selection;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::rows::Rows;
use self::selection::Candidate;
use super::similarity::node_pairs;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, FloatArray, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext, serialize_pairs,
};

/// The most pairs that a request may ask for.
pub const MAX_PAIRS: u32 = 1 << 20;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ValueSimilarity;

/// The distance of two distributions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The Jensen-Shannon distance, with logarithms of base 2.
    #[default]
    Jsd,
    /// The 1-Wasserstein distance.
    Wasserstein,
}

/// The input of `graph/value-similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "distributions": [4, 2, 1, 4, 2, 2, 0, 1, 5], "num_distributions": 3, "max_pairs": 3 },
    { "distributions": [4, 2, 1, 4, 2, 2, 0, 1, 5], "num_distributions": 3, "metric": "wasserstein",
      "bin_edges": [0, 10, 20, 50], "pairs": [[0, 1], [2, 0]] },
]))]
pub struct ValueSimilarityInput {
    /// The histogram of each node, one after the other.
    pub distributions: FloatArray,
    /// How many histograms there are.
    pub num_distributions: u32,
    /// The distance of two distributions.
    #[serde(default)]
    pub metric: Metric,
    /// Where each bin begins and the last ends, for the Wasserstein distance.
    #[serde(default)]
    pub bin_edges: Option<Buffer<f64>>,
    /// Pairs of nodes to compare. All pairs are searched if there are none.
    #[serde(default, serialize_with = "serialize_pairs", deserialize_with = "node_pairs")]
    #[schemars(with = "Option<Vec<[u32; 2]>>")]
    pub pairs: Option<Vec<[u32; 2]>>,
    /// Of all pairs, those that are less similar are left out.
    #[serde(default)]
    pub min_similarity: f64,
    /// Of all pairs, this many of the most similar ones are returned.
    #[serde(default = "usual_max_pairs")]
    pub max_pairs: u32,
}

fn usual_max_pairs() -> u32 {
    1000
}

/// The output of `graph/value-similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ValueSimilarityOutput {
    /// The first node of each pair.
    pub node_a: Buffer<u32>,
    /// The second node of each pair.
    pub node_b: Buffer<u32>,
    /// The similarity of each pair, from 0 to 1.
    pub similarities: Buffer<f64>,
    /// The distance of each pair.
    pub distances: Buffer<f64>,
    /// How many pairs have at least the least similarity.
    pub matching_pairs: u64,
}

impl ValueSimilarityInput {
    /// Creates the input for all pairs of these histograms, with the defaults of the other fields.
    pub fn new(distributions: impl Into<FloatArray>, num_distributions: u32) -> Self {
        Self {
            distributions: distributions.into(),
            num_distributions,
            metric: Metric::Jsd,
            bin_edges: None,
            pairs: None,
            min_similarity: 0.0,
            max_pairs: usual_max_pairs(),
        }
    }

    /// The length of a histogram, as the input claims.
    fn num_bins(&self) -> usize {
        self.distributions.array_len().unwrap_or(0) / (self.num_distributions as usize).max(1)
    }

    /// The pairs that are compared, and the most that are returned.
    fn claimed_pairs(&self) -> (u64, u64) {
        let nodes = u64::from(self.num_distributions).min(self.distributions.array_len().unwrap_or(0) as u64);
        match &self.pairs {
            Some(pairs) => (pairs.len() as u64, pairs.len() as u64),
            None => {
                let all = nodes * nodes.saturating_sub(1) / 2;
                (all, all.min(self.max_pairs.into()))
            }
        }
    }

    /// What a pair has to be to be returned, when all pairs are searched.
    fn wanted(&self) -> all_pairs::Wanted {
        all_pairs::Wanted { min_similarity: self.min_similarity, max_pairs: self.max_pairs as usize }
    }

    fn check_pairs(&self) -> Result<(), InvalidInput> {
        let nodes = self.num_distributions;
        for (index, pair) in self.pairs.iter().flatten().enumerate() {
            if let Some(end) = pair.iter().position(|&node| node >= nodes) {
                let reason = format!("node {}, and num_distributions is {nodes}", pair[end]);
                return Err(InvalidInput::new(format!("pairs[{index}][{end}]"), reason));
            }
        }
        Ok(())
    }

    fn output(&self, pairs: &[Candidate], matching_pairs: u64) -> ValueSimilarityOutput {
        ValueSimilarityOutput {
            node_a: pairs.iter().map(|pair| pair.nodes[0]).collect(),
            node_b: pairs.iter().map(|pair| pair.nodes[1]).collect(),
            similarities: pairs.iter().map(|pair| self.metric.similarity(pair.distance)).collect(),
            distances: pairs.iter().map(|pair| pair.distance).collect(),
            matching_pairs,
        }
    }
}

impl Kernel for ValueSimilarity {
    type Input = ValueSimilarityInput;
    type Output = ValueSimilarityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Pairs of nodes with similar distributions of values, by the Jensen-Shannon or the \
                           Wasserstein distance.";
        KernelInfo::new("graph/value-similarity", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ValueSimilarityInput) -> Result<(), InvalidInput> {
        rows::validate(input)?;
        input.check_pairs()?;
        if !(0.0..=1.0).contains(&input.min_similarity) {
            let reason = format!("{}, and it is from 0 to 1", input.min_similarity);
            return Err(InvalidInput::new("min_similarity", reason));
        }
        if !(1..=MAX_PAIRS).contains(&input.max_pairs) {
            return Err(InvalidInput::new(
                "max_pairs",
                format!("{}, and it is from 1 to {MAX_PAIRS}", input.max_pairs),
            ));
        }
        Ok(())
    }

    fn cost(&self, input: &ValueSimilarityInput) -> Cost {
        let (compared, returned) = input.claimed_pairs();
        let values = input.distributions.array_len().unwrap_or(0) as u64;
        let operations_per_bin = match input.metric {
            Metric::Jsd => 50,
            Metric::Wasserstein => 3,
        };
        let terms = compared.saturating_mul(input.num_bins() as u64);
        Cost {
            bytes: values.saturating_mul(16).saturating_add(returned.saturating_mul(24)),
            operations: terms.saturating_mul(operations_per_bin).saturating_add(1_000),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &ValueSimilarityInput) -> Option<Footprint> {
        let (_, returned) = input.claimed_pairs();
        let values = input.distributions.array_len().unwrap_or(0) as u64;
        Some(Footprint {
            output: returned.saturating_mul(24).saturating_add(8),
            // The shares and their logarithms.
            scratch: Footprint::of_array::<[f64; 2]>(values).saturating_add(selection::scratch_bytes(returned)),
        })
    }

    fn run_cpu(
        &self,
        input: &ValueSimilarityInput,
        context: &RunContext<'_>,
    ) -> Result<ValueSimilarityOutput, KernelError> {
        let rows = Rows::new(input, context)?.with_logarithms(input.metric, context)?;
        if let Some(pairs) = &input.pairs {
            return Ok(input.output(&all_pairs::compare(&rows, input.metric, pairs, context)?, pairs.len() as u64));
        }
        let selection = all_pairs::search(&rows, input.metric, input.wanted(), context)?;
        let matching_pairs = selection.matching_pairs;
        Ok(input.output(&selection.into_sorted(), matching_pairs))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ValueSimilarityInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ValueSimilarityOutput, KernelError> {
        if input.pairs.is_some() {
            return self.run_cpu(input, cuda.context());
        }
        let rows = Rows::new(input, cuda.context())?;
        let selection = cuda::search(&rows, input.metric, input.wanted(), cuda)?;
        let matching_pairs = selection.matching_pairs;
        Ok(input.output(&selection.into_sorted(), matching_pairs))
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &ValueSimilarityInput) -> u64 {
    if input.pairs.is_some() { 0 } else { cuda::device_memory(input) }
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &ValueSimilarityInput) -> u64 {
    0
}
