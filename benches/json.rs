//! Reading and writing arrays of numbers as JSON, beside serde_json.
//!
//! `cargo bench --bench json` prints a row for each kind of numbers and length of the two arrays of a document: nanoseconds a
//! number, and how many times as fast as serde_json it is. The two take turns, and each has the best of its turns. Each turn
//! takes documents that differ from those before, as those of requests do: a processor learns the branches of a document that
//! it is given again and again.
//!
//! Then it prints for how long the decoding of a document of 100 MB goes on after its request was cancelled, and after its
//! deadline: the worst of twenty.

use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::authoring::Random;
use tower_kernels::service::{Buffer, Element, KernelError, KernelRegistry, KernelRequest, KernelService, Payload};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[serde(bound = "T: Element")]
struct Arrays<T: Element> {
    a: f32,
    x: Buffer<T>,
    y: Buffer<T>,
}

/// The same with serde's own array.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Vectors<T> {
    a: f32,
    x: Vec<T>,
    y: Vec<T>,
}

fn main() {
    println!("                         bytes/  reading, ns/number         writing, ns/number");
    println!("numbers          length  number  serde_json   ours  ratio   serde_json   ours  ratio");
    for length in [16, 1024, 1 << 20] {
        row::<f32>("f32, short", length, |random| format!("{:?}", (random.between(-1e5, 1e5) as i64) as f32 / 100.0));
        row::<f32>("f32, full", length, |random| format!("{:?}", random.between(-1.0, 1.0) as f32));
        row::<f64>("f64, short", length, |random| format!("{:?}", (random.between(-1e5, 1e5) as i64) as f64 / 100.0));
        row::<f64>("f64, full", length, |random| format!("{:?}", random.between(-1.0, 1.0)));
        row::<u32>("u32, < 2^20", length, |random| (random.between(0.0, 1_048_576.0) as u32).to_string());
    }
    stopping();
}

/// Tells when the last part of a request has been released.
struct Released {
    document: Vec<u8>,
    released: mpsc::Sender<Instant>,
}

impl AsRef<[u8]> for Released {
    fn as_ref(&self) -> &[u8] {
        &self.document
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        self.released.send(Instant::now()).expect("it is waited for");
    }
}

fn stopping() {
    const LEAD: Duration = Duration::from_millis(20);
    let array = vec!["0.25"; 10_000_000].join(",");
    let document = format!("{{\"a\":2.0,\"x\":[{array}],\"y\":[{array}]}}").into_bytes();
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).expect("an empty registry");
    let service = KernelService::with_backend(registry, CpuBackend::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut worst = [Duration::ZERO; 2];
    for _ in 0..20 {
        for (is_cancelled, worst) in [true, false].into_iter().zip(&mut worst) {
            let (released, is_released) = mpsc::channel();
            let payload = Bytes::from_owner(Released { document: document.clone(), released });
            let mut request = KernelRequest::new("linalg/saxpy", Payload::json(payload));
            if !is_cancelled {
                request = request.with_timeout(LEAD);
            }
            let begun = Instant::now();
            runtime.block_on(async {
                let call = service.clone().oneshot(request);
                match tokio::time::timeout(if is_cancelled { LEAD } else { Duration::MAX }, call).await {
                    Ok(ended) => assert!(matches!(ended, Err(KernelError::DeadlineExceeded { .. })), "{ended:?}"),
                    Err(_elapsed) => assert!(is_cancelled),
                }
            });
            let released = is_released.recv().expect("the request was released");
            *worst = (*worst).max(released.saturating_duration_since(begun + LEAD));
        }
    }
    let bytes = document.len();
    println!(
        "decoding of {bytes} bytes goes on for {:.1?} once cancelled, {:.1?} past its deadline",
        worst[0], worst[1]
    );
}

fn row<T: Element + DeserializeOwned + Serialize>(name: &str, length: usize, number: impl Fn(&mut Random) -> String) {
    let mut random = Random::new(length as u64);
    let mut array = || (0..length).map(|_| number(&mut random)).collect::<Vec<_>>().join(",");
    // Two million numbers, unless one document has more.
    let texts: Vec<String> = (0..(1_000_000_usize).div_ceil(length))
        .map(|_| format!("{{\"a\":2.0,\"x\":[{}],\"y\":[{}]}}", array(), array()))
        .collect();
    let documents: Vec<Payload> = texts.iter().map(|text| Payload::json(text.as_str())).collect();
    let numbers = 2 * length * documents.len();
    let read = |text: &String| serde_json::from_str::<Vectors<T>>(text).expect("a valid document");
    let read_ours = |document: &Payload| document.deserialize::<Arrays<T>>().expect("a valid document");
    let reading = in_turns(numbers, (texts.as_slice(), read), (documents.as_slice(), read_ours));
    let vectors: Vec<Vectors<T>> = texts.iter().map(read).collect();
    let arrays: Vec<Arrays<T>> = documents.iter().map(read_ours).collect();
    let write = |value: &Vectors<T>| serde_json::to_vec(value).expect("numbers are JSON");
    let write_ours = |value: &Arrays<T>| Payload::from_serialize(value).expect("numbers are JSON");
    let writing = in_turns(numbers, (vectors.as_slice(), write), (arrays.as_slice(), write_ours));
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("{name:15} {length:8} {:7.1}  {reading}   {writing}", bytes as f64 / numbers as f64);
}

/// Times two functions over values of theirs, and returns their nanoseconds a number and how many times as fast the second is.
fn in_turns<A, B, C, D>(
    numbers: usize,
    (theirs, run_theirs): (&[A], impl Fn(&A) -> B),
    (ours, run_ours): (&[C], impl Fn(&C) -> D),
) -> String {
    let mut best = [Duration::MAX; 2];
    for _ in 0..9 {
        let start = Instant::now();
        for value in theirs {
            black_box(run_theirs(black_box(value)));
        }
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        for value in ours {
            black_box(run_ours(black_box(value)));
        }
        best[1] = best[1].min(start.elapsed());
    }
    let [theirs, ours] = best.map(|time| 1e9 * time.as_secs_f64() / numbers as f64);
    format!("{theirs:10.1} {ours:6.1} {:6.2}", theirs / ours)
}
