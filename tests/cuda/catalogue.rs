//! The built-in kernels: CUDA gives what the CPU gives.

use std::sync::Arc;
use std::time::Duration;

use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::authoring::Precision;
use tower_kernels::kernels::compliance::entity_resolution::{EntityResolutionInput, EntityResolutionOutput};
use tower_kernels::kernels::compliance::names::{Entity, NameList, NameListDocument, Scorer};
use tower_kernels::kernels::compliance::sanctions_screening::{SanctionsScreeningInput, SanctionsScreeningOutput};
use tower_kernels::kernels::core::segmented_aggregate::{Aggregate, SegmentedAggregateInput, SegmentedAggregateOutput};
use tower_kernels::kernels::graph::adamic_adar::AdamicAdarInput;
use tower_kernels::kernels::graph::average_path_length::{AveragePathLengthInput, AveragePathLengthOutput};
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::closeness_centrality::{ClosenessInput, ClosenessOutput};
use tower_kernels::kernels::graph::common_neighbors::CommonNeighborsInput;
use tower_kernels::kernels::graph::connected_components::{ConnectedComponentsInput, ConnectedComponentsOutput};
use tower_kernels::kernels::graph::cosine_similarity::CosineSimilarityInput;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::cycle_participation::{CycleParticipationInput, CycleParticipationOutput};
use tower_kernels::kernels::graph::eigenvector_centrality::{EigenvectorCentralityInput, EigenvectorCentralityOutput};
use tower_kernels::kernels::graph::gnn_inference::{Aggregation, GnnInferenceInput, GnnInferenceOutput};
use tower_kernels::kernels::graph::graph_attention::{GraphAttentionInput, GraphAttentionOutput, Variant};
use tower_kernels::kernels::graph::jaccard_similarity::JaccardSimilarityInput;
use tower_kernels::kernels::graph::k_clique::{KCliqueInput, KCliqueOutput};
use tower_kernels::kernels::graph::katz_centrality::{KatzCentralityInput, KatzCentralityOutput};
use tower_kernels::kernels::graph::label_propagation::{LabelPropagationInput, LabelPropagationOutput};
use tower_kernels::kernels::graph::louvain_community::{LouvainCommunityInput, LouvainCommunityOutput};
use tower_kernels::kernels::graph::modularity_score::{ModularityScoreInput, ModularityScoreOutput};
use tower_kernels::kernels::graph::motif_detection::{MotifDetectionInput, MotifDetectionOutput};
use tower_kernels::kernels::graph::pagerank::{PageRankInput, PageRankOutput};
use tower_kernels::kernels::graph::shortest_path::{ShortestPathInput, ShortestPathOutput};
use tower_kernels::kernels::graph::similarity::SimilarityOutput;
use tower_kernels::kernels::graph::triangle_counting::{TriangleCountingInput, TriangleCountingOutput};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::kernels::ml::kmeans_cluster::{KMeansInput, KMeansOutput};
use tower_kernels::kernels::risk::monte_carlo_var::{MonteCarloVarInput, MonteCarloVarOutput};
use tower_kernels::kernels::risk::option_pricing::{OptionKind, OptionPricingInput, OptionPricingOutput};
use tower_kernels::kernels::temporal::volatility_analysis::{Mean, VolatilityInput, VolatilityOutput};
use tower_kernels::request::ChoiceReason;
use tower_kernels::service::{
    BackendKind, Buffer, DType, FloatArray, KernelError, KernelRequest, KernelResponse, KernelService, NumberArray,
    Operand, OperandValue, Payload, RunContext,
};

use crate::probe::{Bench, numbers};

crate::tests! {
    saxpy_is_the_same_bit_for_bit
    option_prices_agree
    betweenness_agrees
    pagerank_agrees
    eigenvector_and_katz_centrality_agree
    products_with_a_graph_by_segments_agree
    cycles_and_motifs_are_the_same
    counting_cycles_and_motifs_stops_at_the_deadline
    volatility_models_agree
    values_at_risk_agree
    small_inputs_of_every_kernel_agree
    betweenness_stops_when_its_caller_leaves
    triangles_are_the_same
    counting_triangles_stops_at_the_deadline
    similarities_are_the_same
    searching_similar_nodes_stops_at_the_deadline
    cliques_are_the_same
    counting_cliques_stops_at_the_deadline
    communities_are_the_same
    label_propagation_stops_at_the_deadline
    louvain_stops_at_the_deadline
    volatility_analysis_stops_when_its_request_is_cancelled
    a_service_over_this_machine_runs_on_cuda_what_is_faster_there
    strong_components_are_the_same
    wide_and_deep_searches_agree
    sums_of_distances_agree_in_wide_and_deep_graphs
    neural_networks_agree
    deep_networks_stop_at_the_deadline
    searches_stop_at_the_deadline
    clusters_agree
    clustering_stops_at_the_deadline
    names_are_screened_as_on_the_cpu
    screening_stops_at_the_deadline
}

/// One bench with the catalogue, and the same on the CPU.
struct Both {
    cuda: Bench,
    cpu: KernelService<CpuBackend>,
}

impl Both {
    fn new() -> Self {
        let cuda = Bench::new(2);
        tower_kernels::kernels::register_all(&cuda.registry).unwrap();
        let cpu = KernelService::with_backend(Arc::clone(&cuda.registry), CpuBackend::new());
        Self { cuda, cpu }
    }

    fn run<T: std::any::Any + Send + Sync>(&self, id: &'static str, input: &Payload) -> (Arc<T>, Arc<T>) {
        let (cuda, cpu) = self.cuda.runtime.block_on(async {
            let cuda = call(self.cuda.service(), id, input.clone()).await.unwrap();
            assert_eq!(cuda.execution.backend, "CUDA");
            (cuda, call(self.cpu.clone(), id, input.clone()).await.unwrap())
        });
        (cuda.payload.downcast().unwrap(), cpu.payload.downcast().unwrap())
    }
}

async fn call<S>(mut service: S, id: &'static str, payload: Payload) -> Result<KernelResponse, KernelError>
where
    S: Service<KernelRequest, Response = KernelResponse, Error = KernelError>,
{
    service.ready().await?.call(KernelRequest::new(id, payload)).await
}

fn saxpy_is_the_same_bit_for_bit() {
    let both = Both::new();
    for len in [1, 2, 3, 4, 5, 255, 1024, 1025, 65_537, 1 << 20, (5 << 20) + 3] {
        let [x, y] = [1, 2].map(|seed| numbers(len, seed).into_iter().map(|v| (v as f32 - 0.5) * 1e3).collect());
        let input = Payload::typed(SaxpyInput { a: 1.0 / 3.0, x, y });
        let (cuda, cpu) = both.run::<SaxpyOutput>("linalg/saxpy", &input);
        assert!(cuda == cpu, "{len}");
    }
    let special = vec![f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX];
    let input = SaxpyInput { a: 2.0, x: special.clone().into(), y: special.into() };
    let (cuda, cpu) = both.run::<SaxpyOutput>("linalg/saxpy", &Payload::typed(input));
    assert!(cuda.y.iter().zip(cpu.y.iter()).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())));
}

fn spread<T: From<f32> + Copy>(len: usize, seed: u64, low: f64, high: f64, real: fn(f64) -> T) -> Vec<T> {
    numbers(len, seed).into_iter().map(|v| real(low + (high - low) * v)).collect()
}

fn contracts<T: From<f32> + Copy>(len: usize, real: fn(f64) -> T) -> OptionPricingInput
where
    FloatArray: From<Vec<T>>,
{
    let kind = |index: usize| if index.is_multiple_of(2) { OptionKind::Call } else { OptionKind::Put };
    OptionPricingInput {
        spot: spread(len, 1, 20.0, 200.0, real).into(),
        strike: spread(len, 2, 20.0, 200.0, real).into(),
        rate: spread(len, 3, -0.02, 0.1, real).into(),
        volatility: spread(len, 4, 0.0, 0.9, real).into(),
        time: spread(len, 5, 0.0, 4.0, real).into(),
        dividend_yield: spread(len, 6, 0.0, 0.06, real).into(),
        kind: (0..len).map(kind).collect::<Vec<_>>().into(),
        precision: None,
    }
}

