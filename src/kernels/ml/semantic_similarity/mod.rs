//! `ml/semantic-similarity`: the vectors of a corpus that are most similar to each query.
//!
//! | field | type | |
//! |---|---|---|
//! | `queries` | `f32`, `[m * d]` | the query vectors, one after the other |
//! | `corpus` | an operand of type `vectors`, or an object | `[n, d]` of `f32`, `f16` or `bf16`: a stored one, or `{"vectors": [[...]]}` |
//! | `metric` | `cosine`, `dot` or `l2`, default `cosine` | the score of a query and a vector |
//! | `top_k` | integer, 1 to 1024, default 10 | vectors for each query; all where the corpus has fewer |
//! | `threshold` | `f32`, optional | the lowest cosine or dot product that counts, or the largest distance |
//! | out: `indices` | `u32`, `[m * k]` | rows of the corpus, best first; 4294967295 where fewer than k reach the threshold |
//! | out: `scores` | `f32`, `[m * k]` | their scores; NaN (`null` in JSON) where there is none |
//!
//! `cosine` is `q·c / (|q| |c|)`, and 0 where one of the two is zero; `dot` is `q·c`; `l2` is the Euclidean distance
//! `|q - c|`, of which the smallest is best. `k` is the smaller of `top_k` and `n`.
//!
//! The search is exact. Each score is computed in double precision and rounded once to single precision, and of equal
//! scores the one with the lower index comes first. So the output is that of a sort of all scores, except that two
//! scores may change places, or be rounded to neighbouring numbers, if they differ by less than the rounding of the sum
//! in double precision.
//!
//! The scores of most vectors are computed in lower precision, together with a bound of their error, and only those
//! that may be among the best are computed again. On the CPU that is single precision with the bound of Higham,
//! *Accuracy and Stability of Numerical Algorithms* (2002), section 3.1; see [`cpu`] and, for CUDA,
//! `semantic_similarity.cu`. Time is O(m n d).
//!
//! Requests that search one stored corpus with the same metric [share a run](crate::backends::batched): on CUDA the
//! corpus is read once for up to 128 of their queries. The norms of a stored corpus are computed once and kept with it.
//!
//! Errors: `queries` of no numbers, or not a multiple of the dimension, or with a number that is not finite; a `corpus`
//! that is invalid, or has 2^32 - 1 vectors or more; `top_k` out of range; `threshold` that is not finite.

mod cases;
pub mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod plan;
mod products;
pub mod score;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::score::{Key, Metric, Queries};
use super::check_finite;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, Operand, OperandVersion,
    RunContext, Vectors,
};

/// The largest `top_k`.
pub const MAX_TOP_K: u64 = 1024;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct SemanticSimilarity;

/// The input of `ml/semantic-similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "queries": [0.0, 2.0, 0.0], "corpus": { "vectors": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0]] }, "top_k": 2 },
    { "queries": [0.5, 1.0], "corpus": { "vectors": [[1], [0.75]] }, "metric": "l2", "top_k": 1, "threshold": 0.5 },
]))]
pub struct SemanticSimilarityInput {
    /// The query vectors, one after the other, each of the dimension of the corpus.
    pub queries: Buffer<f32>,
    /// The vectors that are searched.
    pub corpus: Operand<Vectors>,
    /// The score of a query and a vector.
    #[serde(default)]
    pub metric: Metric,
    /// How many vectors are returned for each query, at most 1024.
    #[serde(default = "default_top_k")]
    pub top_k: u64,
    /// The worst score that counts: the lowest cosine or dot product, or the largest distance.
    #[serde(default)]
    pub threshold: Option<f32>,
}

fn default_top_k() -> u64 {
    10
}

/// The output of `ml/semantic-similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SemanticSimilarityOutput {
    /// Rows of the corpus, best first, query after query; 4294967295 where no more reach the threshold.
    pub indices: Buffer<u32>,
    /// The score of each; NaN where there is none.
    pub scores: Buffer<f32>,
}

impl SemanticSimilarityInput {
    /// Creates an input with the default metric and `top_k`, and without a threshold.
    pub fn new(queries: impl Into<Buffer<f32>>, corpus: Operand<Vectors>) -> Self {
        Self { queries: queries.into(), corpus, metric: Metric::default(), top_k: default_top_k(), threshold: None }
    }

    /// The number and the dimension of the vectors, and the bytes of a number of theirs, as the input claims them.
    fn corpus_shape(&self) -> (u64, u64, u64) {
        let (elements, dimension) = match (self.corpus.value(), self.corpus.document()) {
            (Some(corpus), _) => (corpus.elements(), corpus.dimension()),
            (None, Some(document)) => (&document.elements, document.dimension),
            (None, None) => return (0, 0, 0),
        };
        let rows = elements.len().checked_div(dimension).unwrap_or(0);
        (rows as u64, dimension as u64, elements.dtype().size() as u64)
    }

    /// The number of queries, as the input claims it.
    fn num_queries(&self) -> u64 {
        (self.queries.len() as u64).checked_div(self.corpus_shape().1).unwrap_or(0)
    }

    /// How many vectors are returned for each query.
    fn k(&self) -> u64 {
        self.top_k.min(self.corpus_shape().0)
    }

    /// Makes the output of the keys of each query, best first.
    fn output(&self, keys: &[Key]) -> SemanticSimilarityOutput {
        let reaches = |key: &Key| self.threshold.is_none_or(|threshold| key.rank() >= self.metric.rank(threshold));
        let keys = || keys.iter().map(|key| Some(key).filter(|key| reaches(key)));
        SemanticSimilarityOutput {
            indices: keys().map(|key| key.map_or(u32::MAX, |key| key.index())).collect(),
            scores: keys().map(|key| key.map_or(f32::NAN, |key| self.metric.score(key.rank()))).collect(),
        }
    }
}

