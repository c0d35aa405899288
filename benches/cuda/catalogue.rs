//! The larger kernels of the catalogue through the service.

use std::time::{Duration, Instant};

use tower_kernels::kernels::compliance::names::{NameList, NameListDocument, Scorer};
use tower_kernels::kernels::compliance::sanctions_screening::SanctionsScreeningInput;
use tower_kernels::kernels::core::segmented_aggregate::SegmentedAggregateInput;
use tower_kernels::kernels::core::sort::SortInput;
use tower_kernels::kernels::core::top_k::TopKInput;
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::value_similarity::{Metric, ValueSimilarityInput};
use tower_kernels::kernels::ml::kmeans_cluster::KMeansInput;
use tower_kernels::kernels::risk::monte_carlo_var::MonteCarloVarInput;
use tower_kernels::kernels::risk::option_pricing::{OptionKind, OptionPricingInput};
use tower_kernels::kernels::temporal::volatility_analysis::{Mean, VolatilityInput};
use tower_kernels::service::{Buffer, Element, FloatArray, Operand, OperandValue, Payload, RunContext};

use crate::kernels::{PhasesInput, PhasesOutput};
use crate::{Cuda, call, service};

/// Small integers without a short period.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * bound) >> 32
    }
}

pub(crate) fn run() {
    core_rows();
    pricing_rows();
    kmeans_rows();
    phases();
    volatility_rows();
    value_at_risk_rows();
    similarity_rows();
    screening_rows();

    for (nodes, edges, samples) in [(2_000, 10_000, None), (20_000, 100_000, None), (1 << 20, 8 << 20, Some(64))] {
        let mut random = Random::new(nodes);
        let edges_of = |_| [random.below(nodes) as u32, random.below(nodes) as u32];
        let mut graph = BetweennessInput::from_edges(nodes, (0..edges).map(edges_of).collect());
        graph.samples = samples;
        let sources = samples.map_or("all sources".to_owned(), |samples| format!("{samples} sources"));
        let name = format!("betweenness, {nodes} nodes, {edges} edges, {sources}");
        let start = Instant::now();
        graph.graph().unwrap();
        let build = start.elapsed();
        let input = Payload::typed(graph);
        print(&name, median(&mut service(|_| {}), "graph/betweenness-centrality", &input, 5), None);
        println!("    of it making the graph of the edges {:>31.2}", build.as_secs_f64() * 1e3);
        if nodes == 2_000 {
            check(&input);
        }
    }
}

/// Sorts and a selection, with the numbers in the request. `benches/peers/core_peers.py` times them on the device
/// alone.
fn core_rows() {
    println!("\nsorting through the service            p50, ms   bytes over the bus / time");
    let mut random = Random::new(5);
    let words: Vec<u32> = (0..16 << 20).map(|_| random.below(u64::from(u32::MAX)) as u32).collect();
    for (name, return_indices, bytes) in [("alone", false, 8), ("with indices", true, 12)] {
        let input = SortInput { values: words.clone().into(), descending: false, return_indices };
        let time = median(&mut service(|_| {}), "core/sort", &Payload::typed(input), 7);
        print(&format!("sort, 16M u32, {name}"), time, Some((words.len() * bytes) as f64));
    }
    let bytes = (4 * words.len()) as f64;
    for groups in [1_000, 1 << 23] {
        let keys: Vec<u32> = words.iter().map(|word| word % groups).collect();
        let input = SegmentedAggregateInput::new(keys, words.clone());
        let time = median(&mut service(|_| {}), "core/segmented-aggregate", &Payload::typed(input), 7);
        print(&format!("sums of 16M u32 by {groups} keys"), time, Some((words.len() * 8) as f64));
    }
    let input = TopKInput { values: words.into(), rows: 1, k: 100, largest: true };
    let time = median(&mut service(|_| {}), "core/top-k", &Payload::typed(input), 7);
    print("top 100 of 16M u32", time, Some(bytes));
}

