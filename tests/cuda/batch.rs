//! Requests that share a run: arrays joined and split, with the same outputs as alone.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tower::{Layer, ServiceExt};
use tower_kernels::backends::BatchedLayer;
use tower_kernels::backends::batched::Batched;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::eigenvector_centrality::{EigenvectorCentralityInput, EigenvectorCentralityOutput};
use tower_kernels::kernels::graph::katz_centrality::{KatzCentralityInput, KatzCentralityOutput};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::kernels::risk::option_pricing::OptionKind;
use tower_kernels::kernels::risk::option_pricing::{OptionPricingInput, OptionPricingOutput};
use tower_kernels::service::{Buffer, FloatArray, KernelRequest, KernelService, Payload};

use crate::probe::{Bench, numbers};

crate::tests! {
    parts_of_every_size_are_joined_and_taken_apart
    lengths_that_do_not_fit_are_refused
    saxpy_together_is_saxpy_alone
    option_prices_together_are_those_alone
    betweenness_on_one_graph_agrees
    betweenness_of_a_member_has_the_bits_of_a_run_alone
    betweenness_of_many_batches_of_sources_has_the_bits_of_a_run_alone
    eigenvector_and_katz_centrality_together_have_the_bits_of_runs_alone
    a_cancelled_member_of_a_run_does_not_end_the_others
    many_batches_from_many_callers_do_not_mix
}

fn parts_of_every_size_are_joined_and_taken_apart() {
    // In elements of 8 bytes: the slab of small arrays holds 32 768, a piece 262 144, staging four of these.
    let splits: [&[usize]; 9] = [
        &[],
        &[0],
        &[5],
        &[1, 0, 2, 3],
        &[1000; 33],
        &[32_768, 1],
        &[0, 262_143, 2, 0, 262_144, 1],
        &[262_144, 262_144, 5],
        &[3; 50_000],
    ];
    let more: Vec<usize> = (0..40).map(|index| index * 6_151 % 100_003).collect();
    let bench = Bench::new(1).with("test/parts", move |cuda| {
        for lengths in splits.into_iter().chain([&more[..]]) {
            let parts: Vec<_> = lengths.iter().enumerate().map(|(seed, &len)| numbers(len, seed as u64)).collect();
            let name = format!("{} parts of {} in all", lengths.len(), lengths.iter().sum::<usize>());
            let joined = cuda.upload_parts(parts.iter().map(Vec::as_slice))?;
            let other = cuda.upload_parts(parts.iter().rev().map(Vec::as_slice))?;
            assert_eq!(joined.len(), lengths.iter().sum::<usize>(), "{name}");
            assert!(*cuda.download(&joined)? == parts.concat()[..], "{name}: joined");
            let [apart, whole] = cuda.download_all_parts([&joined, &joined], lengths)?;
            assert!(
                apart.iter().zip(&parts).all(|(a, b)| a[..] == b[..]) && apart.len() == parts.len(),
                "{name}: apart"
            );
            assert!(whole == apart, "{name}: twice");
            let reversed: Vec<usize> = lengths.iter().rev().copied().collect();
            let apart = cuda.download_parts(&other, &reversed)?;
            assert!(apart.iter().rev().zip(&parts).all(|(a, b)| a[..] == b[..]), "{name}: in reverse");
        }
        Ok(Buffer::default())
    });
    for _ in 0..3 {
        bench.run("test/parts").unwrap();
    }
}

fn lengths_that_do_not_fit_are_refused() {
    let bench = Bench::new(1).with("test/lengths", |cuda| {
        let there = cuda.upload(&numbers(10, 0))?;
        for lengths in [&[5_usize, 4][..], &[5, 6], &[], &[usize::MAX, 11]] {
            cuda.download_parts(&there, lengths).unwrap_err();
        }
        cuda.download_parts(&there, &[4, 6]).map(|mut parts| parts.swap_remove(1))
    });
    bench.run("test/lengths").unwrap();
}

/// A service whose requests wait until all of them can share a run, and the same on the CPU, each alone.
struct Both {
    bench: Bench,
    cpu: KernelService<CpuBackend>,
}

