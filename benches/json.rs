//! Reading arrays of numbers from JSON, beside serde_json.
//!
//! `cargo bench --bench json` prints a row for each kind of numbers and length of the two arrays of an input: nanoseconds a
//! number and gigabytes of text a second, and how many times as fast as serde_json it is. The two take turns, and each has
//! the best of its turns. Each turn reads documents that differ from those before, as those of requests do: a processor learns
//! the branches of a document that it is given again and again.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tower_kernels::kernels::authoring::Random;
use tower_kernels::service::{Buffer, Element, Payload};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound = "T: Element")]
#[expect(dead_code, reason = "only read")]
struct Arrays<T: Element> {
    a: f32,
    x: Buffer<T>,
    y: Buffer<T>,
}

/// The same with serde's own array.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
struct Vectors<T> {
    a: f32,
    x: Vec<T>,
    y: Vec<T>,
}

fn main() {
    println!("numbers          length  bytes/number  serde_json       ours             ratio");
    for length in [16, 1024, 1 << 20] {
        row::<f32>("f32, short", length, |random| format!("{:?}", (random.between(-1e5, 1e5) as i64) as f32 / 100.0));
        row::<f32>("f32, full", length, |random| format!("{:?}", random.between(-1.0, 1.0) as f32));
        row::<f64>("f64, short", length, |random| format!("{:?}", (random.between(-1e5, 1e5) as i64) as f64 / 100.0));
        row::<f64>("f64, full", length, |random| format!("{:?}", random.between(-1.0, 1.0)));
        row::<u32>("u32, < 2^20", length, |random| (random.between(0.0, 1_048_576.0) as u32).to_string());
    }
}

fn row<T: Element>(name: &str, length: usize, number: impl Fn(&mut Random) -> String) {
    let mut random = Random::new(length as u64);
    let mut array = || (0..length).map(|_| number(&mut random)).collect::<Vec<_>>().join(",");
    // Two million numbers, unless one document has more.
    let documents: Vec<Payload> = (0..(1_000_000_usize).div_ceil(length))
        .map(|_| Payload::json(format!("{{\"a\":2.0,\"x\":[{}],\"y\":[{}]}}", array(), array())))
        .collect();
    let bytes: usize = documents.iter().filter_map(Payload::byte_len).sum();
    let numbers = (2 * length * documents.len()) as f64;
    let mut best = [Duration::MAX; 2];
    for _ in 0..9 {
        let start = Instant::now();
        for document in &documents {
            let Payload::Json(text) = document else { unreachable!("it was made of JSON") };
            black_box(serde_json::from_slice::<Vectors<T>>(black_box(text)).expect("a valid document"));
        }
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        for document in &documents {
            black_box(black_box(document).deserialize::<Arrays<T>>().expect("a valid document"));
        }
        best[1] = best[1].min(start.elapsed());
    }
    let [theirs, ours] = best.map(|time| time.as_secs_f64());
    let figure = |time: f64| format!("{:5.1} ns {:.2} GB/s", 1e9 * time / numbers, bytes as f64 / 1e9 / time);
    println!(
        "{name:15} {length:8} {:9.1}      {}  {}  {:.2}",
        bytes as f64 / numbers,
        figure(theirs),
        figure(ours),
        theirs / ours
    );
}