/// Option pricing from ordinary memory and from pinned.
pub(crate) fn pricing_rows() {
    println!("\nthe catalogue through the service      p50, ms   bytes over the bus / time");
    for (name, millions) in [("f64, 1M contracts", 1), ("f64, 16M contracts", 16)] {
        // Six arrays and a byte a contract up, six arrays down.
        let bytes = (millions << 20) as f64 * (12.0 * 8.0 + 1.0);
        for (from, pinned) in [("pageable", false), ("pinned", true)] {
            let time = priced(millions << 20, |value| value, pinned);
            print(&format!("option pricing, {name}, from {from}"), time, Some(bytes));
        }
    }
    let bytes = f64::from(16 << 20) * (12.0 * 4.0 + 1.0);
    for (from, pinned) in [("pageable", false), ("pinned", true)] {
        let time = priced(16 << 20, |value| value as f32, pinned);
        print(&format!("option pricing, f32, 16M contracts, from {from}"), time, Some(bytes));
    }
}

fn priced<T: Element>(contracts: usize, real: fn(f64) -> T, pinned: bool) -> Duration
where
    FloatArray: From<Vec<T>> + From<Buffer<T>>,
{
    let mut service = service(|_| {});
    let memory = service.backend().pinned_memory().expect("this process has the device open").clone();
    let input = pricing(contracts, real, |values| {
        if pinned { memory.copy_of(&values).expect("pinned memory").into() } else { values.into() }
    });
    median(&mut service, "risk/option-pricing", &input, 7)
}

/// All pairs of histograms. `benches/peers/similarity_peers.py` times them on the device alone.
fn similarity_rows() {
    let mut random = Random::new(17);
    for (histograms, bins) in [(2_000_u32, 64), (10_000, 64), (2_000, 1_000)] {
        let values: Vec<f64> = (0..histograms as usize * bins).map(|_| 1.0 + random.below(1000) as f64).collect();
        for (name, metric) in [("Jensen-Shannon", Metric::Jsd), ("Wasserstein", Metric::Wasserstein)] {
            let input = ValueSimilarityInput { metric, ..ValueSimilarityInput::new(values.clone(), histograms) };
            let time = median(&mut service(|_| {}), "graph/value-similarity", &Payload::typed(input), 5);
            print(&format!("{name}, all pairs of {histograms} histograms of {bins} bins"), time, None);
        }
    }
}

/// GARCH(1,1) fits of many series, from ordinary memory and from pinned.
fn volatility_rows() {
    const LEN: usize = 1_000;
    for series in [1_000_u32, 10_000, 100_000] {
        let returns = garch_returns(series as usize, LEN);
        for (from, pinned) in [("pageable", false), ("pinned", true)] {
            let mut service = service(|_| {});
            let returns: Buffer<f64> = if pinned {
                service
                    .backend()
                    .pinned_memory()
                    .expect("this process has the device open")
                    .copy_of(&returns)
                    .expect("pinned memory")
            } else {
                returns.clone().into()
            };
            let input = VolatilityInput { num_series: series, mean: Mean::Constant, ..VolatilityInput::new(returns) };
            let time = median(&mut service, "temporal/volatility-analysis", &Payload::typed(input), 5);
            print(&format!("GARCH(1,1), {series} series of {LEN}, from {from}"), time, None);
        }
    }
}

/// Value at risk of a book of 64 correlated factors, at three levels.
fn value_at_risk_rows() {
    const FACTORS: usize = 64;
    let mut cholesky = vec![0.0; FACTORS * FACTORS];
    for (row, entries) in cholesky.chunks_mut(FACTORS).enumerate() {
        entries[0] = if row == 0 { 1.0 } else { 0.6 };
        entries[row] = if row == 0 { 1.0 } else { 0.8 };
    }
    for scenarios in [1_000_000, 10_000_000, 100_000_000] {
        let input = MonteCarloVarInput {
            cholesky: Some(cholesky.clone().into()),
            confidence_levels: vec![0.95, 0.99, 0.999].into(),
            ..MonteCarloVarInput::new(vec![1e6; FACTORS], vec![0.01; FACTORS], scenarios)
        };
        let time = median(&mut service(|_| {}), "risk/monte-carlo-var", &Payload::typed(input), 5);
        print(&format!("value at risk, {scenarios} scenarios of {FACTORS} factors"), time, None);
    }
}