impl Both {
    fn new() -> Self {
        let bench = Bench::new(2);
        tower_kernels::kernels::register_all(&bench.registry).unwrap();
        let cpu = KernelService::with_backend(Arc::clone(&bench.registry), CpuBackend::new());
        Self { bench, cpu }
    }

    fn batched(&self, layer: &BatchedLayer) -> KernelService<Batched<CudaBackend>> {
        KernelService::with_backend(Arc::clone(&self.bench.registry), layer.layer(self.bench.backend.clone()))
    }

    /// The outputs together on CUDA, alone on CUDA and alone on the CPU.
    fn run<T: std::any::Any + Send + Sync>(&self, id: &'static str, inputs: Vec<Payload>) -> [Vec<Arc<T>>; 3] {
        let [together, alone] = self.run_on_cuda(id, &inputs);
        let cpu = self.bench.runtime.block_on(async {
            let mut cpu = Vec::new();
            for input in &inputs {
                let request = KernelRequest::new(id, input.clone());
                cpu.push(self.cpu.clone().oneshot(request).await.unwrap().payload.downcast().unwrap());
            }
            cpu
        });
        [together, alone, cpu]
    }

    /// The outputs together on CUDA, and alone on CUDA.
    fn run_on_cuda<T: std::any::Any + Send + Sync>(&self, id: &'static str, inputs: &[Payload]) -> [Vec<Arc<T>>; 2] {
        let service = self.batched(&all_at_once(inputs.len()));
        self.bench.runtime.block_on(async {
            let call = |input: &Payload| service.clone().oneshot(KernelRequest::new(id, input.clone()));
            let together = join_all(inputs.iter().map(call)).await.into_iter().map(|response| {
                let response = response.unwrap();
                let execution = &response.execution;
                assert_eq!((execution.backend, execution.batch_size as usize), ("CUDA", inputs.len()));
                response.payload.downcast().unwrap()
            });
            let together = together.collect();
            let mut alone = Vec::new();
            for input in inputs {
                let request = KernelRequest::new(id, input.clone());
                alone.push(self.bench.service().oneshot(request).await.unwrap().payload.downcast().unwrap());
            }
            [together, alone]
        })
    }
}

/// A layer that waits until this many requests can share a run.
fn all_at_once(requests: usize) -> BatchedLayer {
    BatchedLayer::for_workers(2).max_requests(requests).max_bytes(u64::MAX).max_delay(Duration::from_secs(5))
}

fn saxpy_together_is_saxpy_alone() {
    let both = Both::new();
    for count in [2, 3, 64, 256] {
        let inputs = (0..count).map(|seed| {
            let len = 1 + (seed * 977) % 3000;
            let [x, y] =
                [1, 2].map(|add| numbers(len, (2 * seed + add) as u64).into_iter().map(|v| v as f32).collect());
            Payload::typed(SaxpyInput { a: 1.0 / 3.0, x, y })
        });
        let [together, alone, cpu] = both.run::<SaxpyOutput>("linalg/saxpy", inputs.collect());
        assert!(together == alone && together == cpu, "{count}");
    }
}

