//! What betweenness takes and refuses, as JSON, as tensors and typed.

use proptest::prelude::*;

use crate::service::{ask, read, rejection, run, tensor, tensors};
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction, FREE_NODES, MAX_NODES, NODES_PER_EDGE};
use tower_kernels::service::{DType, Payload};

const ID: &str = "graph/betweenness-centrality";

#[tokio::test]
async fn the_request_of_the_deployment_page() {
    let document = r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "normalized": true}"#;
    let sixth = 1.0 / 6.0;
    let answer = ask(ID, document).await.unwrap();
    for score in answer["scores"].as_array().unwrap() {
        assert!((score.as_f64().unwrap() - sixth).abs() < 1e-15, "{answer}");
    }
}

#[tokio::test]
async fn all_payloads_give_the_same_output() {
    // A path 0 - 1 - 2 - 3 with a loop and a repeat.
    let expected = [0.0, 2.0, 2.0, 0.0];
    let edges = [[0_u32, 1], [1, 2], [2, 3], [1, 0], [2, 2]];
    let typed = BetweennessInput { normalized: false, ..BetweennessInput::from_edges(4, edges.to_vec()) };
    let answer = run(ID, Payload::typed(typed)).await.unwrap();
    assert_eq!(answer.downcast::<BetweennessOutput>().unwrap().scores[..], expected);

    let list = [
        ("num_nodes", tensor(DType::U64, &[], &[4_u64])),
        ("edges", tensor(DType::U32, &[5, 2], edges.as_flattened())),
        ("normalized", tensor(DType::Bool, &[1], &[0_u8])),
    ];
    let one_way = [
        ("row_offsets", tensor(DType::U32, &[5], &[0_u32, 1, 3, 4, 4])),
        ("column_indices", tensor(DType::U32, &[4], &[1_u32, 2, 2, 3])),
        ("normalized", tensor(DType::Bool, &[], &[0_u8])),
    ];
    for payload in [tensors(list), tensors(one_way)] {
        assert_eq!(read::<f64>(&run(ID, payload).await.unwrap(), "scores", DType::F64), expected);
    }
    let document = r#"{"row_offsets": [0, 1, 3, 5, 6], "column_indices": [1, 0, 2, 1, 3, 2], "normalized": false}"#;
    assert_eq!(ask(ID, document).await.unwrap(), serde_json::json!({ "scores": expected }));
}

#[tokio::test]
async fn indices_of_scipy_and_pytorch_are_taken_where_they_are_not_negative() {
    let expected = [0.0, 2.0, 2.0, 0.0];
    let plain = || ("normalized", tensor(DType::Bool, &[], &[0_u8]));
    let scipy = |columns: [i32; 4]| {
        let offsets = tensor(DType::I64, &[5], &[0_i64, 1, 3, 4, 4]);
        tensors([("row_offsets", offsets), ("column_indices", tensor(DType::I32, &[4], &columns)), plain()])
    };
    assert_eq!(read::<f64>(&run(ID, scipy([1, 2, 2, 3])).await.unwrap(), "scores", DType::F64), expected);
    assert_eq!(rejection(run(ID, scipy([1, 2, -2, 3])).await).field, "column_indices[2]");

    let pytorch = |edges: [i64; 6]| {
        let edges = tensor(DType::I64, &[3, 2], &edges);
        tensors([("num_nodes", tensor(DType::I64, &[], &[4_i64])), ("edges", edges), plain()])
    };
    assert_eq!(read::<f64>(&run(ID, pytorch([0, 1, 1, 2, 2, 3])).await.unwrap(), "scores", DType::F64), expected);
    assert_eq!(rejection(run(ID, pytorch([0, 1, 1, -2, 2, 3])).await).field, "edges[1]");
    assert_eq!(rejection(run(ID, pytorch([0, 1, 1, 2, 1 << 32, 3])).await).field, "edges[2]");
    let floats = tensors([
        ("row_offsets", tensor(DType::F32, &[2], &[0.0_f32, 0.0])),
        ("column_indices", tensor(DType::I32, &[0], &[0_i32; 0])),
    ]);
    assert_eq!(rejection(run(ID, floats).await).field, "row_offsets");
}

