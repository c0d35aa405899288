//! Inputs of `ml/semantic-similarity` that are hard to search, and their outputs by a sort of all scores.

use std::cmp::Ordering;

use serde_json::{Value, json};
use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::ml::semantic_similarity::score::Metric;
use tower_kernels::kernels::ml::semantic_similarity::{SemanticSimilarityInput, SemanticSimilarityOutput};
use tower_kernels::service::{Bf16, Buffer, F16, Operands, VectorElements, Vectors};

/// The goldens that scikit-learn, scipy and numpy have made: the document of a request, and its indices and scores.
pub(crate) fn goldens() -> Vec<(Value, Vec<u32>, Vec<f64>)> {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/similarity.json")).unwrap();
    assert_eq!(goldens.len(), 45);
    let read = |golden: Value| {
        let document = json!({
            "queries": golden["queries"], "metric": golden["metric"], "top_k": golden["top_k"],
            "corpus": { "vectors": golden["vectors"], "dtype": golden["dtype"] },
        });
        let numbers = |field: &str| -> Vec<f64> {
            golden[field].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        (document, numbers("indices").iter().map(|&index| index as u32).collect(), numbers("scores"))
    };
    goldens.into_iter().map(read).collect()
}

/// Whether a score is this number in single precision, or one next to it.
pub(crate) fn is_score(score: f64, expected: f64) -> bool {
    (score - expected).abs() <= f64::from(f32::EPSILON) * expected.abs() + 1e-15
}

fn input(dimension: usize, elements: impl Into<VectorElements>, queries: Vec<f32>) -> SemanticSimilarityInput {
    let corpus = Vectors::new(dimension, elements).unwrap();
    SemanticSimilarityInput::new(queries, Operands::default().put("corpus", corpus).unwrap())
}

/// Inputs by name, each for all metrics.
pub(crate) fn inputs() -> Vec<(String, SemanticSimilarityInput)> {
    let mut random = Random::new(23);
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.between(-1.0, 1.0) as f32).collect() };
    let mut inputs = Vec::new();
    for (rows, dimension, queries) in
        [(5_000, 64, 1), (3_001, 40, 9), (1_000, 40, 140), (18_001, 8, 65), (200, 768, 65), (150, 1_024, 9)]
    {
        let corpus = numbers(rows * dimension);
        let queries = numbers(queries * dimension);
        let name = |dtype| format!("random {dtype}, {rows} of {dimension}");
        inputs.push((name("float32"), input(dimension, corpus.clone(), queries.clone())));
        let halves: Vec<F16> = corpus.iter().copied().map(F16::from_f32).collect();
        inputs.push((name("float16"), input(dimension, halves, queries.clone())));
        let halves: Vec<Bf16> = corpus.into_iter().map(Bf16::from_f32).collect();
        inputs.push((name("bfloat16"), input(dimension, halves, queries)));
    }
    inputs.push(("odd dimension".to_owned(), input(37, numbers(37 * 900), numbers(37 * 3))));
    inputs.push(("one number".to_owned(), input(1, numbers(900), numbers(3))));
    let mut large = input(8, numbers(8 * 3_000), numbers(8 * 2));
    large.top_k = 1024;
    inputs.push(("the largest top_k".to_owned(), large));
    for top_k in [32, 33] {
        let few_or_not = input(16, numbers(16 * 9_000), numbers(16 * 3));
        inputs.push((format!("top_k of {top_k}"), SemanticSimilarityInput { top_k, ..few_or_not }));
    }
    // All ranks of the approximate pass are within its error.
    let center = numbers(64);
    let near: Vec<f32> =
        numbers(64 * 2_000).iter().zip(center.iter().cycle()).map(|(delta, center)| center + 1e-5 * delta).collect();
    inputs.push(("almost equal vectors".to_owned(), input(64, near.clone(), center.clone())));
    inputs.push(("almost the query".to_owned(), input(64, near, [center.clone(), numbers(64)].concat())));
    inputs.push(("equal vectors".to_owned(), input(64, center.repeat(2_000), center.clone())));
    inputs.push(("a query of zeros".to_owned(), input(64, numbers(64 * 2_000), vec![0.0; 64])));
    let mut with_zeros = numbers(64 * 500);
    with_zeros.extend(vec![0.0; 64 * 500]);
    inputs.push(("vectors of zeros".to_owned(), input(64, with_zeros, numbers(64 * 2))));
    // Each is better than the one before.
    let ascending: Vec<f32> = (0..4_000).flat_map(|row| (0..16).map(move |_| 1.0 + row as f32 / 4_000.0)).collect();
    inputs.push(("ascending".to_owned(), input(16, ascending, vec![1.0; 16])));
    for (name, scale) in [("tiny", 1e-30), ("huge", 1e30)] {
        let scaled: Vec<f32> = numbers(64 * 1_000).iter().map(|number| number * scale).collect();
        inputs.push((format!("{name} vectors"), input(64, scaled, numbers(64))));
        let query: Vec<f32> = numbers(64).iter().map(|number| number * scale).collect();
        inputs.push((format!("{name} query"), input(64, numbers(64 * 1_000), query)));
    }
    let of_metric = |(name, input): (String, SemanticSimilarityInput)| {
        [Metric::Cosine, Metric::Dot, Metric::L2]
            .map(|metric| (format!("{name}, {metric:?}"), SemanticSimilarityInput { metric, ..input.clone() }))
    };
    inputs.into_iter().flat_map(of_metric).collect()
}

