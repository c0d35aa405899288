//! Search in a stored corpus of 1M vectors of 768 numbers: the time of a request of 1 and of 128 queries, beside the time
//! of one read of the corpus at the bandwidth of the memory.
//!
//! `benches/peers/semantic_similarity_peers.py` has torch's times for the same sizes.

use std::time::{Duration, Instant};

use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::ml::semantic_similarity::{SemanticSimilarityInput, SemanticSimilarityOutput};
use tower_kernels::service::{Bf16, Payload, VectorElements, Vectors};

use crate::graphs::ms;
use crate::{call, service};

const ID: &str = "ml/semantic-similarity";
const ROWS: usize = 1_000_000;
const DIMENSION: usize = 768;
/// Bytes per second of an H200's memory.
const BANDWIDTH: f64 = 4.8e12;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("\nbest 10 of {ROWS} vectors of {DIMENSION}          p50, ms   a read of the corpus at 4.8 TB/s, ms");
    let mut random = Random::new(3);
    let numbers: Vec<f32> = (0..ROWS * DIMENSION).map(|_| random.between(-1.0, 1.0) as f32).collect();
    let halves: Vec<Bf16> = numbers.iter().copied().map(Bf16::from_f32).collect();
    for (name, elements) in [("bfloat16", VectorElements::from(halves)), ("float32", numbers.into())] {
        let bytes = elements.len() * elements.dtype().size();
        let mut service = service(|config| config.workers = 1);
        let corpus = Vectors::new(DIMENSION, elements).unwrap();
        let corpus = service.registry().operands().put("corpus", corpus).unwrap();
        for queries in [1, 8, 64, 128, 1024] {
            let numbers: Vec<f32> = (0..queries * DIMENSION).map(|_| random.between(-1.0, 1.0) as f32).collect();
            let input = Payload::typed(SemanticSimilarityInput::new(numbers, corpus.clone()));
            let mut once = || {
                let start = Instant::now();
                let response = runtime.block_on(call(&mut service, ID, &input));
                assert_eq!(response.execution.backend, "CUDA");
                let output = response.payload.downcast::<SemanticSimilarityOutput>().unwrap();
                assert_eq!(output.indices.len(), 10 * queries);
                start.elapsed()
            };
            once();
            let mut times: Vec<Duration> = (0..11).map(|_| once()).collect();
            times.sort();
            println!("{name}, {queries:4} queries {:>28.3}{:>16.3}", ms(times[5]), bytes as f64 / BANDWIDTH * 1e3);
        }
    }
}
