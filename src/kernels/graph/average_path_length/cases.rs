//! The test's inputs, and a search from each source as the reference.

use super::{AveragePathLength, AveragePathLengthInput, AveragePathLengthOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{distances_from, neighbours, random_edges};

impl Cases for AveragePathLength {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<AveragePathLengthInput> {
        if nodes > 1_100 {
            return None;
        }
        let mut edges = random_edges(nodes, random);
        if random.below(2) == 1 {
            edges.extend((1..nodes.min(60) as u32).map(|node| [node - 1, node]));
        }
        let directed = random.below(2) == 1;
        let samples = (random.below(2) == 1).then(|| 1 + random.below(nodes as u64));
        let input = AveragePathLengthInput::from_edges(nodes as u64, edges);
        Some(AveragePathLengthInput { directed, samples, ..input })
    }

    fn share(&self, input: &mut AveragePathLengthInput, with: &AveragePathLengthInput) {
        *input = with.clone();
        // Another request on the same graph.
        (input.samples, input.sources) = (None, Some(vec![0].into()));
    }

    fn put_nan(&self, _: &mut AveragePathLengthInput, _: usize) {}

    fn reference(&self, input: &AveragePathLengthInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, _] = neighbours(nodes, edges, input.directed);
        let sources = input.sources_input().choose(nodes);
        let found = sources.iter().flat_map(|&source| distances_from(&successors, source as usize)).flatten();
        let distances: Vec<usize> = found.filter(|&distance| distance > 0).collect();
        let (pairs, total) = (distances.len(), distances.iter().sum::<usize>() as f64);
        let mean = if pairs == 0 { 0.0 } else { total / pairs as f64 };
        let exact = |value| vec![(value, 0.0)];
        let connected = pairs == sources.len() * (nodes - 1);
        vec![
            Expected { name: "average_path_length", values: exact(mean) },
            Expected { name: "diameter", values: exact(distances.iter().max().map_or(0.0, |&most| most as f64)) },
            Expected { name: "num_pairs", values: exact(pairs as f64) },
            Expected { name: "connected", values: exact(f64::from(u8::from(connected))) },
        ]
    }

    fn values(&self, output: &AveragePathLengthOutput) -> Vec<Vec<f64>> {
        let connected = f64::from(u8::from(output.connected));
        let values = [output.average_path_length, output.diameter as f64, output.num_pairs as f64, connected];
        values.map(|value| vec![value]).to_vec()
    }
}
