//! The test's inputs, and scores from sets of neighbours as the reference.

use super::{MAX_TOP_K, Measure, Request};
use crate::kernels::authoring::{Expected, Random};
use crate::kernels::graph::cases::neighbours;

/// Implements [`Cases`](crate::kernels::authoring::Cases) for a kernel on the similarity of nodes.
macro_rules! similarity_cases {
    ($Kernel:ident, $Input:ident, $measure:ident) => {
        impl $crate::kernels::authoring::Cases for $Kernel {
            /// The reference takes too long for large graphs.
            fn case(&self, nodes: usize, random: &mut $crate::kernels::authoring::Random) -> Option<$Input> {
                if nodes > 5_000 {
                    return None;
                }
                let edges = $crate::kernels::graph::cases::clustered_edges(nodes, random);
                let (pairs, of_nodes, top_k) = $crate::kernels::graph::similarity::cases::wanted(nodes, random);
                Some($Input { pairs, nodes: of_nodes, top_k, ..$Input::from_edges(nodes as u64, edges) })
            }

            fn share(&self, input: &mut $Input, with: &$Input) {
                (input.num_nodes, input.edges) = (with.num_nodes, with.edges.clone());
                let nodes = with.num_nodes.unwrap_or(1) as u32;
                for pair in input.pairs.iter_mut().flatten() {
                    *pair = [pair[0] % nodes, (pair[0] + 1) % nodes];
                }
                input.nodes = input.nodes.as_ref().map(|of_nodes| of_nodes.iter().map(|node| node % nodes).collect());
            }

            fn put_nan(&self, _: &mut $Input, _: usize) {}

            fn reference(&self, input: &$Input) -> Vec<$crate::kernels::authoring::Expected> {
                let measure = $crate::kernels::graph::similarity::Measure::$measure;
                $crate::kernels::graph::similarity::cases::reference(measure, &input.request())
            }

            fn values(&self, output: &Self::Output) -> Vec<Vec<f64>> {
                vec![output.scores.to_vec(), output.similar_nodes.iter().map(|&node| node.into()).collect()]
            }
        }
    };
}

pub(in crate::kernels::graph) use similarity_cases;

type Wanted = (Option<Vec<[u32; 2]>>, Option<crate::service::Buffer<u32>>, u32);

/// Returns random pairs, or random nodes and a number of similar ones.
pub(in crate::kernels::graph) fn wanted(nodes: usize, random: &mut Random) -> Wanted {
    let mut node = || random.below(nodes as u64) as u32;
    if nodes < 2 || node().is_multiple_of(2) {
        let pairs = (0..nodes.min(200)).map(|_| [node(), node()]).filter(|[a, b]| a != b).collect();
        return (Some(pairs), None, 10);
    }
    let of_nodes: Vec<u32> = (0..nodes.min(40)).map(|_| node()).collect();
    let top_k = 1 + node() % MAX_TOP_K;
    (None, Some(of_nodes.into()), top_k)
}

pub(in crate::kernels::graph) fn reference(measure: Measure, request: &Request<'_>) -> Vec<Expected> {
    let edges = request.graph.edges.expect("the cases have edges");
    let num_nodes = request.graph.num_nodes.expect("the cases have nodes") as usize;
    let [neighbours, _] = neighbours(num_nodes, edges, false);
    let score = |a: usize, b: usize| {
        let common: Vec<usize> =
            neighbours[a].iter().copied().filter(|node| neighbours[b].binary_search(node).is_ok()).collect();
        let (count, degrees) = (common.len() as f64, [a, b].map(|node| neighbours[node].len() as f64));
        match measure {
            Measure::CommonNeighbors => count,
            Measure::AdamicAdar => exact_sum(common.iter().map(|&node| 1.0 / (neighbours[node].len() as f64).ln())),
            _ if common.is_empty() => 0.0,
            Measure::Jaccard => count / (degrees[0] + degrees[1] - count),
            Measure::Cosine => count / (degrees[0] * degrees[1]).sqrt(),
        }
    };
    let mut best = Vec::new();
    for &[a, b] in request.pairs.unwrap_or_default() {
        best.push((score(a as usize, b as usize), None));
    }
    for &node in request.nodes.unwrap_or_default() {
        let others = (0..num_nodes).filter(|&other| other != node as usize);
        let mut scores: Vec<_> = others.map(|other| (score(node as usize, other), Some(other as f64))).collect();
        // A stable sort keeps the order of the nodes.
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        scores.truncate(request.top_k as usize);
        best.extend(scores);
    }
    // Sums are exact, so that ties are the same.
    let values = best.iter().map(|&(score, _)| (score, 0.0)).collect();
    let similar_nodes = best.iter().filter_map(|&(_, node)| Some((node?, 0.0))).collect();
    vec![Expected { name: "scores", values }, Expected { name: "similar_nodes", values: similar_nodes }]
}

/// Returns the sum of numbers from 2^-5 to 2, rounded once.
fn exact_sum(numbers: impl Iterator<Item = f64>) -> f64 {
    // Multiples of 2^-57, all of them.
    let scale = 2_f64.powi(57);
    numbers.map(|number| (number * scale) as u128).sum::<u128>() as f64 / scale
}