fn reals(values: &FloatArray) -> Vec<f64> {
    match values {
        FloatArray::One(value) => vec![*value],
        FloatArray::F32(values) => values.iter().map(|&value| value.into()).collect(),
        FloatArray::F64(values) => values.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn option_prices_agree() {
    let both = Both::new();
    let mut broadcast = contracts(1000, |value| value);
    broadcast.strike = 100.0.into();
    broadcast.rate = 0.03.into();
    broadcast.kind = OptionKind::Put.into();
    broadcast.precision = Some(Precision::F64);
    let mut at_the_limit = contracts(64, |value| value);
    at_the_limit.time = 0.0.into();
    let cases = [
        (contracts(1, |value| value), 1e-12),
        (contracts(12_345, |value| value), 1e-12),
        (contracts(3_000_001, |value| value), 1e-12),
        (broadcast, 1e-12),
        (at_the_limit, 1e-12),
        (contracts(12_345, |value| value as f32), 1e-5),
    ];
    for (input, tolerance) in cases {
        let scale = 200.0;
        let name = format!("{} contracts, {:?}", input.rows(), input.precision());
        let (cuda, cpu) = both.run::<OptionPricingOutput>("risk/option-pricing", &Payload::typed(input));
        for (field, cuda, cpu, unit) in [
            ("price", &cuda.price, &cpu.price, scale),
            ("delta", &cuda.delta, &cpu.delta, 1.0),
            ("vega", &cuda.vega, &cpu.vega, scale * 2.0),
            ("rho", &cuda.rho, &cpu.rho, scale * 4.0),
        ] {
            let (cuda, cpu) = (reals(cuda), reals(cpu));
            assert_eq!(cuda.len(), cpu.len());
            let worst = cuda.iter().zip(&cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance * unit * 4.0, "{field} of {name}: off by {worst}");
            assert!(cuda.iter().all(|value| value.is_finite()), "{field} of {name}");
        }
        // Relative where they grow without bound near expiry.
        for (field, cuda, cpu) in [("gamma", &cuda.gamma, &cpu.gamma), ("theta", &cuda.theta, &cpu.theta)] {
            for (a, b) in reals(cuda).into_iter().zip(reals(cpu)) {
                assert!((a - b).abs() <= tolerance * 1e3 * (b.abs() + 1.0), "{field} of {name}: {a} and {b}");
            }
        }
    }
}

fn random_edges(nodes: usize, edges: usize, seed: u64) -> Vec<[u32; 2]> {
    let ends = numbers(2 * edges, seed);
    ends.chunks(2).map(|ends| [ends[0], ends[1]].map(|end| (end * nodes as f64) as u32)).collect()
}

fn betweenness_agrees() {
    let both = Both::new();
    let path: Vec<[u32; 2]> = (1..700).map(|node| [node - 1, node]).collect();
    let star: Vec<[u32; 2]> = (1..5000).map(|node| [0, node]).collect();
    let grid: Vec<[u32; 2]> = (0..900_u32)
        .flat_map(|v| [[v, if v % 30 < 29 { v + 1 } else { v }], [v, if v < 870 { v + 30 } else { v }]])
        .collect();
    let mut cases = vec![
        ("one node", BetweennessInput::from_edges(1, vec![])),
        ("two nodes", BetweennessInput::from_edges(2, vec![[0, 1]])),
        ("no edges", BetweennessInput::from_edges(100, vec![])),
        ("square", BetweennessInput::from_edges(4, vec![[0, 1], [1, 2], [2, 3], [0, 3]])),
        ("path", BetweennessInput::from_edges(700, path)),
        ("star", BetweennessInput::from_edges(5000, star)),
        ("grid", BetweennessInput::from_edges(900, grid)),
        ("random", BetweennessInput::from_edges(2000, random_edges(2000, 10_000, 1))),
        ("sparse", BetweennessInput::from_edges(3000, random_edges(3000, 2000, 2))),
        ("dense", BetweennessInput::from_edges(300, random_edges(300, 30_000, 3))),
        ("33 nodes", BetweennessInput::from_edges(33, random_edges(33, 60, 4))),
    ];
    let mut directed = BetweennessInput::from_edges(1500, random_edges(1500, 6000, 5));
    directed.directed = true;
    directed.normalized = false;
    cases.push(("directed", directed));
    let mut sampled = BetweennessInput::from_edges(40_000, random_edges(40_000, 200_000, 6));
    sampled.samples = Some(100);
    cases.push(("sampled", sampled));
    for (name, input) in cases {
        let (cuda, cpu) = both.run::<BetweennessOutput>("graph/betweenness-centrality", &Payload::typed(input));
        assert_eq!(cuda.scores.len(), cpu.scores.len(), "{name}");
        let most = cpu.scores.iter().copied().fold(0.0, f64::max);
        for (node, (a, b)) in cuda.scores.iter().zip(cpu.scores.iter()).enumerate() {
            assert!((a - b).abs() <= 1e-9 * b.abs() + 1e-14 * most, "{name}, node {node}: {a} and {b}");
        }
    }
}

fn pagerank_agrees() {
    let both = Both::new();
    let chain: Vec<[u32; 2]> = (1..5000).map(|node| [node - 1, node]).collect();
    let inward: Vec<[u32; 2]> = (1..70_000).map(|node| [node, 0]).collect();
    let outward: Vec<[u32; 2]> = (1..70_000).map(|node| [0, node]).collect();
    // Rows that begin and end at the bounds of chunks, and rows without arcs before, between and after them.
    let blocks: Vec<[u32; 2]> = (0..20).flat_map(|row| (0..256).map(move |from| [from, 300 + 7 * row])).collect();
    let mut hubs = random_edges(50_000, 400_000, 11);
    hubs.extend((0..50_000).step_by(3).flat_map(|node| [[node, 17], [node, 49_999]]));
    let cases = [
        ("one node", 1, vec![]),
        ("no edges", 3000, vec![]),
        ("one arc", 2, vec![[0, 1]]),
        ("chain", 5000, chain),
        ("star inward", 70_000, inward),
        ("star outward", 70_000, outward),
        ("blocks", 700, blocks),
        ("random", 20_000, random_edges(20_000, 100_000, 9)),
        ("sparse", 100_000, random_edges(100_000, 30_000, 10)),
        ("hubs", 50_000, hubs),
        ("many arcs", 60_000, many_arcs()),
    ];
    for (name, nodes, edges) in cases {
        for directed in [true, false] {
            let last = nodes as u32 - 1;
            let plain = PageRankInput { directed, ..PageRankInput::from_edges(nodes, edges.clone()) };
            let weights = |modulus: u64| (0..nodes).map(|node| (1 + node % modulus) as f64).collect::<Vec<_>>().into();
            let options = [
                plain.clone(),
                PageRankInput { tolerance: 0.0, max_iterations: 7, damping: 0.5, ..plain.clone() },
                // Odd and even numbers of vectors, and more than go through the graph together.
                PageRankInput { seed_nodes: Some([last, 0].repeat(10)[..19].to_vec().into()), ..plain.clone() },
                PageRankInput { personalization: Some([3, 1, 7, 2].map(weights).to_vec()), ..plain },
            ];
            for input in options {
                let (cuda, cpu) = both.run::<PageRankOutput>("graph/pagerank", &Payload::typed(input));
                assert_eq!((&cuda.iterations, cuda.converged), (&cpu.iterations, cpu.converged), "{name}");
                assert_eq!(cuda.scores.len(), cpu.scores.len(), "{name}");
                for (index, (a, b)) in cuda.scores.iter().zip(cpu.scores.iter()).enumerate() {
                    assert!((a - b).abs() <= 1e-12 * b.abs() + 1e-17, "{name}, score {index}: {a} and {b}");
                }
            }
        }
    }
}

/// So many arcs that the nodes with the most successors get places in shared memory, and not all nodes do.
fn many_arcs() -> Vec<[u32; 2]> {
    let skewed = |[from, to]: [u32; 2]| [(u64::from(from).pow(2) / 60_000) as u32, to];
    random_edges(60_000, 2_500_000, 12).into_iter().map(skewed).collect()
}

fn eigenvector_and_katz_centrality_agree() {
    let both = Both::new();
    let mut hubs = random_edges(50_000, 400_000, 11);
    hubs.extend((0..50_000).step_by(3).flat_map(|node| [[node, 17], [node, 49_999]]));
    for (name, nodes, edges) in [("hubs", 50_000, hubs), ("many arcs", 60_000, many_arcs())] {
        let input =
            EigenvectorCentralityInput { directed: true, ..EigenvectorCentralityInput::from_edges(nodes, edges) };
        let id = "graph/eigenvector-centrality";
        let (cuda, cpu) = both.run::<EigenvectorCentralityOutput>(id, &Payload::typed(input.clone()));
        assert_eq!((cuda.iterations, cuda.converged), (cpu.iterations, cpu.converged), "{name}");
        assert_near(&cuda.scores, &cpu.scores, name);
        let betas: Vec<f64> = (0..nodes).map(|node| 1.0 + (node % 5) as f64).collect();
        let katz =
            KatzCentralityInput { directed: true, alpha: 1e-3, beta: betas.into(), ..KatzCentralityInput::default() };
        let katz = KatzCentralityInput { num_nodes: input.num_nodes, edges: input.edges, ..katz };
        let (cuda, cpu) = both.run::<KatzCentralityOutput>("graph/katz-centrality", &Payload::typed(katz));
        assert_eq!((cuda.iterations, cuda.converged), (cpu.iterations, cpu.converged), "{name}");
        assert_near(&cuda.scores, &cpu.scores, name);
    }
}

/// A stored graph with so many arcs, most of them from few nodes, that its arcs are arranged by segments of the nodes that they
/// come from.
fn products_with_a_graph_by_segments_agree() {
    let both = Both::new();
    let nodes = 400_000;
    // From 40 000 nodes to 60 000, which are not side by side.
    let few = |[from, to]: [u32; 2]| [from / 10 * 10, to / 20 * 3];
    let mut edges: Vec<[u32; 2]> = random_edges(nodes as usize, 3_000_000, 13).into_iter().map(few).collect();
    edges.extend(random_edges(nodes as usize, 100_000, 14));
    // Rows of several pieces, from segments and from anywhere.
    edges.extend((0..nodes).step_by(3).map(|node| [node, 17]));
    for direction in [Direction::Directed, Direction::Undirected] {
        let graph = CsrGraph::from_edges(nodes as usize, &edges, direction).unwrap();
        let graph = both.cuda.registry.operands().put("skewed", graph).unwrap();
        let plain = PageRankInput::from_operand(graph.clone());
        let inputs = [
            plain.clone(),
            PageRankInput { tolerance: 0.0, max_iterations: 7, damping: 0.5, ..plain.clone() },
            PageRankInput { seed_nodes: Some(vec![17, 0, nodes - 1].into()), ..plain },
        ];
        for input in inputs {
            let (cuda, cpu) = both.run::<PageRankOutput>("graph/pagerank", &Payload::typed(input));
            assert_eq!((&cuda.iterations, cuda.converged), (&cpu.iterations, cpu.converged), "{direction:?}");
            assert_near(&cuda.scores, &cpu.scores, "PageRank");
        }
        let arrays = graph.version().unwrap().arrays();
        assert!(arrays.iter().any(|array| array.name.starts_with("segmented")), "{direction:?}");
        let input =
            EigenvectorCentralityInput { max_iterations: 8, ..EigenvectorCentralityInput::from_operand(graph.clone()) };
        let id = "graph/eigenvector-centrality";
        let (cuda, cpu) = both.run::<EigenvectorCentralityOutput>(id, &Payload::typed(input));
        assert_eq!((cuda.iterations, cuda.converged), (cpu.iterations, cpu.converged), "{direction:?}");
        assert_near(&cuda.scores, &cpu.scores, id);
        let input = KatzCentralityInput { alpha: 1e-6, ..KatzCentralityInput::from_operand(graph) };
        let (cuda, cpu) = both.run::<KatzCentralityOutput>("graph/katz-centrality", &Payload::typed(input));
        assert_eq!((cuda.iterations, cuda.converged), (cpu.iterations, cpu.converged), "{direction:?}");
        assert_near(&cuda.scores, &cpu.scores, "Katz centrality");
    }
}

fn assert_near(values: &[f64], expected: &[f64], name: &str) {
    assert_eq!(values.len(), expected.len(), "{name}");
    for (index, (a, b)) in values.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-11 * b.abs() + 1e-15, "{name}, score {index}: {a} and {b}");
    }
}