fn elements(corpus: &Vectors) -> Vec<f64> {
    match corpus.elements() {
        VectorElements::F32(elements) => elements.iter().map(|&element| element.into()).collect(),
        VectorElements::F16(elements) => elements.iter().map(|element| element.to_f32().into()).collect(),
        VectorElements::Bf16(elements) => elements.iter().map(|element| element.to_f32().into()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Checks an output: each score is that of its vector, and no vector that is not in the output is better than the last, or
/// as good and before it.
pub(crate) fn check(name: &str, input: &SemanticSimilarityInput, output: &SemanticSimilarityOutput) {
    let corpus = input.corpus.value().unwrap();
    let (dimension, elements) = (corpus.dimension(), elements(corpus));
    let k = (input.top_k as usize).min(corpus.rows());
    let best_first = |a: f32, b: f32| match input.metric {
        Metric::L2 => a.total_cmp(&b),
        Metric::Cosine | Metric::Dot => b.total_cmp(&a),
    };
    let outputs = output.indices.chunks(k).zip(output.scores.chunks(k));
    assert_eq!(output.indices.len(), input.queries.len() / dimension * k, "{name}");
    for (query, (indices, scores)) in input.queries.chunks(dimension).zip(outputs) {
        let all: Vec<f64> = elements.chunks(dimension).map(|vector| score(query, vector, input.metric)).collect();
        for (&index, &score) in indices.iter().zip(scores) {
            let expected = all[index as usize];
            assert!(is_score(score.into(), expected) || f64::from(score) == expected, "{name}: {score:e} {expected:e}");
        }
        let in_order = |(a, b): (usize, usize)| best_first(scores[a], scores[b]).then(indices[a].cmp(&indices[b]));
        assert!((1..k).all(|at| in_order((at - 1, at)) == Ordering::Less), "{name}: {indices:?} {scores:?}");
        let (worst, last) = (scores[k - 1], indices[k - 1]);
        let found: std::collections::HashSet<u32> = indices.iter().copied().collect();
        assert_eq!(found.len(), k, "{name}");
        for (index, &score) in all.iter().enumerate().filter(|(index, _)| !found.contains(&(*index as u32))) {
            let order = best_first(score as f32, worst).then((index as u32).cmp(&last));
            assert!(
                order == Ordering::Greater || is_score(score, worst.into()) && score as f32 != worst,
                "{name}: {index} of {score:e} is better than {last} of {worst:e}"
            );
        }
    }
}

fn score(query: &[f32], vector: &[f64], metric: Metric) -> f64 {
    let query = || query.iter().map(|&number| f64::from(number));
    let pairs = || query().zip(vector);
    let product: f64 = pairs().map(|(q, c)| q * c).sum();
    let norms = query().map(|q| q * q).sum::<f64>().sqrt() * vector.iter().map(|c| c * c).sum::<f64>().sqrt();
    match metric {
        Metric::Dot => product + 0.0,
        Metric::Cosine if norms == 0.0 => 0.0,
        Metric::Cosine => product / norms + 0.0,
        Metric::L2 => pairs().map(|(q, c)| (q - c) * (q - c)).sum::<f64>().sqrt(),
    }
}

/// The vectors in another order, and where each of them was.
pub(crate) fn reversed(input: &SemanticSimilarityInput) -> SemanticSimilarityInput {
    let corpus = input.corpus.value().unwrap();
    let VectorElements::F32(elements) = corpus.elements() else { panic!("single precision") };
    let rows: Vec<f32> = elements.rchunks(corpus.dimension()).flatten().copied().collect();
    let corpus = Vectors::new(corpus.dimension(), Buffer::from(rows)).unwrap();
    SemanticSimilarityInput { corpus: Operands::default().put("corpus", corpus).unwrap(), ..input.clone() }
}
