//! The test's inputs, and searches with a queue and with a heap as the reference.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{ShortestPath, ShortestPathInput, ShortestPathOutput, UNREACHABLE};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{distances_from, neighbours, random_edges};

impl Cases for ShortestPath {
    /// A sparse graph, a denser one with a hub, or a long path with its nodes mixed.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ShortestPathInput> {
        let mut edges = random_edges(nodes, random);
        match random.below(3) {
            0 => {
                let mut order: Vec<u32> = (0..nodes as u32).collect();
                (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
                edges = order.windows(2).map(|pair| [pair[0], pair[1]]).collect();
            }
            1 => {
                edges.extend(random_edges(nodes, random));
                edges.extend((0..nodes as u32).filter(|node| node % 3 == 0).map(|node| [0, node]));
            }
            _ => {}
        }
        let count = if nodes > 10_000 { 2 } else { 1 + random.below(40) };
        let sources = (0..count).map(|_| random.below(nodes as u64) as u32).collect::<Vec<_>>();
        let (directed, predecessors) = (random.below(2) == 1, random.below(4) > 0);
        let weights = (random.below(2) == 1).then(|| weights(edges.len(), random).into());
        let use_weights = random.below(4) > 0;
        let input = ShortestPathInput::from_edges(nodes as u64, edges);
        let input =
            ShortestPathInput { directed, predecessors, sources: sources.into(), weights, use_weights, ..input };
        if random.below(2) == 0 {
            return Some(input);
        }
        let targets = (0..1 + random.below(6)).map(|_| random.below(nodes as u64) as u32).collect::<Vec<_>>();
        let paths = random.below(4) > 0;
        // As many as those of 40 sources have in the longest path.
        let max_path_nodes = 1 << 28;
        Some(ShortestPathInput { targets: Some(targets.into()), predecessors: false, paths, max_path_nodes, ..input })
    }

    fn share(&self, _: &mut ShortestPathInput, _: &ShortestPathInput) {}

    fn put_nan(&self, _: &mut ShortestPathInput, _: usize) {}

    fn reference(&self, input: &ShortestPathInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        if input.is_weighted() {
            let (distances, predecessors) = weighted_reference(input, nodes, edges);
            return expected(input, nodes, Distances::Weights(distances), predecessors);
        }
        let [successors, before] = neighbours(nodes, edges, input.directed);
        let (mut distances, mut predecessors) = (Vec::new(), Vec::new());
        for &source in input.sources.iter() {
            let distance: Vec<u32> = distances_from(&successors, source as usize)
                .into_iter()
                .map(|distance| distance.map_or(UNREACHABLE, |distance| distance as u32))
                .collect();
            let lowest = |node: usize| {
                let is_before =
                    |&other: &usize| distance[other] != UNREACHABLE && distance[other] + 1 == distance[node];
                before[node].iter().copied().find(is_before).map_or(UNREACHABLE, |other| other as u32)
            };
            predecessors.extend((0..nodes).map(lowest));
            distances.extend(distance);
        }
        expected(input, nodes, Distances::Edges(distances), predecessors)
    }

    fn values(&self, output: &ShortestPathOutput) -> Vec<Vec<f64>> {
        let values = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        let weighted = output.weighted_distances.as_deref().unwrap_or_default().to_vec();
        let path_offsets = values(output.path_offsets.as_deref().unwrap_or_default());
        let path_nodes = values(output.path_nodes.as_deref().unwrap_or_default());
        vec![values(&output.distances), weighted, values(&output.predecessors), path_offsets, path_nodes]
    }
}

/// The distances to all nodes, source by source.
enum Distances {
    Edges(Vec<u32>),
    Weights(Vec<f64>),
}

