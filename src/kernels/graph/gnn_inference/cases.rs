//! The test's inputs, and the definition with lists of neighbours in `f64` as the reference.

use super::{Activation, Aggregation, GnnInference, GnnInferenceInput, GnnInferenceOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for GnnInference {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<GnnInferenceInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        // Hubs whose rows are split into pieces.
        edges.extend((1..nodes as u32).flat_map(|node| [[node, 0], [0, node]]));
        let directed = random.below(2) == 1;
        let widths = [1, 3, 4, 16, 33, 64, 130];
        let sizes: Vec<u32> = (0..2 + random.below(3)).map(|_| widths[random.below(7) as usize]).collect();
        let numbers = |len: usize, most: f64, random: &mut Random| -> Vec<f32> {
            (0..len).map(|_| random.between(-most, most) as f32).collect()
        };
        let mut weights = Vec::new();
        for sizes in sizes.windows(2) {
            weights.extend(numbers((sizes[0] * sizes[1]) as usize, 1.0 / f64::from(sizes[0]).sqrt(), random));
        }
        let outputs: u32 = sizes[1..].iter().sum();
        use {Activation as A, Aggregation as G};
        Some(GnnInferenceInput {
            directed,
            node_features: numbers(nodes * sizes[0] as usize, 1.0, random).into(),
            layer_weights: weights.into(),
            layer_biases: (random.below(2) == 1).then(|| numbers(outputs as usize, 0.5, random).into()),
            layer_sizes: sizes.into(),
            aggregation: [G::Sum, G::Mean, G::Max, G::Gcn][random.below(4) as usize],
            activation: [A::Relu, A::LeakyRelu, A::Sigmoid, A::Tanh, A::Elu][random.below(5) as usize],
            output_activation: [A::None, A::Relu, A::Tanh][random.below(3) as usize],
            add_self_loops: random.below(2) == 1,
            layer_norm: random.below(3) == 1,
            return_probabilities: random.below(2) == 1,
            ..GnnInferenceInput::from_edges(nodes as u64, edges)
        })
    }

    fn share(&self, _: &mut GnnInferenceInput, _: &GnnInferenceInput) {}

    fn put_nan(&self, input: &mut GnnInferenceInput, row: usize) {
        let mut features = input.node_features.to_vec();
        features[row * input.layer_sizes[0] as usize] = f32::NAN;
        input.node_features = features.into();
    }

    fn reference(&self, input: &GnnInferenceInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [_, mut of_nodes] = neighbours(nodes, edges, input.directed);
        if input.add_self_loops {
            of_nodes.iter_mut().enumerate().for_each(|(node, neighbours)| neighbours.push(node));
        }
        let mut width = input.layer_sizes[0] as usize;
        let mut rows = matrix(&input.node_features, width);
        let (mut weights, mut biases) = (&*input.layer_weights, input.layer_biases.as_deref());
        let mut largest: f64 = 1.0;
        for (index, &outputs) in input.layer_sizes.iter().enumerate().skip(1) {
            let outputs = outputs as usize;
            let is_last = index + 1 == input.layer_sizes.len();
            let (of_layer, rest) = weights.split_at(width * outputs);
            weights = rest;
            let bias = biases.map(|all| all.split_at(outputs));
            biases = bias.map(|(_, rest)| rest);
            let of_layer = matrix(of_layer, outputs);
            let aggregated: Vec<Vec<f64>> =
                (0..nodes).map(|node| aggregate(&of_nodes, node, &rows, width, input.aggregation)).collect();
            rows = aggregated.iter().map(|row| product(row, &of_layer, bias.map(|(bias, _)| bias))).collect();
            if input.layer_norm && !is_last {
                rows.iter_mut().for_each(|row| normalize(row));
            }
            let activation = if is_last { input.output_activation } else { input.activation };
            rows.iter_mut().flatten().for_each(|number| *number = activate(activation, *number));
            largest = rows.iter().flatten().fold(largest, |largest, number| largest.max(number.abs()));
            width = outputs;
        }
        // Normalization enlarges the error of rows that are nearly constant.
        let bound = largest * if input.layer_norm { 1e-3 } else { 2e-5 };
        let of = |rows: &[Vec<f64>], bound: f64| rows.iter().flatten().map(|&number| (number, bound)).collect();
        let probabilities: Vec<Vec<f64>> = rows.iter().map(|row| softmax(row)).collect();
        let is_wanted = input.return_probabilities;
        vec![
            Expected { name: "embeddings", values: of(&rows, bound) },
            Expected {
                name: "probabilities",
                values: if is_wanted { of(&probabilities, 2.0 * bound) } else { Vec::new() },
            },
        ]
    }

    fn values(&self, output: &GnnInferenceOutput) -> Vec<Vec<f64>> {
        [&output.embeddings, &output.probabilities].map(|numbers| numbers.iter().map(|&x| x.into()).collect()).to_vec()
    }
}

fn matrix(numbers: &[f32], columns: usize) -> Vec<Vec<f64>> {
    numbers.chunks(columns).map(|row| row.iter().map(|&number| number.into()).collect()).collect()
}

fn aggregate(
    neighbours: &[Vec<usize>],
    node: usize,
    rows: &[Vec<f64>],
    width: usize,
    aggregation: Aggregation,
) -> Vec<f64> {
    let degree = |node: usize| neighbours[node].len() as f64;
    let mut all = neighbours[node].iter().map(|&neighbour| (neighbour, &rows[neighbour]));
    let scaled = |scale: &dyn Fn(usize) -> f64, all: &mut dyn Iterator<Item = (usize, &Vec<f64>)>| {
        all.fold(vec![0.0; width], |mut sums, (neighbour, row)| {
            sums.iter_mut().zip(row).for_each(|(sum, number)| *sum += scale(neighbour) * number);
            sums
        })
    };
    match aggregation {
        Aggregation::Sum => scaled(&|_| 1.0, &mut all),
        Aggregation::Mean => scaled(&|_| 1.0 / degree(node), &mut all),
        // A node without neighbours of its own, in a directed graph, has no finite weight.
        Aggregation::Gcn => scaled(
            &|other| if degree(other) > 0.0 { (degree(node) * degree(other)).sqrt().recip() } else { 0.0 },
            &mut all,
        ),
        Aggregation::Max if neighbours[node].is_empty() => vec![0.0; width],
        Aggregation::Max => {
            let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
            all.fold(vec![f64::NEG_INFINITY; width], |most, (_, row)| {
                most.into_iter().zip(row).map(|(a, &b)| larger(a, b)).collect()
            })
        }
    }
}

fn product(row: &[f64], weights: &[Vec<f64>], bias: Option<&[f32]>) -> Vec<f64> {
    let bias = |column: usize| bias.map_or(0.0, |bias| bias[column].into());
    let column = |column: usize| row.iter().zip(weights).map(|(x, weights)| x * weights[column]).sum::<f64>();
    (0..weights[0].len()).map(|index| column(index) + bias(index)).collect()
}

fn normalize(row: &mut [f64]) {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|x| *x = (*x - mean) / (variance + 1e-5).sqrt());
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Relu if x < 0.0 => 0.0,
        Activation::LeakyRelu if x < 0.0 => 0.01 * x,
        Activation::Elu if x < 0.0 => x.exp_m1(),
        Activation::Relu | Activation::LeakyRelu | Activation::Elu => x,
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = row.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|x| x / sum).collect()
}
