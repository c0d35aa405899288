//! A graph that is stored once and queried over REST, beside the same requests with the graph in each of them, and the
//! upload of a large one.
//!
//! The graph is a Kronecker graph of 2^20 nodes with 8 draws a node. Server and client share the process and the loopback
//! interface; the client writes ready-made bodies and does not parse what it reads.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tower::Layer;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::{CudaBackend, CudaConfig};
use tower_kernels::backends::{BatchedLayer, Local};
use tower_kernels::kernels::graph::betweenness_centrality::BetweennessInput;
use tower_kernels::kernels::graph::csr::CsrGraph;
use tower_kernels::service::{KernelRegistry, KernelService, Operand, Payload};

use crate::graphs::{Graph, ID, kron, ms};
use crate::{Cuda, call};

const SOURCES: usize = 64;
const CLIENTS: usize = 16;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let graph = Graph::new("kron20", kron(20, 8));
    let csr = graph.input.graph().unwrap();
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let backend = CudaBackend::with_config(0, CudaConfig { workers: 2, ..CudaConfig::default() }).unwrap();
    let alone = KernelService::with_backend(Arc::clone(&registry), backend.clone());
    let server = runtime.block_on(serve(&registry, backend));

    let bodies = Bodies::new(&csr, &graph.sources[..SOURCES]);
    let csr_bytes = 4 * (csr.num_nodes() + 1 + csr.num_arcs());
    let start = Instant::now();
    let head = "content-type: application/octet-stream\r\ninference-header-content-length: ";
    let put = format!("{head}{}\r\n", bodies.graph_head.len());
    http(server, "PUT", "/operands/kron20?type=graph", &put, &[bodies.graph_head.as_bytes(), &bodies.graph]);
    println!("    stored: {:.0} ms for {:.1} MB", ms(start.elapsed()), csr_bytes as f64 / 1e6);

    let stored = Operand::from_version(&registry.operands().get(None, "kron20").unwrap()).unwrap();
    let in_process = in_process(&runtime, alone, &graph, stored);
    println!("\n{SOURCES} sources, ms                                     p50  x the first  body, MB");
    print("in process, resident, typed", in_process, in_process, 0);
    for (name, path, headers, body) in bodies.cases() {
        let times = times(|| http(server, "POST", path, &headers, &body));
        print(name, times, in_process, body.iter().map(|part| part.len()).sum());
    }
    let scores = 8 * csr.num_nodes();
    let bare = bare_server(scores);
    print("the same scores from a bare socket", times(|| http(bare, "GET", "/", "", &[])), in_process, 0);
    clients(server, &graph);
    upload(server);
}

/// Serves REST on a port of the loopback interface.
async fn serve(registry: &Arc<KernelRegistry>, backend: CudaBackend) -> SocketAddr {
    let local = Local::with_backends(CpuBackend::new(), Ok(backend));
    local.load_kernels(registry);
    let kernels = KernelService::with_backend(Arc::clone(registry), local.clone());
    let service = KernelService::with_backend(Arc::clone(registry), BatchedLayer::over(&local).layer(local));
    let config = RouterConfig { max_request_size: 1 << 30, ..RouterConfig::default() };
    let router = KernelRouter::with_service(service, &kernels, config).into_router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// A server that responds to each request with this many bytes, to show what the sockets alone take.
fn bare_server(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let response =
            [format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes(), &vec![1; bytes]].concat();
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|read| read > 0) {
            stream.write_all(&response).unwrap();
        }
    });
    address
}

/// The requests: with the graph in each of them, and with its name.
struct Bodies {
    by_name: String,
    by_name_head: String,
    name_and_sources: Vec<u8>,
    json: String,
    graph_head: String,
    graph: Vec<u8>,
    tensors_head: String,
    sources: Vec<u8>,
}

