//! The test's inputs, and each metric by its definition as the reference.

use super::{FullMetrics, FullMetricsInput, FullMetricsOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{clustered_edges, distances_from, neighbours, random_edges, triangles};

impl Cases for FullMetrics {
    /// The reference takes too long for large graphs.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<FullMetricsInput> {
        if nodes > 1_100 {
            return None;
        }
        let edges = if random.below(2) == 1 { clustered_edges(nodes, random) } else { random_edges(nodes, random) };
        let directed = random.below(2) == 1;
        let path_samples = (random.below(2) == 1).then(|| 1 + random.below(nodes as u64));
        let input = FullMetricsInput::from_edges(nodes as u64, edges);
        Some(FullMetricsInput { directed, path_samples, ..input })
    }

    fn share(&self, _: &mut FullMetricsInput, _: &FullMetricsInput) {}

    fn put_nan(&self, _: &mut FullMetricsInput, _: usize) {}

    fn reference(&self, input: &FullMetricsInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [successors, _] = neighbours(nodes, edges, input.directed);
        let [both, _] = neighbours(nodes, edges, false);
        let count = nodes as f64;
        let arcs = successors.iter().map(Vec::len).sum::<usize>() as f64;
        let degrees: Vec<f64> = both.iter().map(|row| row.len() as f64).collect();
        let coefficient = |(&degree, triangles): (&f64, f64)| {
            if degree < 2.0 { 0.0 } else { triangles / (degree * (degree - 1.0) / 2.0) }
        };
        let clustering = degrees.iter().zip(triangles(&both)).map(coefficient).sum::<f64>() / count;
        let mut sizes: Vec<f64> = Vec::new();
        let mut is_counted = vec![false; nodes];
        for node in 0..nodes {
            if !is_counted[node] {
                let distances = distances_from(&both, node);
                let of_component = (0..nodes).filter(|&other| distances[other].is_some());
                sizes.push(of_component.map(|other| is_counted[other] = true).count() as f64);
            }
        }
        let sources = input.sources_input().choose(nodes);
        let found = sources.iter().flat_map(|&source| distances_from(&successors, source as usize)).flatten();
        let distances: Vec<f64> = found.filter(|&distance| distance > 0).map(|distance| distance as f64).collect();
        let mean = distances.iter().sum::<f64>() / (distances.len() as f64).max(1.0);
        let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let exact = |name, value| Expected { name, values: vec![(value, 0.0)] };
        let near = |name, value: f64| Expected { name, values: vec![(value, 1e-13 * value)] };
        vec![
            exact("num_nodes", count),
            exact("num_edges", if input.directed { arcs } else { arcs / 2.0 }),
            near("density", if arcs == 0.0 { 0.0 } else { arcs / (count * (count - 1.0)) }),
            near("average_degree", degrees.iter().sum::<f64>() / count),
            exact("min_degree", degrees.iter().copied().fold(f64::INFINITY, f64::min)),
            exact("max_degree", largest(&degrees)),
            near("average_clustering_coefficient", clustering),
            exact("num_components", sizes.len() as f64),
            exact("largest_component_size", largest(&sizes)),
            exact("is_connected", f64::from(u8::from(sizes.len() == 1))),
            near("average_path_length", mean),
            exact("diameter", largest(&distances)),
            exact("num_pairs", distances.len() as f64),
        ]
    }

    fn values(&self, output: &FullMetricsOutput) -> Vec<Vec<f64>> {
        let values = [
            output.num_nodes as f64,
            output.num_edges as f64,
            output.density,
            output.average_degree,
            output.min_degree.into(),
            output.max_degree.into(),
            output.average_clustering_coefficient,
            output.num_components.into(),
            output.largest_component_size.into(),
            f64::from(u8::from(output.is_connected)),
            output.average_path_length,
            output.diameter as f64,
            output.num_pairs as f64,
        ];
        values.map(|value| vec![value]).to_vec()
    }
}