fn option_prices_together_are_those_alone() {
    let both = Both::new();
    let spread = |len: usize, seed: u64, low: f64, high: f64| -> Vec<f64> {
        numbers(len, seed).into_iter().map(|value| low + (high - low) * value).collect()
    };
    for (single, arrays) in [(false, true), (true, true), (false, false)] {
        let inputs = (0..32_u64).map(|seed| {
            // What takes longer than 20 µs to be checked runs alone, and in double precision these come near it.
            let len = 1 + (seed as usize * 311) % 900;
            let real = |add: u64, low, high| -> FloatArray {
                let values = spread(len, 10 * seed + add, low, high);
                if single { values.iter().map(|&v| v as f32).collect::<Vec<_>>().into() } else { values.into() }
            };
            let kinds = |index: usize| if index.is_multiple_of(3) { OptionKind::Put } else { OptionKind::Call };
            Payload::typed(OptionPricingInput {
                spot: real(1, 20.0, 200.0),
                strike: if arrays { real(2, 20.0, 200.0) } else { 100.0.into() },
                rate: if arrays { real(3, -0.02, 0.1) } else { 0.03.into() },
                volatility: real(4, 0.0, 0.9),
                time: real(5, 0.0, 4.0),
                dividend_yield: if arrays { real(6, 0.0, 0.06) } else { 0.0.into() },
                kind: if arrays { (0..len).map(kinds).collect::<Vec<_>>().into() } else { OptionKind::Put.into() },
                precision: None,
            })
        });
        let [together, alone, cpu] = both.run::<OptionPricingOutput>("risk/option-pricing", inputs.collect());
        let tolerance = if single { 1e-5 } else { 1e-12 };
        for ((together, alone), cpu) in together.iter().zip(&alone).zip(&cpu) {
            assert!(together == alone, "each contract on its own: {single} {arrays}");
            for (a, b) in [(&together.price, &cpu.price), (&together.delta, &cpu.delta)] {
                let close = |(a, b): (f64, f64)| (a - b).abs() <= tolerance * 400.0;
                assert!(reals(a).into_iter().zip(reals(b)).all(close), "{single} {arrays}");
            }
        }
    }
}

