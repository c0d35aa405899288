//! Betweenness on a graph of hubs and on one of long ways, by the source, and how soon the device is idle after a deadline.
//!
//! Both graphs are made here, the same each time. `kron` is a Graph500 Kronecker graph of 2^18 nodes with 48 draws a node,
//! as the matrix collection's `kron_g500-logn18` is, and not that file. `road` is a grid of 1024 by 1024 nodes that keeps
//! a random spanning tree and a fifth of the other edges, so that a node has 2.4 neighbours and ways are thousands of
//! edges long, as in a road network.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::load::Load;
use tower::{Layer, Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::backends::{BatchedLayer, Local};
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessInput, BetweennessOutput};
use tower_kernels::service::{KernelError, KernelRegistry, KernelRequest, KernelService, Payload};

use crate::{Cuda, call, on_cuda, service};

pub(crate) const ID: &str = "graph/betweenness-centrality";

/// Steele, Lea and Flood, *Fast splittable pseudorandom number generators* (2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Each bit of the two ends from a quadrant: 0.57, 0.19, 0.19, 0.05. Node numbers are mixed, as Graph500 asks.
pub(crate) fn kron(scale: u32, draws: u64) -> (u64, Vec<[u32; 2]>) {
    let mut random = Random(1);
    let mask = (1_u32 << scale) - 1;
    let mixed = |node: u32| {
        let node = node.wrapping_mul(0x9e37_79b1) & mask;
        (node ^ (node >> (scale / 2))).wrapping_mul(0x85eb_ca6b) & mask
    };
    let mut edge = |_| {
        let [mut from, mut to] = [0_u32; 2];
        for _ in 0..scale {
            let quadrant = random.next() >> 32;
            let share = |percent: u64| (percent << 32) / 100;
            let (down, right) = match quadrant {
                q if q < share(57) => (0, 0),
                q if q < share(76) => (0, 1),
                q if q < share(95) => (1, 0),
                _ => (1, 1),
            };
            (from, to) = (from << 1 | down, to << 1 | right);
        }
        [mixed(from), mixed(to)]
    };
    (1 << scale, (0..draws << scale).map(&mut edge).collect())
}

pub(crate) fn road(side: u32) -> (u64, Vec<[u32; 2]>) {
    let mut random = Random(2);
    let nodes = side * side;
    let mut edges: Vec<[u32; 2]> = (0..nodes)
        .flat_map(|node| {
            let right = (node % side + 1 < side).then_some([node, node + 1]);
            let below = (node / side + 1 < side).then_some([node, node + side]);
            right.into_iter().chain(below)
        })
        .collect();
    for last in (1..edges.len()).rev() {
        edges.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut sets = Sets((0..nodes).collect());
    edges.retain(|&[from, to]| sets.join(from, to) || random.below(5) == 0);
    (nodes.into(), edges)
}

/// Disjoint sets, by path halving.
struct Sets(Vec<u32>);

impl Sets {
    fn root(&mut self, mut node: u32) -> u32 {
        while self.0[node as usize] != node {
            self.0[node as usize] = self.0[self.0[node as usize] as usize];
            node = self.0[node as usize];
        }
        node
    }

    /// Whether they were apart.
    fn join(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a as usize] = b;
        a != b
    }
}

pub(crate) struct Graph {
    name: &'static str,
    pub(crate) input: BetweennessInput,
    /// Nodes that have neighbours, each once, in an order without meaning.
    pub(crate) sources: Vec<u32>,
    build: Duration,
}

impl Graph {
    pub(crate) fn new(name: &'static str, (nodes, edges): (u64, Vec<[u32; 2]>)) -> Self {
        let mut random = Random(3);
        let mut chosen = HashSet::new();
        let sources = std::iter::repeat_with(|| edges[random.below(edges.len() as u64) as usize][0])
            .filter(|&node| chosen.insert(node))
            .take(1024)
            .collect();
        let input = BetweennessInput::from_edges(nodes, edges);
        let start = Instant::now();
        let graph = input.graph().unwrap();
        let build = start.elapsed();
        let (nodes, arcs) = (graph.num_nodes(), graph.num_arcs());
        println!("\n{name}: {nodes} nodes, {} edges; made of its list in {:.0} ms", arcs / 2, ms(build));
        dump(name, &graph);
        Self { name, input, sources, build }
    }

