//! From which size on a kernel is faster on the GPU, and whether a request that asks for no backend runs on the faster one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::kernels::core::segmented_aggregate::SegmentedAggregateInput;
use tower_kernels::kernels::core::sort::SortInput;
use tower_kernels::kernels::core::top_k::TopKInput;
use tower_kernels::kernels::graph::betweenness_centrality::BetweennessInput;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::pagerank::PageRankInput;
use tower_kernels::kernels::graph::triangle_counting::TriangleCountingInput;
use tower_kernels::kernels::linalg::dot::DotInput;
use tower_kernels::kernels::stats::moments::MomentsInput;
use tower_kernels::service::{BackendKind, KernelRegistry, KernelRequest, KernelService, Operand, Payload};

use crate::catalogue::pricing;
use crate::graphs::kron;
use crate::saxpy_input;

/// Makes the input of a size.
type MakeInput = fn(u32) -> Payload;

/// Runs of a size before those that count: the choice learns from them.
const LEARNING: usize = 30;

pub(crate) fn run() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let registry = Arc::new(registry);
    let backend = CudaBackend::with_config(0, CudaConfig::default()).unwrap();
    let local = Local::with_backends(CpuBackend::new(), Ok(backend));
    let mut service = KernelService::with_backend(Arc::clone(&registry), local);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!(
        "\nmedian µs of one request at a time                      CPU        GPU     chosen   of the better   on"
    );
    let arrays: [(&'static str, MakeInput); 7] = [
        ("linalg/saxpy", |exponent| saxpy_input(1 << exponent)),
        ("linalg/dot", |exponent| {
            Payload::typed(DotInput { x: vec![1.0; 1 << exponent].into(), y: vec![2.0; 1 << exponent].into() })
        }),
        ("stats/moments", |exponent| Payload::typed(MomentsInput { x: vec![0.5; 1 << exponent].into() })),
        ("risk/option-pricing", |exponent| pricing(1 << exponent, |real| real as f32, Into::into)),
        ("core/sort", |exponent| {
            Payload::typed(SortInput { values: words(exponent).into(), descending: false, return_indices: false })
        }),
        ("core/top-k", |exponent| {
            Payload::typed(TopKInput { values: words(exponent).into(), rows: 1, k: 10, largest: true })
        }),
        ("core/segmented-aggregate", |exponent| {
            let keys: Vec<u32> = words(exponent).into_iter().map(|word| word % 1000).collect();
            Payload::typed(SegmentedAggregateInput::new(keys, words(exponent)))
        }),
    ];
    let mut worst = Vec::new();
    for (id, input) in arrays {
        for exponent in (4..=24).step_by(2) {
            let ratio = runtime.block_on(row(&mut service, id, &format!("2^{exponent}"), &input(exponent)));
            worst.push((ratio, format!("{id} 2^{exponent}")));
        }
    }
    for scale in (4..=18).step_by(2) {
        let (nodes, edges) = kron(scale, 16);
        let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Undirected).unwrap();
        let stored: Operand<_> = registry.operands().put("graph", graph).unwrap();
        let sources: Vec<u32> = (0..nodes.min(16) as u32).collect();
        for (id, input) in [
            (
                "graph/pagerank",
                Payload::typed(PageRankInput { graph: Some(stored.clone()), ..PageRankInput::default() }),
            ),
            ("graph/triangle-counting", Payload::typed(TriangleCountingInput::from_operand(stored.clone()))),
            (
                "graph/betweenness-centrality",
                Payload::typed(BetweennessInput {
                    sources: Some(sources.into()),
                    ..BetweennessInput::from_operand(stored.clone())
                }),
            ),
        ] {
            let ratio = runtime.block_on(row(&mut service, id, &format!("2^{scale} nodes"), &input));
            worst.push((ratio, format!("{id} 2^{scale} nodes")));
        }
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("the worst:");
    for (ratio, name) in worst.iter().take(8) {
        println!("    {ratio:>5.2} {name}");
    }
}

/// Prints a row; returns the time of the chosen backend over that of the better one.
async fn row(service: &mut KernelService<Local>, id: &'static str, size: &str, input: &Payload) -> f64 {
    let mut medians = Vec::new();
    let (mut on_cuda, mut counted) = (0, 0);
    // First, so that it has nothing to learn from but its own runs.
    for backend in [None, Some(BackendKind::Cpu), Some(BackendKind::Cuda)] {
        let (first, _) = time(service, id, input, backend).await;
        let runs = if first > Duration::from_millis(20) { 5 } else { 60 };
        let learning = if backend.is_none() { LEARNING } else { 3 };
        let mut times = Vec::new();
        for turn in 0..learning + runs {
            let (time, ran_on) = time(service, id, input, backend).await;
            if turn >= learning {
                times.push(time);
                if backend.is_none() {
                    counted += 1;
                    on_cuda += usize::from(ran_on == "CUDA");
                }
            }
        }
        times.sort_unstable();
        medians.push(times[times.len() / 2].as_secs_f64() * 1e6);
    }
    let [chosen, cpu, gpu] = medians[..] else { unreachable!("three medians") };
    let ratio = chosen / cpu.min(gpu);
    println!(
        "{id:<30} {size:<12} {cpu:>14.1} {gpu:>10.1} {chosen:>10.1} {ratio:>10.2}   {on_cuda} of {counted} on the GPU"
    );
    ratio
}

async fn time(
    service: &mut KernelService<Local>,
    id: &'static str,
    input: &Payload,
    backend: Option<BackendKind>,
) -> (Duration, &'static str) {
    let mut request = KernelRequest::new(id, input.clone());
    if let Some(backend) = backend {
        request.set_backend(backend);
    }
    let start = Instant::now();
    let response = service.ready().await.unwrap().call(request).await.unwrap();
    (start.elapsed(), response.execution.backend)
}

/// Numbers in no order.
fn words(exponent: u32) -> Vec<u32> {
    (0..1_u32 << exponent).map(|at| at.wrapping_mul(0x9E37_79B9) ^ (at >> 3)).collect()
}