/// Series of GARCH models: most with a maximum in the interior, some with several.
fn volatility(series: usize, len: usize, mean: Mean, seed: u64) -> VolatilityInput {
    let uniform = numbers(2 * series * (len + 2), seed);
    let returns = uniform.chunks(2 * (len + 2)).flat_map(|uniform| {
        let (alpha, beta) = (0.02 + 0.2 * uniform[0], 0.4 + 0.38 * uniform[1]);
        let (mut variance, mut square) = (1.0, 1.0);
        uniform[4..].chunks(2).map(move |pair| {
            variance = 1.0 - alpha - beta + alpha * square + beta * variance;
            let normal = (-2.0 * (1.0 - pair[0]).ln()).sqrt() * (std::f64::consts::TAU * pair[1]).cos();
            let residual = f64::sqrt(variance) * normal;
            square = residual * residual;
            0.01 * residual + 0.0005
        })
    });
    VolatilityInput {
        num_series: series as u32,
        mean,
        forecast_horizon: 3,
        ..VolatilityInput::new(returns.collect::<Vec<_>>())
    }
}

fn volatility_models_agree() {
    let both = Both::new();
    let mut single = volatility(70, 400, Mean::Constant, 4);
    single.returns = reals(&single.returns).into_iter().map(|value| value as f32).collect::<Vec<_>>().into();
    let mut degenerate = volatility(40, 100, Mean::Constant, 5);
    if let FloatArray::F64(returns) = &mut degenerate.returns {
        returns[..100].fill(0.25);
        returns[333] = f64::NAN;
    }
    let cases = [
        volatility(1, 10, Mean::Zero, 1),
        volatility(33, 1025, Mean::Zero, 2),
        volatility(300, 500, Mean::Constant, 3),
        single,
        degenerate,
    ];
    for input in cases {
        let name = format!("{} series, {:?}", input.num_series, input.mean);
        let (cuda, cpu) = both.run::<VolatilityOutput>("temporal/volatility-analysis", &Payload::typed(input));
        assert_eq!(cuda.status, cpu.status, "{name}");
        for series in 0..cpu.status.len() {
            let (a, b) = (cuda.log_likelihood[series], cpu.log_likelihood[series]);
            assert!(
                (a - b).abs() <= 1e-9 * b.abs() || a.is_nan() && b.is_nan(),
                "{name}, series {series}: {a} and {b}"
            );
            // Where the maximum is flat, the same likelihood leaves the parameters apart.
            let near = |a: f64, b: f64, unit: f64| (a - b).abs() <= 1e-4 * unit || a.is_nan() && b.is_nan();
            assert!(near(cuda.alpha[series], cpu.alpha[series], 1.0), "{name}, alpha of series {series}");
            assert!(near(cuda.volatility[series], cpu.volatility[series], cpu.volatility[series]), "{name}, {series}");
        }
    }
}

/// A book of this many factors with correlations.
fn book(factors: usize, num_scenarios: u64) -> MonteCarloVarInput {
    let mut cholesky = vec![0.0; factors * factors];
    for (row, entries) in cholesky.chunks_mut(factors).enumerate() {
        // One common factor, and one for each.
        entries[0] = if row == 0 { 1.0 } else { 0.6 };
        entries[row] = if row == 0 { 1.0 } else { 0.8 };
    }
    let values: Vec<f64> = numbers(factors, 1).into_iter().map(|value| 1e4 * (value - 0.3)).collect();
    let volatilities: Vec<f64> = numbers(factors, 2).into_iter().map(|value| 0.05 * value).collect();
    MonteCarloVarInput {
        cholesky: Some(cholesky.into()),
        confidence_levels: vec![0.5, 0.95, 0.99].into(),
        seed: 1 << 40 | 5,
        ..MonteCarloVarInput::new(values, volatilities, num_scenarios)
    }
}

/// The random numbers are the same, and losses differ by rounding.
fn values_at_risk_agree() {
    let both = Both::new();
    let mut cases: Vec<MonteCarloVarInput> =
        [(1, 100), (3, 1_001), (7, 300_000), (64, 70_000), (1_030, 5_000)].map(|(d, n)| book(d, n)).to_vec();
    let mut options = book(10, 100_000);
    options.gammas = Some(numbers(10, 3).into_iter().map(|value| 1e6 * (value - 0.5)).collect());
    cases.push(options);
    for input in cases {
        let name = format!("{} factors, {} scenarios", input.values.len(), input.num_scenarios);
        let (cuda, cpu) = both.run::<MonteCarloVarOutput>("risk/monte-carlo-var", &Payload::typed(input));
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-5 * cpu.standard_deviation, "{name}: {a} and {b}");
        near(cuda.mean, cpu.mean);
        near(cuda.standard_deviation, cpu.standard_deviation);
        for (cuda, cpu) in [
            (&cuda.value_at_risk, &cpu.value_at_risk),
            (&cuda.expected_shortfall, &cpu.expected_shortfall),
            (&cuda.value_at_risk_error, &cpu.value_at_risk_error),
            (&cuda.expected_shortfall_error, &cpu.expected_shortfall_error),
        ] {
            assert_eq!(cuda.len(), cpu.len(), "{name}");
            cuda.iter().zip(cpu.iter()).for_each(|(a, b)| near(*a, *b));
        }
    }
}

fn volatility_analysis_stops_when_its_request_is_cancelled() {
    let both = Both::new();
    // A single series of two million returns takes a thread many seconds.
    let long = Payload::typed(volatility(1, 2_000_000, Mean::Constant, 6));
    let request = KernelRequest::new("temporal/volatility-analysis", long).with_timeout(Duration::from_millis(400));
    let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
    both.cuda.settle();
    let (cuda, cpu) =
        both.run::<VolatilityOutput>("temporal/volatility-analysis", &Payload::typed(volatility(2, 50, Mean::Zero, 7)));
    assert_eq!(cuda.status, cpu.status);
}