/// Names against a stored list of 200 000. `benches/peers/name_peers.py` times rapidfuzz with such names.
fn screening_rows() {
    const NAMES: usize = 200_000;
    const SYLLABLES: [&str; 16] =
        ["ba", "dei", "fo", "gu", "hi", "ja", "kou", "le", "mia", "no", "pei", "ru", "sha", "ti", "vo", "khe"];
    let mut random = Random::new(13);
    let mut word = |syllables: u64| -> String {
        (0..syllables).map(|_| SYLLABLES[random.below(SYLLABLES.len() as u64) as usize]).collect()
    };
    let first: Vec<String> = (0..2_500).map(|index| word(1 + index % 3)).collect();
    let last: Vec<String> = (0..30_000).map(|index| word(2 + index % 3)).collect();
    let mut name = || {
        let (first, last) = (&first[random.below(2_500) as usize], &last[random.below(30_000) as usize]);
        format!("{first} {last}")
    };
    let names: Vec<String> = (0..NAMES).map(|_| name()).collect();
    let queries: Vec<String> = (0..1_000).map(|_| name()).collect();
    let document = NameListDocument::new(names.iter().map(String::as_str));
    let list = NameList::from_document(&document, &RunContext::detached()).unwrap();
    let mut service = service(|config| config.workers = 1);
    let list: Operand<NameList> = service.registry().operands().put("list", list).unwrap();
    for scorer in [Scorer::JaroWinkler, Scorer::Edit, Scorer::TokenSort, Scorer::TokenSet] {
        for (count, min_score) in [(1, 0.85), (1_000, 0.85), (1_000, 0.0)] {
            let input = SanctionsScreeningInput {
                scorer,
                min_score,
                ..SanctionsScreeningInput::new(queries[..count].to_vec(), list.clone())
            };
            let time = median(&mut service, "compliance/sanctions-screening", &Payload::typed(input), 7);
            print(&format!("screening, {count} x 200000, {scorer:?}, min_score {min_score}"), time, None);
        }
    }
}

/// k-means from ordinary memory: an iteration is the difference of runs with 11 and 1 of them, from given centroids; the
/// seeding that of runs with one iteration. `benches/peers/kmeans_peers.py` times torch.
fn kmeans_rows() {
    for (points, features, k) in [(1 << 20, 128, 1_024_u32), (1 << 20, 128, 64), (1 << 20, 2, 64)] {
        let mut random = Random::new(13);
        let data: Buffer<f32> = (0..points * features).map(|_| random.below(1 << 20) as f32 / 1024.0).collect();
        let init: Buffer<f32> = data[..k as usize * features].iter().copied().collect();
        let seeded = KMeansInput { max_iterations: 1, tolerance: 0.0, ..KMeansInput::new(data, features as u32, k) };
        let one = KMeansInput { init: Some(init), ..seeded.clone() };
        let eleven = KMeansInput { max_iterations: 11, ..one.clone() };
        let [seeded, one, eleven] = [seeded, one, eleven]
            .map(|input| median(&mut service(|_| {}), "ml/kmeans-cluster", &Payload::typed(input), 5));
        let name = format!("k-means, {points} x {features}, {k} clusters");
        print(&format!("{name}: one iteration, with the copies"), one, None);
        print(&format!("{name}: each further one"), eleven.saturating_sub(one) / 10, None);
        print(&format!("{name}: seeding"), seeded.saturating_sub(one), None);
    }
}

