//! The test's inputs, and the definitions as the reference: entropies relative to the mixture, and the area between the
//! cumulative distributions.

use super::{Metric, ValueSimilarity, ValueSimilarityInput, ValueSimilarityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::service::FloatArray;

impl Cases for ValueSimilarity {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ValueSimilarityInput> {
        // The reference compares all pairs.
        if nodes > 1_000 {
            return None;
        }
        let bins = 1 + random.below(40) as usize;
        // Some of the bins are empty.
        let mut value = || if random.below(4) == 0 { 0.0 } else { random.between(0.0, 9.0) };
        let mut values: Vec<f64> = (0..nodes * bins).map(|_| value()).collect();
        values.iter_mut().step_by(bins).for_each(|first| *first += 0.5);
        let distributions: FloatArray = match random.below(2) {
            0 => values.iter().map(|&value| value as f32).collect::<Vec<_>>().into(),
            _ => values.into(),
        };
        let mut input = ValueSimilarityInput::new(distributions, nodes as u32);
        input.max_pairs = 1 + random.below(2_000) as u32;
        input.min_similarity = random.between(0.0, 0.5);
        if random.below(2) == 0 {
            input.metric = Metric::Wasserstein;
            let mut edge = -3.0;
            let mut next = |_| {
                edge += random.between(0.1, 2.0);
                edge
            };
            input.bin_edges = Some((0..=bins).map(&mut next).collect());
        }
        if nodes > 0 && random.below(3) == 0 {
            let mut node = || random.below(nodes as u64) as u32;
            input.pairs = Some((0..2 * nodes).map(|_| [node(), node()]).collect());
        }
        Some(input)
    }

    fn share(&self, _: &mut ValueSimilarityInput, _: &ValueSimilarityInput) {}

    fn put_nan(&self, input: &mut ValueSimilarityInput, row: usize) {
        if let FloatArray::F64(values) = &input.distributions {
            let mut values = values.to_vec();
            values[row] = f64::NAN;
            input.distributions = values.into();
        }
    }

    fn reference(&self, input: &ValueSimilarityInput) -> Vec<Expected> {
        let values: Vec<f64> = match &input.distributions {
            FloatArray::F32(values) => values.iter().map(|&value| value.into()).collect(),
            FloatArray::F64(values) => values.to_vec(),
            FloatArray::One(value) => vec![*value],
        };
        let bins = values.len() / input.num_distributions as usize;
        let normalize = |row: &[f64]| row.iter().map(|value| value / row.iter().sum::<f64>()).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = values.chunks(bins).map(normalize).collect();
        let distance = |&[a, b]: &[u32; 2]| match input.metric {
            Metric::Jsd => jensen_shannon(&rows[a as usize], &rows[b as usize]),
            Metric::Wasserstein => wasserstein(&rows[a as usize], &rows[b as usize], input.bin_edges.as_deref()),
        };
        let similarity = |distance: f64| match input.metric {
            Metric::Jsd => 1.0 - distance,
            Metric::Wasserstein => 1.0 / (1.0 + distance),
        };
        let mut pairs: Vec<(f64, [u32; 2])> = match &input.pairs {
            Some(pairs) => pairs.iter().map(|pair| (distance(pair), *pair)).collect(),
            None => (0..input.num_distributions)
                .flat_map(|a| (a + 1..input.num_distributions).map(move |b| [a, b]))
                .map(|pair| (distance(&pair), pair))
                .filter(|&(distance, _)| similarity(distance) >= input.min_similarity)
                .collect(),
        };
        let matching = pairs.len() as f64;
        if input.pairs.is_none() {
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            pairs.truncate(input.max_pairs as usize);
        }
        // The entropies of equal rows do not cancel exactly.
        let bound = |distance: f64| 1e-15 / distance.max(1e-8) + 1e-13 * distance;
        let node = |end: usize| pairs.iter().map(|pair| (f64::from(pair.1[end]), 0.0)).collect();
        vec![
            Expected { name: "node_a", values: node(0) },
            Expected { name: "node_b", values: node(1) },
            Expected {
                name: "similarities",
                values: pairs.iter().map(|pair| (similarity(pair.0), bound(pair.0))).collect(),
            },
            Expected { name: "distances", values: pairs.iter().map(|pair| (pair.0, bound(pair.0))).collect() },
            Expected { name: "matching_pairs", values: vec![(matching, 0.0)] },
        ]
    }

    fn values(&self, output: &ValueSimilarityOutput) -> Vec<Vec<f64>> {
        let nodes = [&output.node_a, &output.node_b].map(|nodes| nodes.iter().map(|&node| node.into()).collect());
        let [node_a, node_b] = nodes;
        let matching = vec![output.matching_pairs as f64];
        vec![node_a, node_b, output.similarities.to_vec(), output.distances.to_vec(), matching]
    }
}

/// The square root of the mean entropy relative to the mixture.
fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let entropy = |share: f64, mixture: f64| if share > 0.0 { share * (share / mixture).log2() } else { 0.0 };
    let bins = p.iter().zip(q).map(|(&p, &q)| {
        let mixture = (p + q) / 2.0;
        entropy(p, mixture) + entropy(q, mixture)
    });
    (bins.sum::<f64>() / 2.0).max(0.0).sqrt()
}

/// The area between the cumulative distributions of values at the middles of the bins.
fn wasserstein(p: &[f64], q: &[f64], edges: Option<&[f64]>) -> f64 {
    let middle = |bin: usize| edges.map_or(bin as f64, |edges| (edges[bin] + edges[bin + 1]) / 2.0);
    let (mut difference, mut area) = (0.0, 0.0_f64);
    for bin in 1..p.len() {
        difference += p[bin - 1] - q[bin - 1];
        area += difference.abs() * (middle(bin) - middle(bin - 1));
    }
    area
}