/// Few enough to run under `compute-sanitizer --tool racecheck`, and through every entry: shallow and deep, wide and
/// narrow, in single precision and double.
fn small_inputs_of_every_kernel_agree() {
    let both = Both::new();
    let [x, y] = [1, 2].map(|seed| numbers(1025, seed).into_iter().map(|v| v as f32).collect());
    let (cuda, cpu) = both.run::<SaxpyOutput>("linalg/saxpy", &Payload::typed(SaxpyInput { a: 0.5, x, y }));
    assert!(cuda == cpu);
    let near = |a: &FloatArray, b: &FloatArray| reals(a).iter().zip(reals(b)).all(|(a, b)| (a - b).abs() < 0.01);
    for input in [contracts(1000, |value| value), contracts(1000, |value| value as f32)] {
        let (cuda, cpu) = both.run::<OptionPricingOutput>("risk/option-pricing", &Payload::typed(input));
        assert!(near(&cuda.price, &cpu.price));
    }
    let (cuda, cpu) = both.run::<MonteCarloVarOutput>("risk/monte-carlo-var", &Payload::typed(book(5, 2_000)));
    assert!((cuda.value_at_risk[1] - cpu.value_at_risk[1]).abs() < 1e-4 * cpu.standard_deviation);
    for seed_nodes in [None, Some(vec![1, 2, 3].into()), Some(vec![5, 6].into())] {
        let input = PageRankInput { seed_nodes, ..PageRankInput::from_edges(400, random_edges(400, 6_000, 12)) };
        let (cuda, cpu) = both.run::<PageRankOutput>("graph/pagerank", &Payload::typed(input));
        assert!(cuda.scores.iter().zip(cpu.scores.iter()).all(|(a, b)| (a - b).abs() < 1e-15));
    }
    // Groups within a tile, and one that goes over several.
    for groups in [1, 700] {
        let keys: Vec<i64> = numbers(9_000, 3).into_iter().map(|key| (key * f64::from(groups)) as i64).collect();
        let longs: Vec<u64> = numbers(9_000, 4).into_iter().map(|value| (value * 1e12) as u64).collect();
        let words: Vec<i32> = longs.iter().map(|&value| value as i32).collect();
        let floats: Vec<f64> = numbers(9_000, 5);
        let singles: Vec<f32> = floats.iter().map(|&value| (value * 1024.0).round() as f32).collect();
        let arrays: [NumberArray; 4] = [longs.into(), words.into(), singles.into(), floats.into()];
        for values in arrays {
            let is_exact = values.dtype() != DType::F64;
            let aggregates = vec![Aggregate::Sum, Aggregate::Min, Aggregate::Max].into();
            let input = SegmentedAggregateInput { aggregates, ..SegmentedAggregateInput::new(keys.clone(), values) };
            let (cuda, cpu) = both.run::<SegmentedAggregateOutput>("core/segmented-aggregate", &Payload::typed(input));
            assert!((&cuda.keys, &cuda.count, &cuda.min) == (&cpu.keys, &cpu.count, &cpu.min) && cuda.max == cpu.max);
            assert!(!is_exact || cuda.sum == cpu.sum);
        }
    }
    for mean in [Mean::Constant, Mean::Zero] {
        let input = Payload::typed(volatility(35, 60, mean, 9));
        let (cuda, cpu) = both.run::<VolatilityOutput>("temporal/volatility-analysis", &input);
        assert!(cuda.log_likelihood.iter().zip(cpu.log_likelihood.iter()).all(|(a, b)| (a - b).abs() < 1e-6 * b.abs()));
    }
    for scorer in [Scorer::JaroWinkler, Scorer::Edit, Scorer::TokenSort, Scorer::TokenSet] {
        let document = NameListDocument::from_entities(&entities(700, 25), true);
        let queries = Operand::inline(NameListDocument::from_entities(&entities(40, 26), true));
        let input = EntityResolutionInput {
            query: None,
            queries: Some(queries),
            scorer,
            min_score: 0.3,
            ..EntityResolutionInput::new(Entity::default(), Operand::inline(document))
        };
        let (cuda, cpu) = both.run::<EntityResolutionOutput>("compliance/entity-resolution", &Payload::typed(input));
        assert!(cuda == cpu);
    }
    for init in [None, Some(mixture(20, 7, 9).into())] {
        let input = KMeansInput { init, max_iterations: 2, ..KMeansInput::new(mixture(600, 7, 8), 7, 20) };
        let (cuda, cpu) = both.run::<KMeansOutput>("ml/kmeans-cluster", &Payload::typed(input));
        assert!((cuda.inertia - cpu.inertia).abs() < 0.2 * cpu.inertia);
    }
    let path: Vec<[u32; 2]> = (1..600).map(|node| [node - 1, node]).collect();
    let mut deep = BetweennessInput::from_edges(600, path);
    deep.samples = Some(40);
    let shallow = BetweennessInput::from_edges(400, random_edges(400, 6_000, 8));
    for input in [deep, shallow] {
        let (cuda, cpu) = both.run::<BetweennessOutput>("graph/betweenness-centrality", &Payload::typed(input));
        assert!(cuda.scores.iter().zip(cpu.scores.iter()).all(|(a, b)| (a - b).abs() < 1e-12));
    }
    let deep: Vec<[u32; 2]> = (1..600).map(|node| [node - 1, node]).collect();
    for edges in [deep, random_edges(400, 12_000, 8)] {
        let components = ConnectedComponentsInput::from_edges(600, edges.clone());
        let components = Payload::typed(components);
        let (cuda, cpu) = both.run::<ConnectedComponentsOutput>("graph/connected-components", &components);
        assert!(cuda == cpu);
        let paths = ShortestPathInput::from_edges(600, edges);
        let paths = ShortestPathInput { predecessors: true, sources: vec![0, 5, 399].into(), ..paths };
        let (cuda, cpu) = both.run::<ShortestPathOutput>("graph/shortest-path", &Payload::typed(paths));
        assert!(cuda == cpu);
    }
    // Rows for a warp and rows for a block.
    let edges = [clique(150), random_edges(2_000, 6_000, 9)].concat();
    let input = Payload::typed(TriangleCountingInput::from_edges(2_000, edges));
    let (cuda, cpu) = both.run::<TriangleCountingOutput>("graph/triangle-counting", &input);
    assert!(cuda == cpu && cpu.total_triangles > 500_000);
    let edges = [clique(100), random_edges(600, 2_000, 9)].concat();
    let cliques = KCliqueInput { k: 4, limit: 10, ..KCliqueInput::from_edges(600, edges.clone()) };
    let (cuda, cpu) = both.run::<KCliqueOutput>("graph/k-clique", &Payload::typed(cliques));
    assert!(cuda == cpu && cpu.count > 3_900_000);
    let operand = both.cuda.registry.operands();
    let graph = operand.put("small", CsrGraph::from_edges(600, &edges, Direction::Undirected).unwrap()).unwrap();
    similarities_are_the_same_for(&both, "small", &graph, &[0, 1, 150, 599], &[7]);
}

fn clique(nodes: u32) -> Vec<[u32; 2]> {
    (0..nodes).flat_map(|node| (0..node).map(move |other| [other, node])).collect()
}

fn triangles_are_the_same() {
    let both = Both::new();
    let star = (1..5_000).map(|node| [0, node]).collect();
    // A grid with diagonals, of short rows.
    let side = 500_u32;
    let inner = (0..side * side).filter(|node| node % side + 1 < side && node / side + 1 < side);
    let grid = inner.flat_map(|node| [[node, node + 1], [node, node + side], [node, node + side + 1]]).collect();
    for (name, nodes, edges) in [
        ("no edges", 100, Vec::new()),
        ("one node", 1, Vec::new()),
        ("star", 5_000, star),
        ("grid", u64::from(side * side), grid),
        ("random", 100_000, random_edges(100_000, 2_000_000, 10)),
        ("rows that are longer than a set", 2_200, clique(2_200)),
    ] {
        let input = Payload::typed(TriangleCountingInput::from_edges(nodes, edges));
        let (cuda, cpu) = both.run::<TriangleCountingOutput>("graph/triangle-counting", &input);
        assert!(cuda == cpu, "{name}: {} and {} triangles", cuda.total_triangles, cpu.total_triangles);
    }
}

