//! The test's inputs, and the definition with lists of arcs in `f64` as the reference.

use super::{Activation, GraphAttention, GraphAttentionInput, GraphAttentionOutput, Variant};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for GraphAttention {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<GraphAttentionInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // Hubs whose rows are split into pieces.
        edges.extend((1..nodes as u32).flat_map(|node| [[node, 0], [0, node]]));
        let (heads, head_dim) = [(1, 1), (8, 8), (3, 5), (2, 20), (1, 130), (4, 4)][random.below(6) as usize];
        let features = [1, 7, 16, 50][random.below(4) as usize];
        let variant = if random.below(2) == 1 { Variant::GatV2 } else { Variant::Gat };
        let of_head = if variant == Variant::Gat { 2 * head_dim } else { head_dim };
        let (concat_heads, directed) = (random.below(3) != 1, random.below(2) == 1);
        let has_queries = variant == Variant::GatV2 && random.below(2) == 1;
        let has_bias = random.below(2) == 1;
        let options = [random.below(2), random.below(2)].map(|option| option == 1);
        let mut numbers =
            |len: u32, most: f64| -> Vec<f32> { (0..len).map(|_| random.between(-most, most) as f32).collect() };
        let width = heads * head_dim;
        Some(GraphAttentionInput {
            directed,
            node_features: numbers(nodes as u32 * features, 1.0).into(),
            num_heads: heads,
            head_dim,
            value_weights: numbers(features * width, 1.0).into(),
            attention_vectors: numbers(heads * of_head, 1.0).into(),
            variant,
            query_weights: has_queries.then(|| numbers(features * width, 1.0).into()),
            bias: has_bias.then(|| numbers(if concat_heads { width } else { head_dim }, 1.0).into()),
            concat_heads,
            negative_slope: 0.1,
            add_self_loops: options[0],
            activation: if options[1] { Activation::Elu } else { Activation::None },
            return_attention: nodes % 2 == 1,
            ..GraphAttentionInput::from_edges(nodes as u64, edges)
        })
    }

    fn share(&self, _: &mut GraphAttentionInput, _: &GraphAttentionInput) {}

    fn put_nan(&self, input: &mut GraphAttentionInput, row: usize) {
        let mut features = input.node_features.to_vec();
        features[row * input.feature_width()] = f32::NAN;
        input.node_features = features.into();
    }

    fn reference(&self, input: &GraphAttentionInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [_, mut sources] = neighbours(nodes, edges, input.directed);
        if input.add_self_loops {
            sources.iter_mut().enumerate().for_each(|(node, sources)| sources.push(node));
        }
        let (heads, head_dim) = (input.num_heads as usize, input.head_dim as usize);
        let width = heads * head_dim;
        let transform = |weights: &[f32]| -> Vec<Vec<f64>> {
            let column = |features: &[f32], column: usize| {
                let products = features
                    .iter()
                    .enumerate()
                    .map(|(index, &feature)| f64::from(feature) * f64::from(weights[index * width + column]));
                products.sum::<f64>()
            };
            let rows = input.node_features.chunks(input.feature_width());
            rows.map(|features| (0..width).map(|index| column(features, index)).collect()).collect()
        };
        let values = transform(&input.value_weights);
        let queries = transform(input.query_weights.as_ref().unwrap_or(&input.value_weights));
        let leaky = |x: f64| if x < 0.0 { input.negative_slope * x } else { x };
        let score = |source: usize, target: usize, head: usize| -> f64 {
            let vector = |index: usize| f64::from(input.attention_vectors[index]);
            let columns = || (0..head_dim).map(|index| (index, head * head_dim + index));
            match input.variant {
                Variant::Gat => leaky(
                    columns()
                        .map(|(index, column)| {
                            values[target][column] * vector(2 * head * head_dim + index)
                                + values[source][column] * vector((2 * head + 1) * head_dim + index)
                        })
                        .sum(),
                ),
                Variant::GatV2 => columns()
                    .map(|(_, column)| vector(column) * leaky(values[source][column] + queries[target][column]))
                    .sum(),
            }
        };
        let mut embeddings = Vec::new();
        let (mut of_sources, mut offsets, mut weights) = (Vec::new(), vec![(0.0, 0.0)], Vec::new());
        for (node, sources) in sources.iter().enumerate() {
            let of_heads: Vec<Vec<f64>> = (0..heads)
                .map(|head| softmax(&sources.iter().map(|&source| score(source, node, head)).collect::<Vec<_>>()))
                .collect();
            let sum = |column: usize| -> f64 {
                let terms = sources.iter().enumerate();
                terms.map(|(arc, &source)| of_heads[column / head_dim][arc] * values[source][column]).sum()
            };
            let row: Vec<f64> = (0..width).map(sum).collect();
            let row = if input.concat_heads { row } else { mean(&row, head_dim) };
            embeddings.extend(row.iter().enumerate().map(|(index, number)| {
                let number = number + input.bias.as_ref().map_or(0.0, |bias| bias[index].into());
                let is_elu = input.activation == Activation::Elu && number < 0.0;
                (if is_elu { number.exp_m1() } else { number }, 1e-4)
            }));
            for (arc, &source) in sources.iter().enumerate() {
                of_sources.push((source as f64, 0.0));
                weights.extend(of_heads.iter().map(|weights| (weights[arc], 2e-5)));
            }
            offsets.push((of_sources.len() as f64, 0.0));
        }
        let wanted = |values: Vec<(f64, f64)>| if input.return_attention { values } else { Vec::new() };
        vec![
            Expected { name: "embeddings", values: embeddings },
            Expected { name: "attention_offsets", values: wanted(offsets) },
            Expected { name: "attention_sources", values: wanted(of_sources) },
            Expected { name: "attention_weights", values: wanted(weights) },
        ]
    }

    fn values(&self, output: &GraphAttentionOutput) -> Vec<Vec<f64>> {
        let floats = |values: &[f32]| values.iter().map(|&value| value.into()).collect();
        let integers = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![
            floats(&output.embeddings),
            integers(&output.attention_offsets),
            integers(&output.attention_sources),
            floats(&output.attention_weights),
        ]
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| exponential / sum).collect()
}

fn mean(row: &[f64], head_dim: usize) -> Vec<f64> {
    let heads = row.len() / head_dim;
    (0..head_dim).map(|index| row.iter().skip(index).step_by(head_dim).sum::<f64>() / heads as f64).collect()
}
