//! `ml/semantic-similarity`: against scikit-learn, scipy and numpy, and against a sort of all scores.

use serde_json::json;
use tower_kernels::kernels::ml::semantic_similarity::{
    SemanticSimilarity, SemanticSimilarityInput, SemanticSimilarityOutput,
};
use tower_kernels::service::{Kernel, RunContext};

use crate::service::{ask, rejection};
use crate::similarity_inputs::{check, goldens, inputs, is_score, reversed};

const ID: &str = "ml/semantic-similarity";

fn search(input: &SemanticSimilarityInput) -> SemanticSimilarityOutput {
    SemanticSimilarity.validate(input).unwrap();
    SemanticSimilarity.run_cpu(input, &RunContext::detached()).unwrap()
}

#[tokio::test]
async fn neighbours_are_those_of_scikit_learn() {
    for (document, indices, scores) in goldens() {
        let output = ask(ID, &document.to_string()).await.unwrap();
        assert_eq!(output["indices"], json!(indices), "{document}");
        let found = output["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap());
        for (score, expected) in found.zip(scores) {
            assert!(is_score(score, expected), "{score} {expected} of {document}");
        }
    }
}

#[test]
fn the_best_are_those_of_all_scores() {
    for (name, input) in inputs() {
        check(&name, &input, &search(&input));
    }
}

#[test]
fn another_order_of_the_vectors_gives_the_same_scores() {
    for (name, input) in inputs().iter().filter(|(name, _)| name.starts_with("random float32")) {
        let (output, other) = (search(input), search(&reversed(input)));
        assert!(output.scores == other.scores, "{name}");
        let rows = input.corpus.value().unwrap().rows() as u32;
        assert!(output.indices.iter().zip(other.indices.iter()).all(|(a, b)| a + b + 1 == rows), "{name}");
    }
}

#[test]
fn fewer_are_the_first_of_more() {
    let (_, input) = inputs().swap_remove(0);
    let all = search(&SemanticSimilarityInput { top_k: 500, ..input.clone() });
    for top_k in [1, 2, 10, 499] {
        let few = search(&SemanticSimilarityInput { top_k, ..input.clone() });
        assert_eq!(
            (&few.indices[..], &few.scores[..]),
            (&all.indices[..top_k as usize], &all.scores[..top_k as usize])
        );
    }
}

#[test]
fn requests_that_share_a_run_get_what_they_get_alone() {
    let (_, input) = inputs().swap_remove(1);
    let inputs: Vec<SemanticSimilarityInput> = [(3, None), (10, Some(0.1)), (1, None)]
        .map(|(top_k, threshold)| SemanticSimilarityInput { top_k, threshold, ..input.clone() })
        .to_vec();
    let together =
        SemanticSimilarity.run_cpu_batch(&inputs.iter().collect::<Vec<_>>(), &RunContext::detached()).unwrap();
    for (input, output) in inputs.iter().zip(together) {
        assert_eq!(output.indices, search(input).indices);
    }
    assert!(SemanticSimilarity.batch_key(&inputs[0]).is_some());
}

#[tokio::test]
async fn what_does_not_reach_the_threshold_is_left_out() {
    let corpus = json!({ "vectors": [[1, 0], [0, 1], [0.6, 0.8], [-1, 0]] });
    let none = u32::MAX;
    for (metric, threshold, indices, scores) in [
        ("cosine", 0.5, [0, 2, none, none], json!([1.0, 0.6, null, null])),
        ("dot", 1.2, [0, 2, none, none], json!([2.0, 1.2, null, null])),
        ("l2", 1.0, [0, none, none, none], json!([1.0, null, null, null])),
    ] {
        let document = json!({
            "queries": [2, 0], "corpus": corpus, "metric": metric, "top_k": 9, "threshold": threshold,
        });
        let output = ask(ID, &document.to_string()).await.unwrap();
        assert_eq!(output["indices"], json!(indices), "{metric}");
        for (score, expected) in output["scores"].as_array().unwrap().iter().zip(scores.as_array().unwrap()) {
            let (score, expected) = (score.as_f64(), expected.as_f64());
            let is_same = match (score, expected) {
                (Some(score), Some(expected)) => is_score(score, expected),
                (score, expected) => score == expected,
            };
            assert!(is_same, "{metric}: {score:?} {expected:?}");
        }
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let valid = json!({ "queries": [1, 2], "corpus": { "vectors": [[1, 2], [3, 4]] } });
    ask(ID, &valid.to_string()).await.unwrap();
    for (field, value, expected) in [
        ("queries", json!([]), "queries"),
        ("queries", json!([1, 2, 3]), "queries"),
        ("queries", json!([1, 1e39]), "queries[1]"),
        ("corpus", json!({ "vectors": [] }), "corpus.vectors"),
        ("corpus", json!({ "vectors": [[1, 2], [3, 1e39]] }), "corpus.vectors[1][1]"),
        ("corpus", json!({ "vectors": [[1, 2], [3, 1e9]], "dtype": "float16" }), "corpus.vectors[1][1]"),
        ("metric", json!("angular"), "metric"),
        ("top_k", json!(0), "top_k"),
        ("top_k", json!(1025), "top_k"),
        ("threshold", json!(1e39), "threshold"),
        ("colour", json!(1), "colour"),
    ] {
        let mut document = valid.clone();
        document[field] = value;
        assert_eq!(rejection(ask(ID, &document.to_string()).await).field, expected, "{document}");
    }
}