fn counting_triangles_stops_at_the_deadline() {
    let both = Both::new();
    // Over 100 ms of work for the device.
    let graph = CsrGraph::from_edges(6_000, &clique(6_000), Direction::Undirected).unwrap();
    graph.oriented(&RunContext::detached()).unwrap();
    let operand = both.cuda.registry.operands().put("clique", graph).unwrap();
    let input = Payload::typed(TriangleCountingInput::from_operand(operand));
    for timeout in [20, 50].map(Duration::from_millis) {
        let request = KernelRequest::new("graph/triangle-counting", input.clone()).with_timeout(timeout);
        let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
        both.cuda.settle();
    }
}

/// Compares the scores of pairs, of all that `nodes` make and of neighbours, and their similar nodes.
fn similarities_are_the_same_for(both: &Both, name: &str, graph: &Operand<CsrGraph>, nodes: &[u32], top_ks: &[u32]) {
    let pairs = nodes.iter().flat_map(|&a| nodes.iter().filter(move |&&b| a != b).map(move |&b| [a, b]));
    let pairs: Vec<[u32; 2]> = pairs.collect();
    macro_rules! compare {
        ($($id:literal, $Input:ident;)*) => {$(
            let input = || $Input::from_operand(graph.clone());
            let of_pairs = Payload::typed($Input { pairs: Some(pairs.clone()), ..input() });
            let (cuda, cpu) = both.run::<SimilarityOutput>($id, &of_pairs);
            assert!(cuda == cpu, "pairs of {name}, {}", $id);
            for &top_k in top_ks {
                let similar = $Input { nodes: Some(nodes.to_vec().into()), top_k, ..input() };
                let (cuda, cpu) = both.run::<SimilarityOutput>($id, &Payload::typed(similar));
                assert!(cuda == cpu, "{top_k} nodes of {name}, {}", $id);
            }
        )*};
    }
    compare! {
        "graph/adamic-adar", AdamicAdarInput;
        "graph/common-neighbors", CommonNeighborsInput;
        "graph/cosine-similarity", CosineSimilarityInput;
        "graph/jaccard-similarity", JaccardSimilarityInput;
    }
}

fn similarities_are_the_same() {
    let both = Both::new();
    let star = (1..5_000).map(|node| [0, node]).collect();
    // Counts of 8, 16 and 32 bits, sums of two words and of three, and more nodes than a table has room for.
    let mut hubs = random_edges(300_000, 600_000, 21);
    for (hub, len) in [(0, 120_000), (1, 110_000), (2, 30_000), (3, 2_000), (4, 300), (5, 89), (6, 80)] {
        hubs.extend((0..len).map(|node| [hub, 7 + node]));
    }
    for (name, nodes, edges) in [
        ("one-edge", 2, vec![[0, 1]]),
        ("no-edges", 20, Vec::new()),
        ("star", 5_000, star),
        ("clique", 700, clique(700)),
        ("random", 30_000, random_edges(30_000, 600_000, 20)),
        ("hubs", 300_000, hubs),
    ] {
        let graph = CsrGraph::from_edges(nodes, &edges, Direction::Undirected).unwrap();
        let graph = both.cuda.registry.operands().put(name, graph).unwrap();
        let some: Vec<u32> = [0, 1, 2, 3, 4, 5, 6, 7, nodes as u32 / 2, nodes as u32 - 1].to_vec();
        let some: Vec<u32> = some.into_iter().filter(|&node| (node as usize) < nodes).collect();
        similarities_are_the_same_for(&both, name, &graph, &some, &[1, 10, 1024]);
    }
}

fn searching_similar_nodes_stops_at_the_deadline() {
    let both = Both::new();
    let graph = CsrGraph::from_edges(4_000, &clique(4_000), Direction::Undirected).unwrap();
    let graph = both.cuda.registry.operands().put("clique", graph).unwrap();
    // Over 100 ms of work for the device.
    let nodes: Vec<u32> = (0..4_000).cycle().take(40_000).collect();
    let input = AdamicAdarInput { nodes: Some(nodes.into()), ..AdamicAdarInput::from_operand(graph) };
    stops_at_the_deadline(&both, "graph/adamic-adar", &Payload::typed(input));
}

fn cliques_are_the_same() {
    let both = Both::new();
    let dense = random_edges(400, 25_000, 23);
    for (name, nodes, edges, ks) in [
        ("no edges", 100, Vec::new(), 3..=8),
        ("a clique", 8, clique(8), 3..=8),
        ("for a warp", 66, clique(66), 3..=5),
        ("for lanes of a warp", 140, clique(140), 3..=5),
        ("random", 400, dense, 3..=8),
        ("sparse", 50_000, random_edges(50_000, 400_000, 24), 3..=5),
    ] {
        for k in ks {
            let input = KCliqueInput { k, limit: 9, ..KCliqueInput::from_edges(nodes, edges.clone()) };
            let (cuda, cpu) = both.run::<KCliqueOutput>("graph/k-clique", &Payload::typed(input));
            assert!(cuda == cpu, "{name}: {} and {} cliques of {k} nodes", cuda.count, cpu.count);
        }
    }
    // For warps with the matrix in shared memory, with more of it, and in global memory.
    for nodes in [400_u64, 600, 1_000, 1_100] {
        for k in 3..=4 {
            let input = KCliqueInput { k, ..KCliqueInput::from_edges(nodes, clique(nodes as u32)) };
            let response = call(both.cuda.service(), "graph/k-clique", Payload::typed(input));
            let response = both.cuda.runtime.block_on(response).unwrap();
            let output = response.payload.downcast::<KCliqueOutput>().unwrap();
            let expected = (0..u64::from(k)).fold(1, |count, i| count * (nodes - i) / (i + 1));
            assert_eq!((output.count, response.execution.backend), (expected, "CUDA"), "{k} of {nodes} nodes");
        }
    }
}

fn counting_cliques_stops_at_the_deadline() {
    let both = Both::new();
    // Hours of work for warps with the matrix in shared memory, with more of it, and in global memory.
    for nodes in [250, 400, 900, 1_500] {
        let graph = CsrGraph::from_edges(nodes as usize, &clique(nodes), Direction::Undirected).unwrap();
        graph.oriented(&RunContext::detached()).unwrap();
        let graph = both.cuda.registry.operands().put(&format!("clique-{nodes}"), graph).unwrap();
        let input = KCliqueInput { k: 8, ..KCliqueInput::from_operand(graph) };
        stops_at_the_deadline(&both, "graph/k-clique", &Payload::typed(input));
    }
}

fn stops_at_the_deadline(both: &Both, id: &'static str, input: &Payload) {
    for timeout in [20, 50].map(Duration::from_millis) {
        let request = KernelRequest::new(id, input.clone()).with_timeout(timeout);
        let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
        both.cuda.settle();
    }
}

/// Graphs with nodes for warps, for blocks with a table and with an array of counters, and for arrays in several windows.
fn graphs_of_cycles() -> Vec<(&'static str, u64, Vec<[u32; 2]>)> {
    let side = 300_u32;
    let inner = (0..side * side).filter(|node| node % side + 1 < side && node / side + 1 < side);
    let grid = inner.flat_map(|node| [[node, node + 1], [node + side, node], [node, node + side + 1]]).collect();
    // Opposite arcs, and arcs without.
    let mut mutual = random_edges(3_000, 40_000, 15);
    mutual.extend(mutual.clone().iter().step_by(3).map(|&[from, to]| [to, from]));
    let mut hubs = random_edges(700_000, 1_500_000, 16);
    for hub in 0..6_u32 {
        hubs.extend((0..(10_000 << hub).min(70_000)).map(|node| {
            let other = 10 + node * 9;
            if (node + hub) % 3 == 0 { [hub, other] } else { [other, hub] }
        }));
    }
    vec![
        ("no edges", 100, Vec::new()),
        ("one node", 1, Vec::new()),
        ("one edge", 3, vec![[2, 0]]),
        ("star", 5_000, (1..5_000).map(|node| [0, node]).collect()),
        ("grid", u64::from(side * side), grid),
        ("random", 20_000, random_edges(20_000, 300_000, 17)),
        ("mutual", 3_000, mutual),
        ("hubs", 700_000, hubs),
        ("clique", 700, clique(700)),
    ]
}

fn cycles_and_motifs_are_the_same() {
    let both = Both::new();
    for (name, nodes, edges) in graphs_of_cycles() {
        for directed in [false, true] {
            let input = CycleParticipationInput::from_edges(nodes, edges.clone());
            let input = Payload::typed(CycleParticipationInput { directed, ..input });
            let (cuda, cpu) = both.run::<CycleParticipationOutput>("graph/cycle-participation", &input);
            let totals = |output: &CycleParticipationOutput| {
                [output.total_two_cycles, output.total_three_cycles, output.total_four_cycles]
            };
            assert!(cuda == cpu, "{name}, directed: {directed}: {:?} and {:?}", totals(&cuda), totals(&cpu));
            let input = MotifDetectionInput::from_edges(nodes, edges.clone());
            let input = Payload::typed(MotifDetectionInput { directed, ..input });
            let (cuda, cpu) = both.run::<MotifDetectionOutput>("graph/motif-detection", &input);
            assert_eq!(cuda, cpu, "{name}, directed: {directed}");
        }
    }
}