/// What is expected of an input, from the distances and predecessors of all nodes.
fn expected(input: &ShortestPathInput, nodes: usize, distances: Distances, predecessors: Vec<u32>) -> Vec<Expected> {
    let (mut offsets, mut path_nodes) = (Vec::new(), Vec::new());
    let mut items: Vec<usize> = (0..predecessors.len()).collect();
    if let Some(targets) = &input.targets {
        let pairs = (0..input.sources.len()).flat_map(|source| targets.iter().map(move |&target| (source, target)));
        items = pairs.map(|(source, target)| source * nodes + target as usize).collect();
        if input.paths {
            offsets.push(0);
            for &item in &items {
                path_nodes.extend(path(
                    item % nodes,
                    input.sources[item / nodes],
                    &predecessors[item / nodes * nodes..],
                ));
                offsets.push(path_nodes.len() as u32);
            }
        }
    }
    let exact = |values: Vec<u32>| values.into_iter().map(|value| (value.into(), 0.0)).collect();
    let (edges, weighted) = match distances {
        Distances::Edges(distances) => (items.iter().map(|&item| distances[item]).collect(), Vec::new()),
        Distances::Weights(distances) => (Vec::new(), items.iter().map(|&item| (distances[item], 0.0)).collect()),
    };
    vec![
        Expected { name: "distances", values: exact(edges) },
        Expected { name: "weighted_distances", values: weighted },
        Expected { name: "predecessors", values: exact(if input.predecessors { predecessors } else { Vec::new() }) },
        Expected { name: "path_offsets", values: exact(offsets) },
        Expected { name: "path_nodes", values: exact(path_nodes) },
    ]
}

/// The path from a source along the predecessors of all nodes, or none.
fn path(target: usize, source: u32, predecessors: &[u32]) -> Vec<u32> {
    let mut path = vec![target as u32];
    while let Some(&before) = path.last().map(|&node| &predecessors[node as usize]).filter(|&&node| node != UNREACHABLE)
    {
        path.push(before);
    }
    path.reverse();
    if path[0] == source { path } else { Vec::new() }
}

/// Weights of which many are equal and some are 0, or weights of very different sizes.
fn weights(count: usize, random: &mut Random) -> Vec<f32> {
    let few = random.below(2) == 0;
    let quarters = |random: &mut Random| random.below(9) as f32 / 4.0;
    let any = |random: &mut Random| (1.0 + random.below(1 << 20) as f32) * 2_f32.powi(random.below(41) as i32 - 20);
    (0..count).map(|_| if few { quarters(random) } else { any(random) }).collect()
}

/// Dijkstra's algorithm, by distance and then by edges.
fn weighted_reference(input: &ShortestPathInput, nodes: usize, edges: &[[u32; 2]]) -> (Vec<f64>, Vec<u32>) {
    let weights = input.weights.as_deref().expect("the graph has weights");
    let mut arcs = vec![BTreeMap::new(); nodes];
    for (&[from, to], &weight) in edges.iter().zip(weights).filter(|([from, to], _)| from != to) {
        let ends = if input.directed { vec![(from, to)] } else { vec![(from, to), (to, from)] };
        for (from, to) in ends {
            arcs[from as usize].entry(to).and_modify(|least: &mut f32| *least = least.min(weight)).or_insert(weight);
        }
    }
    let (mut distances, mut predecessors) = (Vec::new(), Vec::new());
    for &source in input.sources.iter() {
        // The bits of numbers that are not negative are ordered as the numbers are.
        let mut best = vec![(f64::INFINITY.to_bits(), UNREACHABLE); nodes];
        best[source as usize] = (0, 0);
        let mut heap = BinaryHeap::from([Reverse((0_u64, 0_u32, source))]);
        let after =
            |(bits, hops): (u64, u32), weight: f32| ((f64::from_bits(bits) + f64::from(weight)).to_bits(), hops + 1);
        while let Some(Reverse((bits, hops, node))) = heap.pop() {
            if best[node as usize] != (bits, hops) {
                continue;
            }
            for (&next, &weight) in &arcs[node as usize] {
                let reached = after((bits, hops), weight);
                if reached < best[next as usize] {
                    best[next as usize] = reached;
                    heap.push(Reverse((reached.0, reached.1, next)));
                }
            }
        }
        let mut before = vec![UNREACHABLE; nodes];
        for (node, arcs) in (0_u32..).zip(&arcs).filter(|&(node, _)| best[node as usize].1 != UNREACHABLE) {
            for (&next, &weight) in arcs {
                let is_before = after(best[node as usize], weight) == best[next as usize];
                if is_before && before[next as usize] == UNREACHABLE {
                    before[next as usize] = node;
                }
            }
        }
        distances.extend(best.iter().map(|&(bits, _)| f64::from_bits(bits)));
        predecessors.extend(before);
    }
    (distances, predecessors)
}