    fn from(&self, count: usize) -> Payload {
        Payload::typed(BetweennessInput { sources: Some(self.sources[..count].to_vec().into()), ..self.input.clone() })
    }
}

/// Writes the edges where `TOWER_KERNELS_BENCH_GRAPHS` says, for `benches/peers/graph_files.py`.
pub(crate) fn dump(name: &str, graph: &tower_kernels::kernels::graph::csr::CsrGraph) {
    let Some(folder) = std::env::var_os("TOWER_KERNELS_BENCH_GRAPHS") else { return };
    let mut file = std::io::BufWriter::new(std::fs::File::create(std::path::Path::new(&folder).join(name)).unwrap());
    for node in 0..graph.num_nodes() as u32 {
        for &other in graph.successors().row(node).iter().filter(|&&other| other > node) {
            file.write_all(&[node.to_ne_bytes(), other.to_ne_bytes()].concat()).unwrap();
        }
    }
    file.flush().unwrap();
}

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for graph in [Graph::new("kron", kron(18, 48)), Graph::new("road", road(1024))] {
        let mut service = service(|config| config.workers = 2);
        runtime.block_on(async {
            agrees(&graph, &mut service).await;
            by_source(&graph, &mut service).await;
            deadlines(&graph, &mut service).await;
            shared(&graph).await;
        });
    }
}

/// Checks the output that is timed: some sources on the CPU too.
async fn agrees(graph: &Graph, service: &mut Cuda) {
    let input = graph.from(16);
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut cpu = KernelService::with_backend(registry, CpuBackend::new());
    let cuda = call(service, ID, &input).await.payload.downcast::<BetweennessOutput>().unwrap();
    let response = cpu.ready().await.unwrap().call(KernelRequest::new(ID, input)).await.unwrap();
    let executed = response.execution.executed;
    let cpu = response.payload.downcast::<BetweennessOutput>().unwrap();
    let most = cpu.scores.iter().copied().fold(0.0, f64::max);
    let off = |(a, b): (&f64, &f64)| (a - b).abs() / (b.abs() + 1e-5 * most);
    let worst = cuda.scores.iter().zip(cpu.scores.iter()).map(off).fold(0.0, f64::max);
    assert!(worst < 1e-9, "{}: off by {worst}", graph.name);
    let each = ms(executed.saturating_sub(graph.build)) / 16.0;
    println!("    16 sources agree with the CPU to {worst:.0e}, which takes {each:.1} ms each");
}

async fn by_source(graph: &Graph, service: &mut Cuda) {
    println!("    sources   whole, ms   each   without making the graph, each   each more");
    let mut before: Option<(usize, Duration)> = None;
    for count in [2, 32, 64, 128, 256, 1024] {
        let input = graph.from(count);
        let mut times = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            call(service, ID, &input).await;
            times.push(start.elapsed());
        }
        times.sort();
        let time = times[1];
        let more = before.map_or(f64::NAN, |(less, before)| (ms(time) - ms(before)) / (count - less) as f64);
        let (each, kernel) = (ms(time) / count as f64, ms(time.saturating_sub(graph.build)) / count as f64);
        println!("    {count:>7}{:>12.1}{each:>7.2}{kernel:>33.3}{more:>12.3}", ms(time));
        before = Some((count, time));
    }
}