/// Series of GARCH(1,1) models of different persistence.
fn garch_returns(series: usize, len: usize) -> Vec<f64> {
    let mut random = Random::new(11);
    let mut uniform = || (random.below(1 << 30) as f64 + 0.5) / f64::from(1 << 30);
    let mut returns = Vec::with_capacity(series * len);
    for _ in 0..series {
        let (alpha, beta) = (0.03 + 0.12 * uniform(), 0.7 + 0.14 * uniform());
        let (mut variance, mut square) = (1.0, 1.0);
        for _ in 0..len {
            variance = 1.0 - alpha - beta + alpha * square + beta * variance;
            let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            let residual = f64::sqrt(variance) * normal;
            square = residual * residual;
            returns.push(0.01 * residual);
        }
    }
    returns
}

/// What each phase of pricing 16M contracts in f64 takes by itself, and what there is to copy with.
fn phases() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let count = 16 << 20;
    let inputs = [100.0, 90.0, 0.02, 0.3, 1.0, 0.01].map(|value| vec![value; count].into());
    let input = Payload::typed(PhasesInput { inputs: inputs.into(), kinds: vec![0; count].into() });
    for copy_threads in [0, 2, 4, 8] {
        let mut service = service(|config| config.copy_threads = copy_threads);
        let mut run = || runtime.block_on(call(&mut service, "bench/phases", &input));
        run();
        let phases = run().payload.downcast::<PhasesOutput>().unwrap();
        let PhasesOutput { upload, kernel, download } = *phases;
        let (up, down) = (count as f64 * 49.0 / upload / 1e6, count as f64 * 48.0 / download / 1e6);
        println!(
            "    f64, 16M, {copy_threads} copy threads: upload {upload:.1} ms ({up:.1} GB/s), kernel {kernel:.2} ms, download \
             {download:.1} ms ({down:.1} GB/s)"
        );
    }
    let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    println!("    transparent huge pages: {}", huge.trim());
}

pub(crate) fn pricing<T>(contracts: usize, real: fn(f64) -> T, array: impl Fn(Vec<T>) -> FloatArray) -> Payload {
    let mut random = Random::new(7);
    let mut between = |low: f64, high: f64| -> FloatArray {
        let step = (high - low) / f64::from(1 << 20);
        array((0..contracts).map(|_| real(low + step * random.below(1 << 20) as f64)).collect())
    };
    Payload::typed(OptionPricingInput {
        spot: between(50.0, 150.0),
        strike: between(50.0, 150.0),
        rate: between(0.0, 0.1),
        volatility: between(0.05, 0.6),
        time: between(0.05, 3.0),
        dividend_yield: between(0.0, 0.05),
        kind: (0..contracts)
            .map(|index| if index % 3 == 0 { OptionKind::Put } else { OptionKind::Call })
            .collect::<Vec<_>>()
            .into(),
        precision: None,
    })
}

fn median(service: &mut Cuda, id: &'static str, input: &Payload, count: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut times: Vec<Duration> = (0..count + 2)
        .map(|_| {
            let start = Instant::now();
            let response = runtime.block_on(call(service, id, input));
            let time = start.elapsed();
            assert_eq!(response.execution.backend, "CUDA");
            time
        })
        .skip(2)
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Checks the output that is timed: the scores of all nodes add up to the mean distance less one.
fn check(input: &Payload) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let response = runtime.block_on(call(&mut service(|_| {}), "graph/betweenness-centrality", input));
    let output = response.payload.downcast::<BetweennessOutput>().unwrap();
    let sum: f64 = output.scores.iter().sum();
    assert!((1.0..20.0).contains(&sum), "{sum}");
}

fn print(name: &str, time: Duration, bytes: Option<f64>) {
    let rate = bytes.map_or(String::new(), |bytes| format!("{:>10.1} GB/s", bytes / time.as_secs_f64() / 1e9));
    println!("{name:<58}{:>9.2}{rate}", time.as_secs_f64() * 1e3);
}
