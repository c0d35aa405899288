//! Search in a stored corpus of 1M vectors of 768 numbers: the time of a request of 1 and of 128 queries, beside the time
//! of one read of the corpus at the bandwidth of the memory. The times of one more request are taken apart.
//!
//! `benches/peers/semantic_similarity_peers.py` has torch's times for the same sizes.

use std::time::{Duration, Instant};

use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::ml::semantic_similarity::{SemanticSimilarityInput, SemanticSimilarityOutput};
use tower_kernels::request::Execution;
use tower_kernels::service::{Bf16, Payload, VectorElements, Vectors};

use crate::graphs::ms;
use crate::{call, service};

const ID: &str = "ml/semantic-similarity";
const ROWS: usize = 1_000_000;
const DIMENSION: usize = 768;
/// Bytes per second of an H200's memory.
const BANDWIDTH: f64 = 4.8e12;
const QUERIES: [usize; 5] = [1, 8, 64, 128, 1024];

/// What is known of a request.
struct Figures {
    /// The median of some requests.
    p50: Duration,
    /// Of the last of them.
    execution: Execution,
}

pub(crate) fn run() {
    println!("\nbest 10 of {ROWS} vectors of {DIMENSION}");
    println!(
        "ms                        p50  a read at 4.8 TB/s   one, with timers: executed  upload  kernels  download"
    );
    let mut random = Random::new(3);
    let numbers: Vec<f32> = (0..ROWS * DIMENSION).map(|_| random.between(-1.0, 1.0) as f32).collect();
    let halves: Vec<Bf16> = numbers.iter().copied().map(Bf16::from_f32).collect();
    for (name, elements) in [("bfloat16", VectorElements::from(halves)), ("float32", numbers.into())] {
        let bytes = elements.len() * elements.dtype().size();
        let plain = measure(elements.clone(), 0);
        for ((queries, plain), timed) in QUERIES.into_iter().zip(plain).zip(measure(elements.clone(), 1)) {
            let device = timed.execution.device_times().unwrap();
            println!(
                "{name}, {queries:4} queries {:>8.3}{:>20.3}{:>29.3}{:>8.3}{:>9.3}{:>10.3}",
                ms(plain.p50),
                bytes as f64 / BANDWIDTH * 1e3,
                ms(timed.execution.executed),
                ms(device.upload),
                ms(device.kernel),
                ms(device.download),
            );
        }
    }
}

/// The figures of requests of as many queries as [`QUERIES`] says, of which one in `timing_sample_interval` has timers.
fn measure(elements: VectorElements, timing_sample_interval: u32) -> Vec<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut service = service(|config| (config.workers, config.timing_sample_interval) = (1, timing_sample_interval));
    let corpus = Vectors::new(DIMENSION, elements).unwrap();
    let corpus = service.registry().operands().put("corpus", corpus).unwrap();
    let mut random = Random::new(5);
    let mut figures = |queries: usize| {
        let numbers: Vec<f32> = (0..queries * DIMENSION).map(|_| random.between(-1.0, 1.0) as f32).collect();
        let input = Payload::typed(SemanticSimilarityInput::new(numbers, corpus.clone()));
        let mut once = || {
            let start = Instant::now();
            let response = runtime.block_on(call(&mut service, ID, &input));
            assert_eq!(response.execution.backend, "CUDA");
            let output = response.payload.downcast::<SemanticSimilarityOutput>().unwrap();
            assert_eq!(output.indices.len(), 10 * queries);
            (start.elapsed(), response.execution)
        };
        once();
        let (mut times, executions): (Vec<Duration>, Vec<Execution>) = (0..11).map(|_| once()).unzip();
        times.sort();
        Figures { p50: times[5], execution: executions[10].clone() }
    };
    QUERIES.map(&mut figures).into()
}
