//! Layers of neural networks on a stored graph, beside the time that their bytes take at the bandwidth of the memory.
//!
//! The graph is a directed Kronecker graph of 2^20 nodes with 32 draws a node. Times are differences of two requests that
//! move the same numbers to the device and back: a deep network and a shallow one, and attention with and without arcs.
//! `benches/peers/gnn_peers.py` has torch on the same edges.

use std::time::{Duration, Instant};

use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::gnn_inference::GnnInferenceInput;
use tower_kernels::kernels::graph::graph_attention::{GraphAttentionInput, Variant};
use tower_kernels::service::{Buffer, Operand, Payload};

use crate::graphs::{kron, ms};
use crate::{Cuda, call, service};

/// Bytes per second of an H200's memory.
const BANDWIDTH: f64 = 4.8e12;
/// Features of a node.
const FEATURES: usize = 16;

pub(crate) fn run() {
    let (nodes, edges) = kron(20, 32);
    let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Directed).unwrap();
    let arcs = graph.num_arcs();
    let mut service = service(|config| config.workers = 1);
    let operands = service.registry().operands().clone();
    let graph = operands.put("kron20", graph).unwrap();
    let no_arcs = CsrGraph::from_csr(&vec![0; nodes as usize + 1], &[], Direction::Directed).unwrap();
    let no_arcs = operands.put("no-arcs", no_arcs).unwrap();
    let features = Buffer::from(wave(nodes as usize * FEATURES));
    println!("\nGraph neural networks, {nodes} nodes, {arcs} arcs      ms   bytes / bandwidth, ms");
    for width in [32, 64, 128] {
        let mut time = |layers: usize| {
            let sizes = [vec![FEATURES as u32], vec![width; layers + 1], vec![8]].concat();
            let weights: u32 = sizes.windows(2).map(|sizes| sizes[0] * sizes[1]).sum();
            median(
                &mut service,
                "graph/gnn-inference",
                &Payload::typed(GnnInferenceInput {
                    node_features: features.clone(),
                    layer_sizes: sizes.into(),
                    layer_weights: wave(weights as usize).into(),
                    ..GnnInferenceInput::from_operand(graph.clone())
                }),
            )
        };
        let layer = time(9).saturating_sub(time(1)) / 8;
        // For each arc a row, a column and a weight; for each node two rows of each of the two steps.
        let bytes = arcs as u64 * (4 * u64::from(width) + 8) + nodes * 16 * u64::from(width);
        print(&format!("GCN, a layer {width} x {width}"), layer, bytes);
    }
    for (variant, name) in [(Variant::Gat, "GAT"), (Variant::GatV2, "GATv2")] {
        for (heads, head_dim) in [(8, 8), (1, 64), (4, 32)] {
            let mut time = |graph: &Operand<CsrGraph>| {
                let of_head = if variant == Variant::Gat { 2 * head_dim } else { head_dim };
                median(
                    &mut service,
                    "graph/graph-attention",
                    &Payload::typed(GraphAttentionInput {
                        node_features: features.clone(),
                        num_heads: heads,
                        head_dim,
                        value_weights: wave(FEATURES * (heads * head_dim) as usize).into(),
                        attention_vectors: wave((heads * of_head) as usize).into(),
                        variant,
                        concat_heads: false,
                        ..GraphAttentionInput::from_operand(graph.clone())
                    }),
                )
            };
            let arcs_alone = time(&graph).saturating_sub(time(&no_arcs));
            let row = u64::from(heads * head_dim * 4 + 4 + if variant == Variant::Gat { 4 * heads } else { 0 });
            print(&format!("{name}, arcs of {heads} heads of {head_dim}"), arcs_alone, arcs as u64 * row);
        }
    }
}

/// Numbers without a short period.
fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|index| (index as f32 * 0.37).sin() / 4.0).collect()
}

fn median(service: &mut Cuda, id: &'static str, input: &Payload) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut times: Vec<Duration> = (0..8)
        .map(|_| {
            let start = Instant::now();
            let response = runtime.block_on(call(service, id, input));
            assert_eq!(response.execution.backend, "CUDA");
            start.elapsed()
        })
        .skip(1)
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn print(name: &str, time: Duration, bytes: u64) {
    println!("{name:<52}{:>8.3}{:>12.3}", ms(time), bytes as f64 / BANDWIDTH * 1e3);
}