fn counting_cycles_and_motifs_stops_at_the_deadline() {
    let both = Both::new();
    // Over 100 ms of work for the device.
    let graph = CsrGraph::from_edges(6_000, &clique(6_000), Direction::Undirected).unwrap();
    graph.oriented(&RunContext::detached()).unwrap();
    let operand = both.cuda.registry.operands().put("clique", graph).unwrap();
    for (id, input) in [
        ("graph/cycle-participation", Payload::typed(CycleParticipationInput::from_operand(operand.clone()))),
        ("graph/motif-detection", Payload::typed(MotifDetectionInput::from_operand(operand))),
    ] {
        for timeout in [20, 50].map(Duration::from_millis) {
            let request = KernelRequest::new(id, input.clone()).with_timeout(timeout);
            let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
            assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{id}: {:?}", result.err());
            both.cuda.settle();
        }
    }
}

/// Graphs with rows for threads, warps, blocks, tables in global memory, and several blocks.
fn graphs_of_communities() -> Vec<(&'static str, u64, Vec<[u32; 2]>)> {
    let mut hubs = random_edges(60_000, 200_000, 13);
    let of_labels = [40_000, 39_999, 3_000, 2_049, 2_048, 257, 256];
    let of_louvain = [8_193, 8_192, 1_025, 1_024, 129, 128];
    for (hub, len) in (0..).zip(of_labels.into_iter().chain(of_louvain)) {
        hubs.extend((0..len).map(|node| [hub, 20 + node]));
    }
    let groups = random_edges(100_000, 800_000, 14);
    let groups = groups.into_iter().map(|[a, b]| if b % 5 == 0 { [a, b] } else { [a, a / 50 * 50 + b % 50] }).collect();
    let stars = (0..20).flat_map(|hub| (0..3_000).map(move |leaf| [hub, 20 + hub * 3_000 + leaf])).collect();
    vec![
        ("one node", 1, Vec::new()),
        ("no edges", 1_000, Vec::new()),
        ("path", 100_000, (1..100_000).map(|node| [node - 1, node]).collect()),
        ("stars", 60_020, stars),
        ("clique", 2_200, clique(2_200)),
        ("hubs", 60_000, hubs),
        ("groups", 100_000, groups),
    ]
}

fn communities_are_the_same() {
    let both = Both::new();
    for (name, nodes, edges) in graphs_of_communities() {
        for (seed, max_iterations) in [(0, 100), (7 << 40, 2)] {
            let input = LabelPropagationInput::from_edges(nodes, edges.clone());
            let input = Payload::typed(LabelPropagationInput { seed, max_iterations, ..input });
            let (cuda, cpu) = both.run::<LabelPropagationOutput>("graph/label-propagation", &input);
            assert!(cuda == cpu, "{name}: {cuda:?} and {cpu:?}");
        }
        let weights = (0..edges.len() as u32).map(|edge| (edge.wrapping_mul(0x9e37_79b9) >> 20) as f32 / 7.0);
        let weights: Buffer<f32> = weights.collect::<Vec<_>>().into();
        for (directed, most, is_weighted) in
            [(false, 2, false), (false, 100, true), (true, 100, false), (true, nodes as u32, true)]
        {
            let communities = (0..nodes as u32).map(|node| node.wrapping_mul(0x9e37_79b9) % most % nodes as u32);
            let input = ModularityScoreInput {
                directed,
                communities: communities.collect::<Vec<_>>().into(),
                weights: is_weighted.then(|| weights.clone()),
                ..ModularityScoreInput::from_edges(nodes, edges.clone())
            };
            let (cuda, cpu) = both.run::<ModularityScoreOutput>("graph/modularity-score", &Payload::typed(input));
            assert!(cuda == cpu, "{name}: {cuda:?} and {cpu:?}");
        }
        for (seed, resolution, is_weighted) in [(0, 1.0, false), (7 << 40, 0.5, false), (1, 1.0, true), (2, 30.0, true)]
        {
            let input = LouvainCommunityInput {
                seed,
                resolution,
                weights: is_weighted.then(|| weights.clone()),
                ..LouvainCommunityInput::from_edges(nodes, edges.clone())
            };
            let (cuda, cpu) = both.run::<LouvainCommunityOutput>("graph/louvain-community", &Payload::typed(input));
            assert!(cuda == cpu, "{name}: {cuda:?} and {cpu:?}");
        }
    }
}

fn louvain_stops_at_the_deadline() {
    let both = Both::new();
    let edges = random_edges(300_000, 6_000_000, 15);
    let graph = CsrGraph::from_edges(300_000, &edges, Direction::Undirected).unwrap();
    let operand = both.cuda.registry.operands().put("random", graph).unwrap();
    let request = || {
        let input = Payload::typed(LouvainCommunityInput::from_operand(operand.clone()));
        KernelRequest::new("graph/louvain-community", input)
    };
    let run = |request| both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
    run(request()).unwrap();
    // The graph is on the device now.
    let result = run(request().with_timeout(Duration::from_millis(5)));
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
    both.cuda.settle();
}

fn label_propagation_stops_at_the_deadline() {
    let both = Both::new();
    let graph = CsrGraph::from_edges(6_000, &clique(6_000), Direction::Undirected).unwrap();
    let operand = both.cuda.registry.operands().put("clique", graph).unwrap();
    let input = Payload::typed(LabelPropagationInput::from_operand(operand));
    // A clique has as many colours as nodes, which takes tens of milliseconds.
    let request = KernelRequest::new("graph/label-propagation", input).with_timeout(Duration::from_millis(10));
    let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
    both.cuda.settle();
}

fn betweenness_stops_when_its_caller_leaves() {
    let both = Both::new();
    // Some seconds of work.
    let large = Payload::typed(BetweennessInput::from_edges(200_000, random_edges(200_000, 1_000_000, 7)));
    both.cuda.runtime.block_on(async {
        let work = call(both.cuda.service(), "graph/betweenness-centrality", large.clone());
        tokio::time::timeout(Duration::from_millis(400), work).await.expect_err("it ended before it was cancelled");
    });
    both.cuda.settle();
    let request = KernelRequest::new("graph/betweenness-centrality", large).with_timeout(Duration::from_millis(400));
    let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
    both.cuda.settle();
    let small = Payload::typed(BetweennessInput::from_edges(3, vec![[0, 1], [1, 2]]));
    let (cuda, _) = both.run::<BetweennessOutput>("graph/betweenness-centrality", &small);
    assert_eq!(*cuda.scores, [0.0, 1.0, 0.0]);
}