impl Kernel for SemanticSimilarity {
    type Input = SemanticSimilarityInput;
    type Output = SemanticSimilarityOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "The vectors of a corpus that are most similar to each query, by cosine, dot product or distance.";
        KernelInfo::new("ml/semantic-similarity", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &SemanticSimilarityInput) -> Result<(), InvalidInput> {
        input.corpus.check().map_err(|error| error.within("corpus"))?;
        let (rows, dimension, _) = input.corpus_shape();
        if rows >= u64::from(u32::MAX) {
            return Err(InvalidInput::new("corpus", format!("{rows} vectors where fewer than 2^32 - 1 are expected")));
        }
        let len = input.queries.len();
        if len == 0 || !(len as u64).is_multiple_of(dimension) {
            let reason =
                format!("{len} numbers where a multiple of the dimension of the corpus, {dimension}, is expected");
            return Err(InvalidInput::new("queries", reason));
        }
        check_finite("queries", &input.queries)?;
        if input.top_k == 0 || input.top_k > MAX_TOP_K {
            let reason = format!("{} where 1 to {MAX_TOP_K} is expected", input.top_k);
            return Err(InvalidInput::new("top_k", reason));
        }
        match input.threshold {
            Some(threshold) if !threshold.is_finite() => {
                Err(InvalidInput::new("threshold", "it is not a finite number"))
            }
            _ => Ok(()),
        }
    }

    fn cost(&self, input: &SemanticSimilarityInput) -> Cost {
        let (rows, dimension, size) = input.corpus_shape();
        let (numbers, queries) = (rows.saturating_mul(dimension), input.num_queries());
        Cost {
            bytes: numbers.saturating_mul(size).saturating_add(input.queries.len() as u64 * 4),
            operations: numbers.saturating_mul(queries).saturating_mul(2).saturating_add(1_000),
            device_memory: device_memory(input, queries),
        }
    }

    /// The requests share the corpus, and the memory of a pass over it.
    fn batch_cost(&self, inputs: &[&SemanticSimilarityInput], sum: Cost) -> Cost {
        let Some(first) = inputs.first() else { return sum };
        let queries = inputs.iter().map(|input| input.num_queries()).fold(0, u64::saturating_add);
        let bytes = self.cost(first).bytes.saturating_add(queries.saturating_mul(4 * first.corpus_shape().1));
        Cost { bytes, device_memory: device_memory(first, queries), ..sum }
    }

    fn footprint(&self, input: &SemanticSimilarityInput) -> Option<Footprint> {
        let (rows, ..) = input.corpus_shape();
        let (queries, k) = (input.num_queries(), input.k());
        let norms = if input.corpus.value().is_some() { 0 } else { Footprint::of_array::<f32>(rows) };
        Some(Footprint {
            output: queries.saturating_mul(k).saturating_mul(8),
            scratch: norms.saturating_add(cpu::scratch_bytes(queries, k, input.corpus_shape().1)),
        })
    }

    fn operands(&self, input: &SemanticSimilarityInput) -> Vec<Arc<OperandVersion>> {
        input.corpus.version().cloned().into_iter().collect()
    }

    fn run_cpu(
        &self,
        input: &SemanticSimilarityInput,
        context: &RunContext<'_>,
    ) -> Result<SemanticSimilarityOutput, KernelError> {
        let corpus = input.corpus.load(context)?;
        let queries = Queries::new(&input.queries, corpus.dimension(), input.metric);
        let keys = cpu::search(&corpus, &queries, input.k() as usize, context)?;
        Ok(input.output(&keys))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::MODULES.to_vec()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &SemanticSimilarityInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<SemanticSimilarityOutput, KernelError> {
        Ok(cuda::run(&[input], cuda)?.swap_remove(0))
    }

    /// Requests on one stored corpus share a run, whatever their `top_k` and `threshold`.
    fn batch_key(&self, input: &SemanticSimilarityInput) -> Option<BatchKey> {
        let version = input.corpus.version()?;
        Some(BatchKey::exact(version.id() * Metric::COUNT + input.metric as u64).sharing_work())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&SemanticSimilarityInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<SemanticSimilarityOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let corpus = first.corpus.load(context)?;
        let numbers: Vec<f32> = inputs.iter().flat_map(|input| input.queries.iter().copied()).collect();
        let queries = Queries::new(&numbers, corpus.dimension(), first.metric);
        let k = inputs.iter().map(|input| input.k()).max().unwrap_or(1) as usize;
        let keys = cpu::search(&corpus, &queries, k, context)?;
        Ok(outputs(inputs, &keys, k))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&SemanticSimilarityInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<SemanticSimilarityOutput>, KernelError> {
        cuda::run(inputs, cuda)
    }
}

/// Returns the outputs of inputs that were searched together for the largest `k` of theirs. The best of a smaller one
/// are the first of these.
fn outputs(inputs: &[&SemanticSimilarityInput], keys: &[Key], k: usize) -> Vec<SemanticSimilarityOutput> {
    let mut keys = keys.chunks_exact(k);
    let output = |input: &&SemanticSimilarityInput| {
        let of_input = keys.by_ref().take(input.num_queries() as usize);
        let best: Vec<Key> = of_input.flat_map(|keys| keys.iter().copied().take(input.k() as usize)).collect();
        input.output(&best)
    };
    inputs.iter().map(output).collect()
}

#[cfg(feature = "cuda")]
fn device_memory(input: &SemanticSimilarityInput, queries: u64) -> u64 {
    cuda::device_memory(input, queries)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &SemanticSimilarityInput, _: u64) -> u64 {
    0
}
