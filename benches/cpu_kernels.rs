//! Times of the CPU kernels, for `benches/peers/*.py` to set beside other libraries.
//!
//! `cargo bench --bench cpu_kernels -- graph` prints one line a case: name, size, and the median of the runs.
//! `RAYON_NUM_THREADS` sets the threads.

use std::time::Instant;

use tower_kernels::kernels::authoring::{Float, Random};
use tower_kernels::kernels::compliance::names::{NameList, NameListDocument, Scorer};
use tower_kernels::kernels::compliance::sanctions_screening::{SanctionsScreening, SanctionsScreeningInput};
use tower_kernels::kernels::core::segmented_aggregate::{Aggregate, SegmentedAggregate, SegmentedAggregateInput};
use tower_kernels::kernels::graph::betweenness_centrality::brandes::pair_dependencies;
use tower_kernels::kernels::graph::betweenness_centrality::pivots::Pivots;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::ml::kmeans_cluster::{KMeansCluster, KMeansInput};
use tower_kernels::kernels::ml::semantic_similarity::{SemanticSimilarity, SemanticSimilarityInput};
use tower_kernels::kernels::risk::monte_carlo_var::{MonteCarloVar, MonteCarloVarInput};
use tower_kernels::kernels::risk::option_pricing::{OptionKind, OptionPricing, OptionPricingInput};
use tower_kernels::kernels::temporal::volatility_analysis::{VolatilityAnalysis, VolatilityInput};
use tower_kernels::service::{
    Bf16, FloatArray, Kernel, Operand, OperandValue, Operands, RunContext, VectorElements, Vectors,
};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    if wants("graph") {
        graph();
    }
    if wants("names") {
        names();
    }
    if wants("kmeans") {
        kmeans();
    }
    if wants("aggregate") {
        aggregate();
    }
    if wants("pricing") {
        pricing::<f64>("f64");
        pricing::<f32>("f32");
    }
    if wants("var") {
        value_at_risk();
    }
    if wants("volatility") {
        volatility();
    }
    if wants("similarity") {
        similarity();
    }
    if wants("catalogue") {
        catalogue();
    }
}

/// Iterations of k-means from given centroids, and the seeding with one iteration, on uniform random points.
fn kmeans() {
    const ITERATIONS: u32 = 10;
    for (points, features, k) in [(100_000, 128, 256), (1_000_000, 16, 16), (1_000_000, 2, 64)] {
        let mut random = Random::new(1);
        let data: Vec<f32> = (0..points * features).map(|_| random.between(0.0, 1.0) as f32).collect();
        let init = data[..k * features].to_vec();
        let seeded = KMeansInput { max_iterations: 1, ..KMeansInput::new(data, features as u32, k as u32) };
        let iterated =
            KMeansInput { max_iterations: ITERATIONS, tolerance: 0.0, init: Some(init.into()), ..seeded.clone() };
        let [iterations, seeding] = [&iterated, &seeded]
            .map(|input| median_ms(3, || drop(KMeansCluster.run_cpu(input, &RunContext::detached()).expect("a run"))));
        println!(
            "kmeans points={points} features={features} k={k} iterations={ITERATIONS} ms={iterations:.3} seeding_ms={seeding:.3}"
        );
    }
}

/// All aggregates of ten million rows by 64-bit keys: dense ones, and ones that are spread over all 64 bits.
fn aggregate() {
    const ROWS: usize = 10_000_000;
    for groups in [1, 1_000, 1_000_000, 10_000_000] {
        let mut random = Congruence(42);
        let dense: Vec<i64> = (0..ROWS).map(|_| random.below(groups).into()).collect();
        let spread: Vec<i64> =
            dense.iter().map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed())).collect();
        let values: Vec<f64> = dense.iter().map(|_| f64::from(random.below(1 << 20)) / 1024.0).collect();
        for (name, keys) in [("dense", dense), ("spread", spread)] {
            let all = [Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Count, Aggregate::Mean];
            for (aggregates, asked) in [("sum", Aggregate::Sum.into()), ("all", all.to_vec().into())] {
                let input = SegmentedAggregateInput {
                    aggregates: asked,
                    ..SegmentedAggregateInput::new(keys.clone(), values.clone())
                };
                let ms =
                    median_ms(3, || drop(SegmentedAggregate.run_cpu(&input, &RunContext::detached()).expect("a run")));
                println!("aggregate {name} {aggregates} rows={ROWS} groups={groups} ms={ms:.1}");
            }
        }
    }
}