/// The time from the deadline to the release of the permit, which is once the stream is idle.
async fn deadlines(graph: &Graph, service: &mut Cuda) {
    let all = Payload::typed(graph.input.clone());
    for (name, timeout) in [
        ("after 50 ms", Duration::from_millis(50)),
        ("on the device", graph.build * 3 / 2 + Duration::from_millis(100)),
    ] {
        let mut late = Vec::new();
        for run in 0..20 {
            let timeout = timeout + Duration::from_millis(7 * run);
            let deadline = Instant::now() + timeout;
            let request = KernelRequest::new(ID, all.clone()).with_timeout(timeout);
            let result = service.ready().await.unwrap().call(request).await;
            assert!(matches!(result, Err(KernelError::DeadlineExceeded { started: true })), "{:?}", result.err());
            while service.backend().load().jobs > 0 {
                std::hint::spin_loop();
            }
            late.push(deadline.elapsed());
        }
        late.sort();
        println!("    a deadline {name}: idle after {:.2} ms, {:.2} at most", ms(late[10]), ms(late[19]));
    }
}

/// The time of each further source of a request on the stored graph, on which the upload has no part.
async fn further_source(graph: &Graph, input: &BetweennessInput, service: &mut Cuda) {
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (fastest, count) in fastest.iter_mut().zip([256, 1024]) {
            let sources = graph.sources[..count].to_vec();
            let request = Payload::typed(BetweennessInput { sources: Some(sources.into()), ..input.clone() });
            let start = Instant::now();
            call(service, ID, &request).await;
            *fastest = start.elapsed().min(*fastest);
        }
    }
    let further = ms(fastest[1].saturating_sub(fastest[0])) / 768.0;
    println!("    one request on the stored graph: {further:.3} ms for each further source");
}

/// Requests of 16 clients on the stored graph, each with sources of its own: one at a time, and in shared runs.
async fn shared(graph: &Graph) {
    const CLIENTS: usize = 16;
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let operand = registry.operands().put(graph.name, graph.input.graph().unwrap()).unwrap();
    let input = BetweennessInput::from_operand(operand);
    let backend = CudaBackend::with_config(0, CudaConfig { workers: 2, ..CudaConfig::default() }).unwrap();
    let local = Local::with_backends(CpuBackend::new(), Ok(backend.clone()));
    let layer = BatchedLayer::over(&local);
    let mut alone = KernelService::with_backend(Arc::clone(&registry), backend);
    let together = KernelService::with_backend(registry, layer.layer(local));
    further_source(graph, &input, &mut alone).await;
    println!("    sources each   sources/s, one request at a time   16 clients   ratio   requests a run");
    for each in [4, 32] {
        let request = |client: usize| {
            let sources = sources_of(graph, client, each);
            Payload::typed(BetweennessInput { sources: Some(sources.into()), ..input.clone() })
        };
        let requests: Vec<Payload> = (0..CLIENTS).map(request).collect();
        let rounds = 4;
        call_each(&mut alone, &requests).await;
        let start = Instant::now();
        for _ in 0..rounds {
            call_each(&mut alone, &requests).await;
        }
        let rate = |time: Duration| (rounds * CLIENTS * each) as f64 / time.as_secs_f64();
        let one_at_a_time = rate(start.elapsed());
        let before = layer.snapshot();
        let start = Instant::now();
        let clients = requests.into_iter().map(|request| {
            let mut service = together.clone();
            tokio::spawn(async move {
                for _ in 0..rounds {
                    let request = on_cuda(ID, request.clone());
                    service.ready().await.unwrap().call(request).await.unwrap();
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        let shared = rate(start.elapsed());
        let now = layer.snapshot();
        let size = (now.requests - before.requests) as f64 / (now.batches - before.batches).max(1) as f64;
        let ratio = shared / one_at_a_time;
        println!("    {each:>12}{one_at_a_time:>35.0}{shared:>13.0}{ratio:>8.2}{size:>17.1}");
    }
}

/// The sources of one of several clients.
fn sources_of(graph: &Graph, client: usize, each: usize) -> Vec<u32> {
    graph.sources[client * each..(client + 1) * each].to_vec()
}

async fn call_each(service: &mut Cuda, requests: &[Payload]) {
    for request in requests {
        call(service, ID, request).await;
    }
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
