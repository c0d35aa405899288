//! The test's inputs, and a sort of all scores as the reference.

use std::cmp::Ordering;

use super::{Metric, SemanticSimilarity, SemanticSimilarityInput, SemanticSimilarityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::service::{Bf16, F16, Operands, VectorElements, Vectors};

/// Sizes up to this are those of the corpus.
const MAX_ROWS: usize = 1 << 14;

impl Cases for SemanticSimilarity {
    /// A stored corpus of this many small integers, some of its vectors equal, and integer queries: their scores have
    /// no rounding, but for the last one.
    fn case(&self, size: usize, random: &mut Random) -> Option<SemanticSimilarityInput> {
        let dimension = [1, 7, 8, 40, 64, 96][random.below(6) as usize];
        let rows = size.min(MAX_ROWS);
        if rows == 0 {
            return None;
        }
        let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.below(9) as f32 - 4.0).collect() };
        let (corpus, queries) = (numbers(rows * dimension), numbers((1 + size % 7) * dimension));
        let elements: VectorElements = match random.below(3) {
            0 => corpus.into(),
            1 => corpus.into_iter().map(F16::from_f32).collect::<Vec<_>>().into(),
            _ => corpus.into_iter().map(Bf16::from_f32).collect::<Vec<_>>().into(),
        };
        let corpus = Vectors::new(dimension, elements).expect("they are finite");
        Some(SemanticSimilarityInput {
            metric: [Metric::Cosine, Metric::Dot, Metric::L2][random.below(3) as usize],
            top_k: 1 + random.below(40),
            threshold: (random.below(2) == 0).then(|| random.below(12) as f32 / 2.0),
            ..SemanticSimilarityInput::new(queries, Operands::default().put("corpus", corpus).expect("there is room"))
        })
    }

    fn share(&self, input: &mut SemanticSimilarityInput, with: &SemanticSimilarityInput) {
        (input.corpus, input.metric) = (with.corpus.clone(), with.metric);
        let dimension = with.corpus_shape().1 as usize;
        input.queries = with.queries.iter().rev().copied().take(dimension).collect();
    }

    fn put_nan(&self, input: &mut SemanticSimilarityInput, _: usize) {
        input.queries[0] = f32::NAN;
    }

    fn reference(&self, input: &SemanticSimilarityInput) -> Vec<Expected> {
        let corpus = input.corpus.value().expect("it is stored");
        let elements: Vec<f64> = match corpus.elements() {
            VectorElements::F32(elements) => elements.iter().map(|&element| element.into()).collect(),
            VectorElements::F16(elements) => elements.iter().map(|element| element.to_f32().into()).collect(),
            VectorElements::Bf16(elements) => elements.iter().map(|element| element.to_f32().into()).collect(),
        };
        let (mut indices, mut scores) = (Vec::new(), Vec::new());
        for query in input.queries.chunks(corpus.dimension()) {
            let mut all: Vec<(f32, usize)> = elements
                .chunks(corpus.dimension())
                .map(|vector| score(query, vector, input.metric))
                .enumerate()
                .map(|(index, score)| (score, index))
                .collect();
            let best_first = |a: f32, b: f32| match input.metric {
                Metric::L2 => a.total_cmp(&b),
                Metric::Cosine | Metric::Dot => b.total_cmp(&a),
            };
            // It is stable.
            all.sort_by(|a, b| best_first(a.0, b.0));
            for &(score, index) in all.iter().take(input.top_k as usize) {
                let counts = input.threshold.is_none_or(|threshold| best_first(score, threshold) != Ordering::Greater);
                indices.push((if counts { index as f64 } else { f64::from(u32::MAX) }, 0.0));
                scores.push((if counts { score.into() } else { f64::NAN }, 0.0));
            }
        }
        vec![Expected { name: "indices", values: indices }, Expected { name: "scores", values: scores }]
    }

    fn values(&self, output: &SemanticSimilarityOutput) -> Vec<Vec<f64>> {
        vec![
            output.indices.iter().map(|&index| index.into()).collect(),
            output.scores.iter().map(|&score| score.into()).collect(),
        ]
    }
}

fn score(query: &[f32], vector: &[f64], metric: Metric) -> f32 {
    let query = || query.iter().map(|&number| f64::from(number));
    let pairs = || query().zip(vector);
    let product: f64 = pairs().map(|(q, c)| q * c).sum();
    let norms = query().map(|q| q * q).sum::<f64>().sqrt() * vector.iter().map(|c| c * c).sum::<f64>().sqrt();
    let score = match metric {
        Metric::Dot => product,
        Metric::Cosine if norms == 0.0 => 0.0,
        Metric::Cosine => product / norms,
        Metric::L2 => pairs().map(|(q, c)| (q - c) * (q - c)).sum::<f64>().sqrt(),
    };
    score as f32 + 0.0
}