/// Value at risk of 64 independent factors.
fn value_at_risk() {
    const FACTORS: usize = 64;
    for scenarios in [100_000, 2_000_000] {
        let input = MonteCarloVarInput::new(vec![1.0; FACTORS], vec![0.125; FACTORS], scenarios);
        let ms = median_ms(3, || drop(MonteCarloVar.run_cpu(&input, &RunContext::detached()).expect("a run")));
        println!("var scenarios={scenarios} factors={FACTORS} ms={ms:.3}");
    }
}

/// The best 10 of 100 000 vectors of 768 numbers.
fn similarity() {
    const ROWS: usize = 100_000;
    const DIMENSION: usize = 768;
    let mut random = Random::new(3);
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.between(-1.0, 1.0) as f32).collect() };
    let corpus = numbers(ROWS * DIMENSION);
    let halves: Vec<Bf16> = corpus.iter().copied().map(Bf16::from_f32).collect();
    for (name, elements) in [("float32", VectorElements::from(corpus)), ("bfloat16", halves.into())] {
        let corpus = Operands::default().put("corpus", Vectors::new(DIMENSION, elements).expect("they are finite"));
        let corpus = corpus.expect("there is room");
        for queries in [1, 128] {
            let input = SemanticSimilarityInput::new(numbers(queries * DIMENSION), corpus.clone());
            let run = || drop(SemanticSimilarity.run_cpu(&input, &RunContext::detached()).expect("a run"));
            run();
            let ms = median_ms(5, run);
            println!("similarity rows={ROWS} dimension={DIMENSION} queries={queries} dtype={name} ms={ms:.3}");
        }
    }
}

/// GARCH(1,1) of the series in the file that `VOLATILITY_SERIES` names, as `benches/peers/volatility_peers.py` writes
/// it: little-endian f64, 1000 a series. Prints the sum of the log-likelihoods as well, for a comparison.
fn volatility() {
    const LEN: usize = 1_000;
    let Some(path) = std::env::var_os("VOLATILITY_SERIES") else { return };
    let bytes = std::fs::read(path).expect("the file of the series");
    let (numbers, _) = bytes.as_chunks::<8>();
    let returns: Vec<f64> = numbers.iter().map(|number| f64::from_le_bytes(*number)).collect();
    let series = returns.len() / LEN;
    let input = VolatilityInput { num_series: series as u32, ..VolatilityInput::new(returns) };
    let run = || VolatilityAnalysis.run_cpu(&input, &RunContext::detached()).expect("a run");
    let likelihood: f64 = run().log_likelihood.iter().sum();
    let ms = median_ms(3, || drop(run()));
    println!("volatility series={series} ms={ms:.3} log_likelihood={likelihood:.6}");
}

/// The names in the file that `NAMES` names, as `benches/peers/name_peers.py` writes it: an empty line between the list and
/// the names that are screened. Prints the number of matches as well, for a comparison.
fn names() {
    let Some(path) = std::env::var_os("NAMES") else { return };
    let text = std::fs::read_to_string(path).expect("the file of the names");
    let (list, queries) = text.split_once("\n\n").expect("two parts");
    let list = NameList::from_document(&NameListDocument::new(list.lines()), &RunContext::detached()).expect("a list");
    let list: Operand<NameList> = Operands::default().put("list", list).expect("memory");
    let queries: Vec<String> = queries.lines().map(str::to_owned).collect();
    let scorers = [Scorer::JaroWinkler, Scorer::Edit, Scorer::Ratio, Scorer::TokenSort, Scorer::TokenSet];
    for (scorer, min_score) in scorers.into_iter().flat_map(|scorer| [(scorer, 0.85), (scorer, 0.0)]) {
        let input = SanctionsScreeningInput {
            scorer,
            min_score,
            ..SanctionsScreeningInput::new(queries.clone(), list.clone())
        };
        let run = || SanctionsScreening.run_cpu(&input, &RunContext::detached()).expect("a run");
        let matches = run().entries.len();
        let ms = median_ms(3, || drop(run()));
        println!("names scorer={scorer:?} min_score={min_score} ms={ms:.1} matches={matches}");
    }
}