fn reals(values: &FloatArray) -> Vec<f64> {
    match values {
        FloatArray::F32(values) => values.iter().map(|&value| value.into()).collect(),
        FloatArray::F64(values) => values.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn betweenness_on_one_graph_agrees() {
    let both = Both::new();
    let edges: Vec<[u32; 2]> = (0..1500_u32).map(|edge| [edge % 400, (edge * 7 + edge / 400) % 400]).collect();
    for directed in [false, true] {
        let inputs = (0..9_u32).map(|seed| {
            let mut input = BetweennessInput::from_edges(400, edges.clone());
            (input.directed, input.normalized) = (directed, seed.is_multiple_of(2));
            input.sources = (seed % 3 > 0).then(|| (0..40 + seed % 3).map(|node| node * 9).collect::<Vec<_>>().into());
            Payload::typed(input)
        });
        let [together, alone, cpu] = both.run::<BetweennessOutput>("graph/betweenness-centrality", inputs.collect());
        for ((together, alone), cpu) in together.iter().zip(&alone).zip(&cpu) {
            for other in [alone, cpu] {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * b.abs().max(1e-9);
                assert!(together.scores.iter().zip(other.scores.iter()).all(close), "{directed}");
            }
        }
    }
}

const BETWEENNESS: &str = "graph/betweenness-centrality";

fn random_edges(nodes: usize, edges: usize, seed: u64) -> Vec<[u32; 2]> {
    let ends = numbers(2 * edges, seed);
    ends.chunks(2).map(|ends| [ends[0], ends[1]].map(|end| (end * nodes as f64) as u32)).collect()
}

/// Stores a graph and returns an input that refers to it.
fn stored(both: &Both, nodes: usize, edges: &[[u32; 2]], direction: Direction) -> BetweennessInput {
    let graph = CsrGraph::from_edges(nodes, edges, direction).unwrap();
    BetweennessInput::from_operand(both.bench.registry.operands().put("graph", graph).unwrap())
}

/// Requests with different numbers of sources, some of which several requests have, and two that have the same.
fn mixed_requests(graph: &BetweennessInput, nodes: u32, members: u32) -> Vec<Payload> {
    let lengths = [2, 5, 33, 1 + nodes.min(70), 4, 32, 31, 64, 3];
    let request = |member: u32| {
        let mut input = BetweennessInput { normalized: member.is_multiple_of(3), ..graph.clone() };
        match member {
            6 => input.samples = Some(10),
            11 => input.sources = None,
            _ => {
                let length = lengths[member as usize % lengths.len()].min(nodes - 1);
                // Member 9 has the sources of member 0; others have some in common.
                let first = if member == 9 { 0 } else { member * 7 };
                let sources: Vec<u32> = (0..length).map(|index| (first + index * 13) % nodes).collect();
                input.sources = Some(sources.into());
            }
        }
        Payload::typed(input)
    };
    (0..members).map(request).collect()
}

fn assert_same_bits(together: &[Arc<BetweennessOutput>], alone: &[Arc<BetweennessOutput>], name: &str) {
    for (member, (together, alone)) in together.iter().zip(alone).enumerate() {
        assert_eq!(together.scores.len(), alone.scores.len(), "{name}");
        for (node, (a, b)) in together.scores.iter().zip(alone.scores.iter()).enumerate() {
            assert!(a.to_bits() == b.to_bits(), "{name}, member {member}, node {node}: {a} and {b}");
        }
    }
}

fn betweenness_of_a_member_has_the_bits_of_a_run_alone() {
    let both = Both::new();
    let path: Vec<[u32; 2]> = (1..601).map(|node| [node - 1, node]).collect();
    let grid: Vec<[u32; 2]> = (0..899_u32)
        .flat_map(|v| [[v, if v % 29 < 28 { v + 1 } else { v }], [v, if v < 870 { v + 29 } else { v }]])
        .collect();
    // Two hubs of more neighbours than a warp takes, whose arcs a block adds up.
    let hubs: Vec<[u32; 2]> = (2..4001).map(|node| [node % 2, node]).chain(random_edges(4001, 6000, 11)).collect();
    let graphs = [
        ("path", 601, path),
        ("grid", 899, grid),
        ("hubs", 4001, hubs),
        ("random", 1999, random_edges(1999, 12_000, 12)),
        ("dense", 301, random_edges(301, 30_000, 13)),
        ("sparse", 997, random_edges(997, 700, 14)),
    ];
    for (name, nodes, edges) in graphs {
        for direction in [Direction::Undirected, Direction::Directed] {
            let graph = stored(&both, nodes, &edges, direction);
            for members in [2, 7, 16] {
                let requests = mixed_requests(&graph, nodes as u32, members);
                let [together, alone] = both.run_on_cuda::<BetweennessOutput>(BETWEENNESS, &requests);
                assert_same_bits(&together, &alone, &format!("{name}, {direction:?}, {members} members"));
            }
        }
    }
}

fn betweenness_of_many_batches_of_sources_has_the_bits_of_a_run_alone() {
    let both = Both::new();
    // Of so many nodes that a batch has 192 sources.
    let graph = stored(&both, 400_009, &random_edges(400_009, 900_000, 15), Direction::Undirected);
    let lengths = [3_u32, 150, 20, 110];
    let request = |(member, &length): (usize, &u32)| {
        let sources: Vec<u32> = (0..length).map(|index| member as u32 * 999 + index * 1_009).collect();
        Payload::typed(BetweennessInput { sources: Some(sources.into()), ..graph.clone() })
    };
    let requests: Vec<Payload> = lengths.iter().enumerate().map(request).collect();
    let [together, alone] = both.run_on_cuda::<BetweennessOutput>(BETWEENNESS, &requests);
    assert_same_bits(&together, &alone, "several batches");
    assert!(alone[1].scores.iter().any(|score| *score > 0.0));
}

/// Products by chunks, with two vectors at a time, and by segments, with one; more vectors than go through a graph together.
fn eigenvector_and_katz_centrality_together_have_the_bits_of_runs_alone() {
    let both = Both::new();
    let few = |[from, to]: [u32; 2]| [from / 10 * 10, to / 20 * 3];
    let by_segments: Vec<[u32; 2]> = random_edges(400_000, 3_000_000, 13).into_iter().map(few).collect();
    for (nodes, edges) in [(10_007, random_edges(10_007, 100_000, 17)), (400_000, by_segments)] {
        let graph = stored(&both, nodes, &edges, Direction::Directed).graph;
        let request = |member: u32| {
            let max_iterations = [60, 7, 8, 1, 25][member as usize % 5];
            let tolerance = [1e-12, 1e-5, 0.0][member as usize % 3];
            EigenvectorCentralityInput { graph: graph.clone(), max_iterations, tolerance, ..Default::default() }
        };
        let requests: Vec<Payload> = (0..11).map(request).map(Payload::typed).collect();
        let id = "graph/eigenvector-centrality";
        let [together, alone] = both.run_on_cuda::<EigenvectorCentralityOutput>(id, &requests);
        for (member, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert!(alone.scores.iter().all(|score| score.is_finite()));
            assert!(together == alone, "eigenvector, member {member} of {nodes} nodes");
        }
        let request = |member: u32| KatzCentralityInput {
            graph: graph.clone(),
            alpha: 1e-4 * f64::from(member + 1),
            // Long arrays are decoded by other threads, and such requests run alone.
            beta: if member.is_multiple_of(2) || nodes > 12_000 {
                f64::from(member + 1).into()
            } else {
                (0..nodes).map(|node| node as f64).collect::<Vec<_>>().into()
            },
            normalized: !member.is_multiple_of(3),
            max_iterations: [60, 7, 8, 1, 25][member as usize % 5],
            tolerance: [1e-12, 1e-5, 0.0][member as usize % 3],
            ..Default::default()
        };
        let requests: Vec<Payload> = (0..11).map(request).map(Payload::typed).collect();
        let [together, alone] = both.run_on_cuda::<KatzCentralityOutput>("graph/katz-centrality", &requests);
        for (member, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert!(alone.scores.iter().all(|score| score.is_finite()));
            assert!(together == alone, "Katz, member {member} of {nodes} nodes");
        }
    }
}

fn a_cancelled_member_of_a_run_does_not_end_the_others() {
    let both = Both::new();
    let graph = stored(&both, 100_003, &random_edges(100_003, 500_000, 16), Direction::Undirected);
    let request = |member: u32| {
        let sources: Vec<u32> = (0..500).map(|index| member + index * 199).collect();
        Payload::typed(BetweennessInput { sources: Some(sources.into()), ..graph.clone() })
    };
    let requests = [request(0), request(1), request(2)];
    let layer = all_at_once(requests.len());
    let service = both.batched(&layer);
    both.bench.runtime.block_on(async {
        let call =
            |request: &Payload| tokio::spawn(service.clone().oneshot(KernelRequest::new(BETWEENNESS, request.clone())));
        let [first, cancelled, last] = requests.each_ref().map(call);
        while layer.snapshot().batches == 0 {
            tokio::task::yield_now().await;
        }
        cancelled.abort();
        for (task, request) in [(first, &requests[0]), (last, &requests[2])] {
            let response = task.await.unwrap().unwrap();
            assert_eq!(response.execution.batch_size, 3);
            let alone = both.bench.service().oneshot(KernelRequest::new(BETWEENNESS, request.clone())).await.unwrap();
            let [together, alone] =
                [response, alone].map(|response| vec![response.payload.downcast::<BetweennessOutput>().unwrap()]);
            assert_same_bits(&together, &alone, "beside a cancelled member");
        }
        assert!(cancelled.await.unwrap_err().is_cancelled());
    });
}

fn many_batches_from_many_callers_do_not_mix() {
    let both = Both::new();
    let layer = BatchedLayer::for_workers(1);
    let service = both.batched(&layer);
    both.bench.runtime.block_on(async {
        let tasks: Vec<_> = (0..64_u32)
            .map(|task| {
                let service = service.clone();
                tokio::spawn(async move {
                    for round in 0..100_u32 {
                        let value = (task * 100 + round) as f32;
                        let len = 1 + (task as usize * 13 + round as usize * 7) % 1500;
                        let input = SaxpyInput { a: 2.0, x: vec![value; len].into(), y: vec![1.0; len].into() };
                        let request = KernelRequest::new("linalg/saxpy", Payload::typed(input));
                        let response =
                            service.clone().oneshot(request).await.unwrap().payload.downcast::<SaxpyOutput>();
                        let response = response.unwrap();
                        assert!(response.y.len() == len && response.y.iter().all(|y| *y == 2.0 * value + 1.0));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let stats = layer.snapshot();
    assert!(stats.requests > stats.batches, "requests have shared runs: {stats:?}");
}