fn a_service_over_this_machine_runs_on_cuda_what_is_faster_there() {
    let bench = Bench::new(1);
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    let service = KernelService::new(Arc::clone(&bench.registry));
    let status = serde_json::to_value(service.backend().status()).unwrap();
    let device = &status["cuda"]["devices"][0];
    assert!(device["name"].is_string() && device.get("lost").is_none(), "{status}");
    let input = r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#;
    let mut on_cuda = KernelRequest::new("linalg/saxpy", Payload::json(input));
    on_cuda.set_backend(BackendKind::Cuda);
    let where_it_is_faster = KernelRequest::new("linalg/saxpy", Payload::json(input));
    for (request, backend, reason) in
        [(on_cuda, "CUDA", ChoiceReason::Requested), (where_it_is_faster, "CPU", ChoiceReason::Predicted)]
    {
        let response = bench.runtime.block_on(service.clone().oneshot(request)).unwrap();
        let execution = &response.execution;
        assert_eq!((execution.backend, execution.device.is_some()), (backend, backend == "CUDA"), "{execution:?}");
        assert_eq!(execution.choice().unwrap().reason, reason);
        let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
        assert_eq!(output, r#"{"y":[12.0,24.0]}"#);
    }
    // A dense matrix of arcs, on which the CPU takes long.
    let nodes = 3000_u32;
    let edges: Vec<[u32; 2]> = (0..nodes).flat_map(|from| (0..from).step_by(3).map(move |to| [from, to])).collect();
    let graph = Payload::typed(BetweennessInput::from_edges(u64::from(nodes), edges));
    let response = bench.runtime.block_on(call(service, "graph/betweenness-centrality", graph)).unwrap();
    assert_eq!(response.execution.backend, "CUDA", "{:?}", response.execution);
}

/// Graphs of one large strong component, of long chains and cycles, of a hub, and of small components.
fn strong_components_are_the_same() {
    let both = Both::new();
    let nodes = 200_000_u32;
    // A permutation of the nodes, so that neighbours have unlike numbers.
    let mixed = |node: u32| (u64::from(node) * 77_777 % u64::from(nodes)) as u32;
    let path: Vec<[u32; 2]> = (1..nodes).map(|node| [mixed(node - 1), mixed(node)]).collect();
    let mut cycle = path.clone();
    cycle.push([mixed(nodes - 1), mixed(0)]);
    let mut pairs = path.clone();
    pairs.extend((1..nodes).step_by(2).map(|node| [mixed(node), mixed(node - 1)]));
    let mut star: Vec<[u32; 2]> = (1..nodes).map(|node| [0, node]).collect();
    star.extend((1..nodes).step_by(3).map(|node| [node, 0]));
    // Arcs to higher nodes alone, but for one from the middle to the start.
    let mut forward = random_edges(nodes as usize, 600_000, 8);
    forward.iter_mut().for_each(|edge| edge.sort_unstable());
    forward.push([nodes / 2, 0]);
    for (name, edges) in [
        ("path", path),
        ("cycle", cycle),
        ("pairs", pairs),
        ("star", star),
        ("forward", forward),
        ("sparse", random_edges(nodes as usize, 200_000, 5)),
        ("random", random_edges(nodes as usize, 2_000_000, 6)),
    ] {
        let input = ConnectedComponentsInput::from_edges(nodes.into(), edges);
        let input = Payload::typed(ConnectedComponentsInput { directed: true, strong: true, ..input });
        let (cuda, cpu) = both.run::<ConnectedComponentsOutput>("graph/connected-components", &input);
        assert!(cuda == cpu, "{name}: {} and {} components", cuda.num_components, cpu.num_components);
    }
}

/// Graphs that go through every kind of launch: a hub, a long path, a path with a tail that grows wide, and many sources.
fn wide_and_deep_searches_agree() {
    let both = Both::new();
    let path: Vec<[u32; 2]> = (1..20_000).map(|node| [node - 1, node]).collect();
    let mut broom = path.clone();
    broom.extend((20_000..400_000_u32).map(|node| [node / 20, node]));
    let star: Vec<[u32; 2]> = (1..100_000).map(|node| [0, node]).collect();
    let sources = |count: usize, nodes: u32| (0..count as u32).map(|index| index * 7919 % nodes).collect::<Vec<_>>();
    for (name, nodes, edges, sources) in [
        ("path", 20_000, path, sources(3, 20_000)),
        ("broom", 400_000, broom, vec![0]),
        ("star", 100_000, star, sources(20, 100_000)),
        ("random", 60_000, random_edges(60_000, 400_000, 5), sources(100, 60_000)),
        ("dense", 2_000, random_edges(2_000, 400_000, 6), sources(1_000, 2_000)),
    ] {
        for directed in [false, true] {
            let input = ShortestPathInput::from_edges(nodes, edges.clone());
            let input = ShortestPathInput { directed, predecessors: true, sources: sources.clone().into(), ..input };
            let (cuda, cpu) = both.run::<ShortestPathOutput>("graph/shortest-path", &Payload::typed(input));
            assert!(cuda == cpu, "{name}, {directed}");
            let input = ConnectedComponentsInput::from_edges(nodes, edges.clone());
            let input = Payload::typed(ConnectedComponentsInput { directed, ..input });
            let (cuda, cpu) = both.run::<ConnectedComponentsOutput>("graph/connected-components", &input);
            assert!(cuda == cpu, "{name}, {directed}");
        }
    }
}

/// Graphs of few levels, of many, and of few with a long tail, with more sources than share a pass.
fn sums_of_distances_agree_in_wide_and_deep_graphs() {
    let both = Both::new();
    let (side, nodes) = (250_u32, 62_500_u32);
    let right = (0..nodes).filter(|node| node % side + 1 < side).map(|node| [node, node + 1]);
    let grid: Vec<[u32; 2]> = right.chain((side..nodes).map(|node| [node - side, node])).collect();
    let path: Vec<[u32; 2]> = (1..nodes).map(|node| [node - 1, node]).collect();
    let mut tail = random_edges(60_000, 500_000, 7);
    tail.extend((60_000..nodes).map(|node| [node - 1, node]));
    for (name, edges, samples) in [
        ("grid", grid, [20, 150, 1_100]),
        ("path", path, [1, 40, 140]),
        ("tail", tail, [10, 40, 140]),
        ("random", random_edges(nodes as usize, 400_000, 5), [3, 60, 200]),
    ] {
        for (directed, samples) in [(false, samples[0]), (true, samples[1]), (false, samples[2])] {
            let input = ClosenessInput::from_edges(nodes.into(), edges.clone());
            let estimate = ClosenessInput { directed, samples: Some(samples), ..input.clone() };
            let (cuda, cpu) = both.run::<ClosenessOutput>("graph/closeness-centrality", &Payload::typed(estimate));
            assert!(cuda == cpu, "{name}, {samples} samples");
            let some: Vec<u32> = (0..samples as u32).map(|index| index * 7919 % nodes).collect();
            let some = ClosenessInput { directed, nodes: Some(some.into()), ..input };
            let (cuda, cpu) = both.run::<ClosenessOutput>("graph/closeness-centrality", &Payload::typed(some));
            assert!(cuda == cpu, "{name}, {samples} nodes");
            let input = AveragePathLengthInput::from_edges(nodes.into(), edges.clone());
            let input = Payload::typed(AveragePathLengthInput { directed, samples: Some(samples), ..input });
            let (cuda, cpu) = both.run::<AveragePathLengthOutput>("graph/average-path-length", &input);
            assert!(cuda == cpu, "{name}, {samples} sources: {cuda:?} and {cpu:?}");
        }
    }
}

fn searches_stop_at_the_deadline() {
    let both = Both::new();
    // Some seconds of narrow levels, and of wide ones.
    let path: Vec<[u32; 2]> = (1..2_000_000).map(|node| [node - 1, node]).collect();
    for (nodes, edges, sources) in
        [(2_000_000, path, vec![0]), (100_000, random_edges(100_000, 3_000_000, 9), vec![1; 40_000])]
    {
        let input = ShortestPathInput::from_edges(nodes, edges);
        let input = Payload::typed(ShortestPathInput { sources: sources.into(), ..input });
        let request = KernelRequest::new("graph/shortest-path", input).with_timeout(Duration::from_millis(900));
        let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
        both.cuda.settle();
    }
}

/// Entities with aliases and attributes; some names have more than 64 characters.
fn entities(count: usize, seed: u64) -> Vec<Entity> {
    const SYLLABLES: [&str; 10] = ["ba", "dei", "fo", "gu", "hi", "ja", "дми", "山", "é", "st"];
    let mut picks = numbers(count * 40, seed).into_iter();
    let mut below = |bound: usize| (picks.next().unwrap_or(0.5) * bound as f64) as usize;
    let mut name = |words: usize| -> String {
        let mut word = || -> String { (0..=below(3)).map(|_| SYLLABLES[below(SYLLABLES.len())]).collect() };
        (0..words).map(|_| word()).collect::<Vec<_>>().join(" ")
    };
    (0..count)
        .map(|index| Entity {
            name: name(if index % 50 == 0 { 20 } else { 2 }),
            aliases: if index % 3 == 0 { vec![name(3), name(2)] } else { Vec::new() },
            date: (index % 4 == 0).then_some(19_600_101 + index as u32 % 28),
            country: (index % 2 == 0).then(|| ["US", "FR"][index / 2 % 2].to_owned()),
            ..Entity::default()
        })
        .collect()
}

fn names_are_screened_as_on_the_cpu() {
    let both = Both::new();
    let (candidates, queries) = (entities(30_000, 21), entities(1_500, 22));
    let document = NameListDocument::from_entities(&candidates, true);
    let list = NameList::from_document(&document, &RunContext::detached()).unwrap();
    let list: Operand<NameList> = both.cuda.registry.operands().put("list", list).unwrap();
    let names: Vec<String> = queries.iter().map(|query| query.name.clone()).collect();
    for scorer in [Scorer::JaroWinkler, Scorer::Edit, Scorer::Ratio, Scorer::TokenSort, Scorer::TokenSet] {
        for (count, min_score, max_matches) in [(1_500, 0.8, 10), (100, 0.0, 1), (3, 0.0, 1_024)] {
            let input = SanctionsScreeningInput {
                scorer,
                min_score,
                max_matches,
                ..SanctionsScreeningInput::new(names[..count].to_vec(), list.clone())
            };
            let id = "compliance/sanctions-screening";
            let (cuda, cpu) = both.run::<SanctionsScreeningOutput>(id, &Payload::typed(input));
            assert!(cuda == cpu, "{scorer:?}, {count} names, {min_score}");
        }
        let queries = NameListDocument::from_entities(&queries[..300], true);
        let input = EntityResolutionInput {
            query: None,
            queries: Some(Operand::inline(queries)),
            scorer,
            min_score: 0.7,
            ..EntityResolutionInput::new(Entity::default(), list.clone())
        };
        let (cuda, cpu) = both.run::<EntityResolutionOutput>("compliance/entity-resolution", &Payload::typed(input));
        assert!(cuda == cpu && !cpu.scores.is_empty(), "{scorer:?}");
    }
}

fn screening_stops_at_the_deadline() {
    let both = Both::new();
    let document = NameListDocument::from_entities(&entities(100_000, 23), true);
    let list = NameList::from_document(&document, &RunContext::detached()).unwrap();
    let list: Operand<NameList> = both.cuda.registry.operands().put("list", list).unwrap();
    // Some seconds of work.
    let names: Vec<String> = entities(400_000, 24).into_iter().map(|entity| entity.name).collect();
    let input = SanctionsScreeningInput {
        scorer: Scorer::TokenSet,
        min_score: 0.0,
        ..SanctionsScreeningInput::new(names, list)
    };
    let request = KernelRequest::new("compliance/sanctions-screening", Payload::typed(input))
        .with_timeout(Duration::from_millis(400));
    let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
    both.cuda.settle();
}

/// Points in eight groups that overlap.
fn mixture(points: usize, features: usize, seed: u64) -> Vec<f32> {
    let uniform = numbers(points * features, seed).into_iter().enumerate();
    uniform.map(|(index, value)| (4.0 * (index / features % 8) as f64 + 12.0 * value - 6.0) as f32).collect()
}

/// From the same centroids. After one iteration a label differs only where two distances are almost equal; each that does
/// moves two centroids, and so more labels in those that follow.
fn clusters_agree() {
    let both = Both::new();
    for (points, features, k, data) in [
        (1, 1, 1, vec![3.0]),
        (1_000, 3, 1, mixture(1_000, 3, 1)),
        (70_001, 2, 130, mixture(70_001, 2, 2)),
        (20_000, 129, 40, mixture(20_000, 129, 3)),
        (5_000, 200, 300, mixture(5_000, 200, 4)),
        (300_000, 16, 700, mixture(300_000, 16, 5).into_iter().map(|x| 500.0 + x).collect()),
        (3_000, 1_000, 9, mixture(3_000, 1_000, 6).into_iter().map(|x| 1e-20 * x).collect()),
    ] {
        let name = format!("{points} points, {features} features, {k} clusters");
        let init = data[..k * features].to_vec();
        let input = KMeansInput {
            init: Some(init.into()),
            max_iterations: 5,
            tolerance: 0.0,
            ..KMeansInput::new(data, features as u32, k as u32)
        };
        let once = Payload::typed(KMeansInput { max_iterations: 1, ..input.clone() });
        let input = Payload::typed(input);
        let (cuda, cpu) = both.run::<KMeansOutput>("ml/kmeans-cluster", &input);
        let (again, _) = both.run::<KMeansOutput>("ml/kmeans-cluster", &input);
        assert!(cuda == again, "{name}: two runs differ");
        assert!((cuda.inertia - cpu.inertia).abs() <= 1e-4 * cpu.inertia, "{name}: {} {}", cuda.inertia, cpu.inertia);
        let (cuda, cpu) = both.run::<KMeansOutput>("ml/kmeans-cluster", &once);
        let differing = cuda.labels.iter().zip(cpu.labels.iter()).filter(|(a, b)| a != b).count();
        assert!(differing <= points / 1_000, "{name}: {differing} labels differ");
        assert!((cuda.inertia - cpu.inertia).abs() <= 1e-4 * cpu.inertia, "{name}: {} {}", cuda.inertia, cpu.inertia);
    }
    // Fewer values than clusters, and a centroid that no point is near.
    let data: Vec<f32> = (0..4_000).map(|index| (index % 5) as f32).collect();
    for init in [None, Some(vec![0.0, 1.0, 2.0, 3.0, 4.0, 900.0, 901.0].into()), Some(vec![-50.0; 7].into())] {
        let input = Payload::typed(KMeansInput { init, ..KMeansInput::new(data.clone(), 1, 7) });
        let (cuda, cpu) = both.run::<KMeansOutput>("ml/kmeans-cluster", &input);
        assert_eq!((cuda.inertia, cpu.inertia, cuda.converged), (0.0, 0.0, true));
    }
}

fn clustering_stops_at_the_deadline() {
    let both = Both::new();
    // Some seconds of assignments, and of seeding.
    let data = mixture(400_000, 64, 7);
    let init = Some(data[..64 * 20_000].to_vec().into());
    for init in [init, None] {
        let input = KMeansInput { tolerance: 0.0, ..KMeansInput::new(data.clone(), 64, 20_000) };
        let input = Payload::typed(KMeansInput { init, ..input });
        let request = KernelRequest::new("ml/kmeans-cluster", input).with_timeout(Duration::from_millis(200));
        let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
        both.cuda.settle();
    }
}

/// Numbers between -1 and 1, over a root.
fn weights(len: usize, seed: u64, root: f64) -> Vec<f32> {
    numbers(len, seed).into_iter().map(|value| ((2.0 * value - 1.0) / root) as f32).collect()
}

fn assert_near_f32(cuda: &[f32], cpu: &[f32], name: &str) {
    assert_eq!(cuda.len(), cpu.len(), "{name}");
    let most = cpu.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
    for (index, (a, b)) in cuda.iter().zip(cpu).enumerate() {
        assert!((a - b).abs() <= 2e-5 * most, "{name}[{index}]: {a} and {b}");
    }
}

/// Widths that are no multiples of four, and graphs with rows of many pieces.
fn neural_networks_agree() {
    const NODES: usize = 3_000;
    let both = Both::new();
    let mut edges = random_edges(NODES, 15_000, 31);
    edges.extend((0..NODES as u32).step_by(3).flat_map(|node| [[node, 17], [node, 2_999]]));
    for sizes in [[70, 33, 128, 5], [3, 200, 7, 300]] {
        let count: u32 = sizes.windows(2).map(|sizes| sizes[0] * sizes[1]).sum();
        for aggregation in [Aggregation::Sum, Aggregation::Mean, Aggregation::Max, Aggregation::Gcn] {
            let input = GnnInferenceInput {
                node_features: weights(NODES * sizes[0] as usize, 1, 1.0).into(),
                layer_weights: weights(count as usize, 2, 8.0).into(),
                layer_sizes: sizes.to_vec().into(),
                aggregation,
                directed: true,
                ..GnnInferenceInput::from_edges(NODES as u64, edges.clone())
            };
            let (cuda, cpu) = both.run::<GnnInferenceOutput>("graph/gnn-inference", &Payload::typed(input));
            assert_near_f32(&cuda.embeddings, &cpu.embeddings, &format!("{sizes:?}, {aggregation:?}"));
        }
    }
    for variant in [Variant::Gat, Variant::GatV2] {
        for (num_heads, head_dim) in [(8, 8), (3, 50), (2, 128), (5, 7)] {
            let of_head = if variant == Variant::Gat { 2 * head_dim } else { head_dim };
            let input = GraphAttentionInput {
                node_features: weights(NODES * 20, 1, 1.0).into(),
                num_heads,
                head_dim,
                value_weights: weights((20 * num_heads * head_dim) as usize, 2, 4.0).into(),
                attention_vectors: weights((num_heads * of_head) as usize, 3, 1.0).into(),
                variant,
                return_attention: true,
                directed: true,
                ..GraphAttentionInput::from_edges(NODES as u64, edges.clone())
            };
            let (cuda, cpu) = both.run::<GraphAttentionOutput>("graph/graph-attention", &Payload::typed(input));
            let name = format!("{variant:?}, {num_heads} heads of {head_dim}");
            assert_near_f32(&cuda.embeddings, &cpu.embeddings, &name);
            assert_near_f32(&cuda.attention_weights, &cpu.attention_weights, &name);
            assert_eq!(cuda.attention_sources, cpu.attention_sources, "{name}");
        }
    }
}

fn deep_networks_stop_at_the_deadline() {
    let both = Both::new();
    // Some 100 ms of work for the device.
    let graph = CsrGraph::from_edges(6_000, &clique(6_000), Direction::Undirected).unwrap();
    let operand = both.cuda.registry.operands().put("clique", graph).unwrap();
    let input = Payload::typed(GnnInferenceInput {
        node_features: weights(6_000 * 256, 1, 1.0).into(),
        layer_sizes: vec![256; 65].into(),
        layer_weights: weights(64 * 256 * 256, 2, 16.0).into(),
        ..GnnInferenceInput::from_operand(operand)
    });
    for timeout in [40, 70].map(Duration::from_millis) {
        let request = KernelRequest::new("graph/gnn-inference", input.clone()).with_timeout(timeout);
        let result = both.cuda.runtime.block_on(async { both.cuda.service().ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{:?}", result.err());
        both.cuda.settle();
    }
}