/// The middle of the times of `runs` runs, in milliseconds.
fn median_ms(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// The contracts of `pricing_peers.py` in kind, not in value: every input an array but the rate and the yield.
fn pricing<T: Float + From<f32>>(name: &str)
where
    FloatArray: From<Vec<T>>,
{
    for contracts in [1_000, 100_000, 1_000_000] {
        let mut random = Congruence(7);
        let mut between = |low: f32, high: f32| -> FloatArray {
            (0..contracts)
                .map(|_| (low + (high - low) * random.below(1 << 20) as f32 / (1 << 20) as f32).into())
                .collect::<Vec<T>>()
                .into()
        };
        let (spot, strike) = (between(50.0, 150.0), between(50.0, 150.0));
        let (volatility, time) = (between(0.05, 0.8), between(0.02, 3.0));
        let kind = |index: usize| if index.is_multiple_of(2) { OptionKind::Call } else { OptionKind::Put };
        let input = OptionPricingInput {
            spot,
            strike,
            rate: 0.03.into(),
            volatility,
            time,
            dividend_yield: 0.01.into(),
            kind: (0..contracts).map(kind).collect::<Vec<_>>().into(),
            precision: None,
        };
        let ms = median_ms(21, || {
            std::hint::black_box(OptionPricing.run_cpu(&input, &RunContext::detached()).expect("nobody cancels it"));
        });
        println!("pricing {name} contracts={contracts} ms={ms:.4}");
    }
}

/// Every kernel of the catalogue on random inputs of its own.
fn catalogue() {
    for kernel in tower_kernels::kernels::cases() {
        for size in [1_000, 100_000, 1_000_000, 10_000_000] {
            let mut random = Random::new(1);
            let Some(run) = kernel.run_on_cpu(size, &mut random) else { continue };
            let ms = median_ms(if size > 1_000_000 { 9 } else { 21 }, || run().expect("nobody cancels it"));
            println!("{} size={size} ms={ms:.4}", kernel.id());
        }
    }
}

fn graph() {
    let grid = |side: u32| {
        (0..side * side).flat_map(move |node| {
            let right = (node % side + 1 < side).then_some([node, node + 1]);
            let down = (node / side + 1 < side).then_some([node, node + side]);
            right.into_iter().chain(down)
        })
    };
    let cases: [(&str, usize, Vec<[u32; 2]>, usize); 5] = [
        ("random", 2_000, random_edges(2_000, 10_000), 2_000),
        ("random-large", 200_000, random_edges(200_000, 1_000_000), 64),
        ("preferential", 2_000, preferential_edges(2_000, 5), 2_000),
        ("grid", 2_500, grid(50).collect(), 2_500),
        ("grid-large", 250_000, grid(500).collect(), 64),
    ];
    for (name, num_nodes, edges, samples) in cases {
        let graph = CsrGraph::from_edges(num_nodes, &edges, Direction::Undirected).expect("edges are in range");
        let pivots = Pivots::sampled(samples, 1, num_nodes).expect("samples are in range");
        let ms = median_ms(if num_nodes > 100_000 { 3 } else { 9 }, || {
            let mut scores = pair_dependencies(&graph, &pivots, &RunContext::detached()).expect("few paths");
            pivots.rescale(&mut scores, true, graph.direction());
            std::hint::black_box(scores);
        });
        println!("betweenness {name} nodes={num_nodes} edges={} sources={samples} ms={ms:.2}", graph.num_arcs() / 2);
    }
}

/// The generator of `graph_peers.py`: Knuth's 64-bit linear congruence, high bits.
struct Congruence(u64);

impl Congruence {
    fn below(&mut self, bound: u64) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as u32
    }
}

/// Random pairs of nodes; pairs may repeat and the graph drops what does.
fn random_edges(num_nodes: u64, count: usize) -> Vec<[u32; 2]> {
    let mut random = Congruence(42);
    (0..count).map(|_| [random.below(num_nodes), random.below(num_nodes)]).collect()
}

/// Each node from the second on links to `links` ends of earlier edges.
fn preferential_edges(num_nodes: u32, links: usize) -> Vec<[u32; 2]> {
    let mut random = Congruence(42);
    let mut ends = vec![0_u32];
    let mut edges = Vec::new();
    for node in 1..num_nodes {
        let known = ends.len() as u64;
        for _ in 0..links {
            let other = ends[random.below(known) as usize];
            edges.push([node, other]);
            ends.extend([node, other]);
        }
    }
    edges
}