impl Bodies {
    fn new(graph: &CsrGraph, sources: &[u32]) -> Self {
        let successors = graph.successors();
        let (offsets, columns) = (successors.row_offsets(), successors.column_indices());
        let csr = [("row_offsets", "UINT32", offsets.len(), 4), ("column_indices", "UINT32", columns.len(), 4)];
        let list = ("sources", "UINT32", sources.len(), 4);
        let name = "kron20";
        Self {
            by_name: format!(r#"{{"graph": {{"operand": "{name}"}}, "sources": {sources:?}}}"#),
            by_name_head: tensors(&[("graph.operand", "UINT8", name.len(), 1), list]),
            name_and_sources: [name.as_bytes(), &bytes(sources)].concat(),
            json: format!(r#"{{"row_offsets": {offsets:?}, "column_indices": {columns:?}, "sources": {sources:?}}}"#),
            graph_head: tensors(&csr),
            graph: [bytes(offsets), bytes(columns)].concat(),
            tensors_head: tensors(&[csr[0], csr[1], list]),
            sources: bytes(sources),
        }
    }

    fn cases(&self) -> [(&'static str, &'static str, String, Vec<&[u8]>); 4] {
        let execute = "/kernels/graph/betweenness-centrality/execute";
        let json = || "content-type: application/json\r\n".to_owned();
        let tensors = |head: &str| {
            format!("content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n", head.len())
        };
        let name_head = self.by_name_head.as_bytes();
        let value_head = self.tensors_head.as_bytes();
        [
            ("REST by name, JSON", execute, json(), vec![self.by_name.as_bytes()]),
            ("REST by name, tensors", execute, tensors(&self.by_name_head), vec![name_head, &self.name_and_sources]),
            ("REST by value, JSON", execute, json(), vec![self.json.as_bytes()]),
            (
                "REST by value, tensors",
                execute,
                tensors(&self.tensors_head),
                vec![value_head, &self.graph, &self.sources],
            ),
        ]
    }
}

/// The JSON before the data of tensors: name, type, number of elements and size of one.
fn tensors(all: &[(&str, &str, usize, usize)]) -> String {
    let one = |(name, dtype, len, size): &(&str, &str, usize, usize)| {
        let parameters = format!(r#"{{"binary_data_size": {}}}"#, len * size);
        format!(r#"{{"name": "{name}", "datatype": "{dtype}", "shape": [{len}], "parameters": {parameters}}}"#)
    };
    format!(r#"{{"inputs": [{}]}}"#, all.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn bytes(elements: &[u32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// Sends a request on this thread's connection, and reads the response into memory that this thread keeps, so that the time
/// is not that of connecting or of the client's page faults.
fn http(server: SocketAddr, method: &str, path: &str, headers: &str, body: &[&[u8]]) {
    thread_local!(static CONNECTION: RefCell<Option<(SocketAddr, TcpStream, Vec<u8>)>> = const { RefCell::new(None) });
    CONNECTION.with_borrow_mut(|connection| {
        let connect = || {
            let stream = TcpStream::connect(server).unwrap();
            stream.set_nodelay(true).unwrap();
            (server, stream, vec![0; 64 << 20])
        };
        connection.take_if(|(connected, ..)| *connected != server);
        let (_, stream, response) = connection.get_or_insert_with(connect);
        exchange(stream, method, path, headers, body, response)
    })
}

fn exchange(stream: &mut TcpStream, method: &str, path: &str, headers: &str, body: &[&[u8]], response: &mut [u8]) {
    let len: usize = body.iter().map(|part| part.len()).sum();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    body.iter().for_each(|part| stream.write_all(part).unwrap());
    let mut read = 0;
    let head = loop {
        let more = stream.read(&mut response[read..]).unwrap();
        assert_ne!(more, 0, "{method} {path}: the server closed the connection");
        read += more;
        if let Some(end) = response[..read].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break String::from_utf8_lossy(&response[..end + 4]).into_owned();
        }
    };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let end = head.len() + length.unwrap_or(0_usize);
    if read < end {
        stream.read_exact(&mut response[read..end]).unwrap();
    }
    let shown = String::from_utf8_lossy(&response[head.len()..end.min(head.len() + 500)]);
    assert!(head.starts_with("HTTP/1.1 20"), "{method} {path}: {head}{shown}");
}

fn in_process(
    runtime: &tokio::runtime::Runtime,
    mut service: Cuda,
    graph: &Graph,
    stored: Operand<CsrGraph>,
) -> Duration {
    let sources = graph.sources[..SOURCES].to_vec();
    let input = BetweennessInput { sources: Some(sources.into()), ..BetweennessInput::from_operand(stored) };
    let input = Payload::typed(input);
    times(|| runtime.block_on(async { call(&mut service, ID, &input).await }))
}

/// The median of several calls, after one that is not counted.
fn times<T>(mut call: impl FnMut() -> T) -> Duration {
    call();
    let mut times: Vec<_> = (0..7)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn print(name: &str, time: Duration, base: Duration, body: usize) {
    let ratio = time.as_secs_f64() / base.as_secs_f64();
    println!("{name:<46}{:>9.1}{ratio:>13.2}{:>10.1}", ms(time), body as f64 / 1e6);
}

/// Clients with sources of their own on one graph.
fn clients(server: SocketAddr, graph: &Graph) {
    const ROUNDS: usize = 4;
    println!("\nsources a request   sources/s over REST, one client   {CLIENTS} clients   ratio");
    for each in [4, 16, 32] {
        let body = |client: usize| {
            let sources = &graph.sources[client * each..(client + 1) * each];
            let head = tensors(&[("graph.operand", "UINT8", 6, 1), ("sources", "UINT32", each, 4)]);
            (head, [b"kron20".as_slice(), &bytes(sources)].concat())
        };
        let bodies: Vec<_> = (0..CLIENTS).map(body).collect();
        let send = |(head, data): &(String, Vec<u8>)| {
            let headers = "content-type: application/octet-stream\r\ninference-header-content-length: ";
            let headers = format!("{headers}{}\r\n", head.len());
            http(server, "POST", "/kernels/graph/betweenness-centrality/execute", &headers, &[head.as_bytes(), data]);
        };
        bodies.iter().for_each(send);
        let rate = |start: Instant| (ROUNDS * CLIENTS * each) as f64 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| bodies.iter().for_each(send));
        let one = rate(start);
        // Each client has its connection and its memory before the clock starts.
        let connected = Barrier::new(CLIENTS + 1);
        let start = std::thread::scope(|scope| {
            for body in &bodies {
                let connected = &connected;
                scope.spawn(move || {
                    send(body);
                    connected.wait();
                    (0..ROUNDS).for_each(|_| send(body));
                });
            }
            connected.wait();
            Instant::now()
        });
        let all = rate(start);
        println!("{each:>17}{one:>34.0}{all:>13.0}{:>8.2}", all / one);
    }
}

/// Uploads a graph of 1.1 GB, and measures how much memory the process had at most beside the client's body.
fn upload(server: SocketAddr) {
    const NODES: u32 = 1 << 24;
    const DEGREE: u32 = 16;
    let mut data = Vec::with_capacity(4 * (NODES as usize * (DEGREE as usize + 1) + 1));
    (0..=NODES).for_each(|node| data.extend_from_slice(&(node * DEGREE).to_le_bytes()));
    for node in 0..NODES {
        // The eight nodes before and after it, on a circle.
        let mut row: [u32; DEGREE as usize] = std::array::from_fn(|at| {
            let step = at as u32 / 2 + 1;
            node.wrapping_add(if at % 2 == 0 { step } else { step.wrapping_neg() }) % NODES
        });
        row.sort_unstable();
        row.iter().for_each(|other| data.extend_from_slice(&other.to_le_bytes()));
    }
    let (nodes, arcs) = (NODES as usize, (NODES * DEGREE) as usize);
    let head = tensors(&[("row_offsets", "UINT32", nodes + 1, 4), ("column_indices", "UINT32", arcs, 4)]);
    let headers = "content-type: application/octet-stream\r\ninference-header-content-length: ";
    let headers = format!("{headers}{}\r\n", head.len());
    let body = [head.as_bytes(), &data];
    println!("\nupload of {:.2} GB over REST", data.len() as f64 / 1e9);
    for round in 0..3 {
        // Linux: the peak is that from here on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = memory("VmRSS");
        let start = Instant::now();
        http(server, "PUT", &format!("/operands/large{round}?type=graph"), &headers, &body);
        let time = start.elapsed();
        let (rate, peak) = (data.len() as f64 / 1e9 / time.as_secs_f64(), memory("VmHWM").saturating_sub(before));
        let share = peak as f64 / data.len() as f64;
        println!("    {:.0} ms, {rate:.2} GB/s; memory peak {share:.2} x its size", ms(time));
        http(server, "DELETE", &format!("/operands/large{round}"), "", &[]);
    }
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|found| found.starts_with(line)).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}
