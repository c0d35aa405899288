//! The goldens of neural networks on graphs, as `tests/goldens/make_gnn.py` writes them.

use serde_json::Value;

/// The goldens of `gnn_inference` or `graph_attention`: each with an `input`, and what is expected.
pub(crate) fn goldens(kernel: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../goldens/gnn.json")).unwrap();
    let goldens = all[kernel].as_array().unwrap().clone();
    assert!(goldens.len() >= 14, "{kernel}");
    goldens
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(found: &Value, expected: &Value, bound: f64, name: &str) {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (value, expected)) in found.iter().zip(&expected).enumerate() {
        let bound = bound * (1.0 + expected.abs());
        assert!((value - expected).abs() <= bound, "{name}[{index}] is {value}, not {expected}");
    }
}

/// Compares an output of `graph/gnn-inference`.
pub(crate) fn check_inference(output: &Value, golden: &Value) {
    let name = golden["name"].as_str().unwrap();
    // Normalization enlarges the error of rows that are nearly constant.
    let bound = if golden["input"]["layer_norm"] == true { 2e-4 } else { 1e-5 };
    assert_close(&output["embeddings"], &golden["embeddings"], bound, name);
    assert_close(&output["probabilities"], &golden["probabilities"], bound, name);
    let sizes = numbers(&golden["input"]["layer_sizes"]);
    let (rows, width) = (numbers(&golden["embeddings"]), sizes[sizes.len() - 1] as usize);
    let predictions = numbers(&output["predictions"]);
    assert_eq!(predictions.len(), rows.len() / width, "{name}");
    for ((row, found), expected) in rows.chunks(width).zip(predictions).zip(numbers(&golden["predictions"])) {
        // Of numbers that are nearly equal either may be the larger.
        let difference = row[expected as usize] - row[found as usize];
        assert!(difference <= bound * (1.0 + row[expected as usize].abs()), "{name}: {found}, not {expected}");
    }
}

/// Compares an output of `graph/graph-attention`.
pub(crate) fn check_attention(output: &Value, golden: &Value) {
    let name = golden["name"].as_str().unwrap();
    assert_close(&output["embeddings"], &golden["embeddings"], 1e-5, name);
    let heads = golden["input"]["num_heads"].as_u64().unwrap() as usize;
    let offsets = numbers(&output["attention_offsets"]);
    let sources = numbers(&output["attention_sources"]);
    let weights = numbers(&output["attention_weights"]);
    assert_eq!(weights.len(), sources.len() * heads, "{name}");
    let mut expected = golden["weights"].as_array().unwrap().iter();
    for (node, arcs) in offsets.windows(2).enumerate() {
        for arc in arcs[0] as usize..arcs[1] as usize {
            if sources[arc] as usize == node {
                assert!(
                    golden["input"]["add_self_loops"] == true && arc + 1 == arcs[1] as usize,
                    "{name}, node {node}"
                );
                continue;
            }
            for (found, expected) in weights[arc * heads..][..heads].iter().zip(numbers(expected.next().unwrap())) {
                assert!((found - expected).abs() <= 1e-5, "{name}, arc {arc}: {found}, not {expected}");
            }
        }
    }
    assert!(expected.next().is_none(), "{name}");
}