#[tokio::test]
async fn edges_in_the_form_of_another_tool_are_told_what_an_edge_is() {
    let nodes = || ("num_nodes", tensor(DType::U64, &[], &[4_u64]));
    let edge_index = tensor(DType::I64, &[2, 3], &[0_i64, 1, 2, 1, 2, 3]);
    let weighted = r#"{"num_nodes": 3, "edges": [[0, 1, 0.5], [1, 2, 0.25]]}"#;
    for refused in [
        rejection(run(ID, tensors([nodes(), ("edges", edge_index)])).await),
        rejection(ask(ID, weighted).await),
        rejection(ask(ID, r#"{"num_nodes": 3, "edges": [[0, 1, 2]]}"#).await),
        rejection(ask(ID, r#"{"num_nodes": 3, "edges": [[0]]}"#).await),
    ] {
        assert_eq!(refused.field, "edges[0]", "{refused}");
        assert!(refused.reason.contains("pair of nodes") && refused.reason.contains("transposed"), "{refused}");
    }
}

#[tokio::test]
async fn a_graph_is_an_object_and_may_begin_with_a_byte_order_mark() {
    let document = "\u{feff}{\"num_nodes\": 2, \"edges\": [[0, 1]]}";
    assert_eq!(ask(ID, document).await.unwrap(), serde_json::json!({ "scores": [0.0, 0.0] }));
    let refused = rejection(ask(ID, "[2, [[0, 1]]]").await);
    assert!(refused.field == "input" && refused.reason.contains("sequence"), "{refused}");
}

#[tokio::test]
async fn samples_depend_on_the_seed_alone() {
    let edges: Vec<String> = (0..40).map(|node| format!("[{node},{}]", (node * 7 + 1) % 41)).collect();
    let ask = |rest: &str| ask_owned(format!(r#"{{"num_nodes": 41, "edges": [{}], {rest}}}"#, edges.join(",")));
    let first = ask(r#""samples": 9, "seed": 5"#).await;
    assert_eq!(first, ask(r#""samples": 9, "seed": 5"#).await);
    assert_ne!(first, ask(r#""samples": 9, "seed": 6"#).await);
    assert_eq!(ask(r#""samples": 9"#).await, ask(r#""samples": 9, "seed": 0"#).await);
    assert_eq!(ask(r#""samples": 41"#).await, ask(r#""normalized": true"#).await);
}

async fn ask_owned(document: String) -> serde_json::Value {
    ask(ID, &document).await.unwrap()
}

#[tokio::test]
async fn rejections_name_the_field() {
    for (document, field) in [
        (r#"{}"#, "edges"),
        (r#"{"edges": [[0, 1]]}"#, "num_nodes"),
        (r#"{"num_nodes": -1, "edges": []}"#, "num_nodes"),
        (r#"{"num_nodes": 1e30, "edges": []}"#, "num_nodes"),
        (r#"{"num_nodes": 18446744073709551615, "edges": []}"#, "num_nodes"),
        (r#"{"num_nodes": 0, "edges": []}"#, "num_nodes"),
        (r#"{"num_nodes": 100000000, "edges": [[0, 1]]}"#, "num_nodes"),
        (r#"{"num_nodes": 3, "edges": [[0, 1], [1, 3]]}"#, "edges[1][1]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1], [-1, 2]]}"#, "edges[1][0]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1, 2]]}"#, "edges[0]"),
        (r#"{"num_nodes": 3, "edges": [[0]]}"#, "edges[0]"),
        (r#"{"num_nodes": 3, "edges": [], "weights": []}"#, "weights"),
        (r#"{"num_nodes": 3, "edges": [], "row_offsets": [0]}"#, "row_offsets"),
        (r#"{"row_offsets": [0, 1]}"#, "column_indices"),
        (r#"{"column_indices": [0, 1]}"#, "row_offsets"),
        (r#"{"row_offsets": [], "column_indices": []}"#, "row_offsets"),
        (r#"{"row_offsets": [0], "column_indices": []}"#, "row_offsets"),
        (r#"{"row_offsets": [1, 1], "column_indices": [0]}"#, "row_offsets[0]"),
        (r#"{"row_offsets": [0, 2, 1], "column_indices": [0]}"#, "row_offsets[2]"),
        (r#"{"row_offsets": [0, 1, 4000000000], "column_indices": [0]}"#, "row_offsets[2]"),
        (r#"{"row_offsets": [0, 1], "column_indices": [1]}"#, "column_indices[0]"),
        (r#"{"row_offsets": [0, 0], "column_indices": [], "num_nodes": 2}"#, "num_nodes"),
        (r#"{"num_nodes": 3, "edges": [], "sources": []}"#, "sources"),
        (r#"{"num_nodes": 3, "edges": [], "sources": [1]}"#, "sources"),
        (r#"{"num_nodes": 3, "edges": [], "sources": [1, 3]}"#, "sources[1]"),
        (r#"{"num_nodes": 3, "edges": [], "sources": [1, 2, 1]}"#, "sources[2]"),
        (r#"{"num_nodes": 3, "edges": [], "sources": [1, 2], "samples": 2}"#, "samples"),
        (r#"{"num_nodes": 3, "edges": [], "samples": 0}"#, "samples"),
        (r#"{"num_nodes": 3, "edges": [], "samples": 1}"#, "samples"),
        (r#"{"num_nodes": 3, "edges": [], "samples": 4}"#, "samples"),
        (r#"{"num_nodes": 3, "edges": [], "seed": 4}"#, "seed"),
    ] {
        assert_eq!(rejection(ask(ID, document).await).field, field, "{document}");
    }
}

#[tokio::test]
async fn refused_tensors_are_named() {
    let offsets = || ("row_offsets", tensor(DType::U32, &[2], &[0_u32, 1]));
    for (column_indices, field) in [
        (tensor(DType::I32, &[1], &[-1_i32]), "column_indices[0]"),
        (tensor(DType::F32, &[1], &[0.0_f32]), "column_indices"),
        (tensor(DType::U32, &[1, 1], &[0_u32]), "column_indices"),
    ] {
        let payload = tensors([offsets(), ("column_indices", column_indices)]);
        assert_eq!(rejection(run(ID, payload).await).field, field);
    }
}

#[test]
fn claimed_nodes_are_paid_for_by_edges() {
    let accepted = |num_nodes: usize, num_edges: usize| {
        CsrGraph::check_edges(num_nodes, &vec![[0, 1]; num_edges]).map_err(|invalid| invalid.field).is_ok()
    };
    assert!(accepted(FREE_NODES, 0));
    assert!(!accepted(FREE_NODES + 1, 1));
    assert!(accepted(NODES_PER_EDGE * 5_000, 5_000));
    assert!(!accepted(NODES_PER_EDGE * 5_000 + 1, 5_000));
    assert!(!accepted(MAX_NODES + 1, MAX_NODES / NODES_PER_EDGE + 1));
}

proptest! {
    #[test]
    fn any_edges_make_a_simple_graph_or_an_error(
        num_nodes in 0_usize..40,
        edges in prop::collection::vec(prop::array::uniform2(prop_oneof![9 => 0_u32..40, 1 => any::<u32>()]), 0..120),
        directed in any::<bool>(),
    ) {
        let direction = if directed { Direction::Directed } else { Direction::Undirected };
        let in_range = edges.iter().flatten().all(|&node| (node as usize) < num_nodes);
        let graph = CsrGraph::from_edges(num_nodes, &edges, direction);
        prop_assert_eq!(graph.is_ok(), in_range);
        if let Ok(graph) = graph {
            let listed = |from: u32, to: u32| from != to && (edges.contains(&[from, to]) || (!directed && edges.contains(&[to, from])));
            let nodes = 0..num_nodes as u32;
            for node in nodes.clone() {
                let expected: Vec<u32> = nodes.clone().filter(|&other| listed(node, other)).collect();
                prop_assert_eq!(graph.successors().row(node), expected);
                let expected: Vec<u32> = nodes.clone().filter(|&other| listed(other, node)).collect();
                prop_assert_eq!(graph.predecessors().row(node), expected);
            }
        }
    }

    #[test]
    fn any_csr_arrays_make_a_graph_or_an_error(
        offsets in prop::collection::vec(prop_oneof![9 => 0_u32..30, 1 => any::<u32>()], 0..12),
        columns in prop::collection::vec(prop_oneof![9 => 0_u32..12, 1 => any::<u32>()], 0..30),
        sorted in any::<bool>(),
        directed in any::<bool>(),
    ) {
        let mut offsets = offsets;
        if sorted {
            offsets.sort_unstable();
            if let [first, .., last] = offsets.as_mut_slice() {
                (*first, *last) = (0, columns.len() as u32);
            }
        }
        let direction = if directed { Direction::Directed } else { Direction::Undirected };
        let checked = CsrGraph::check_csr(&offsets, &columns);
        let built = CsrGraph::from_csr(&offsets, &columns, direction);
        prop_assert_eq!(checked.err(), built.as_ref().err().cloned());
        if let Ok(graph) = built {
            prop_assert_eq!(graph.num_nodes(), offsets.len() - 1);
            prop_assert!(graph.num_arcs() <= 2 * columns.len());
        }
    }
}
