//! What it costs to time requests by the device's clock, and to read its sensors.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tower_kernels::request::DeviceTimes;
use tower_kernels::service::Payload;

use crate::{Row, call, sample, saxpy_input, served, served_throughput, service};

const KINDS: [(&str, u32); 6] =
    [("off", 0), ("1 in 512", 512), ("1 in 128", 128), ("1 in 16", 16), ("every one", 1), ("off again", 0)];

pub(crate) fn run() {
    println!("\nsaxpy 1024, timed by the device, µs     p50     p99   x off   queued  executed  rest");
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let input = saxpy_input(1024);
    let service_of = |one_in| service(|config| config.timing_sample_interval = one_in);
    let mut rows: [Option<Row>; KINDS.len()] = [const { None }; KINDS.len()];
    // In turn, so that what changes meanwhile changes for all; and each alone on the device.
    for _ in 0..6 {
        for (row, (_, one_in)) in rows.iter_mut().zip(KINDS) {
            let new = served(&single, service_of(one_in), "linalg/saxpy", &input, 10_000);
            match row {
                Some(row) => row.merge(new),
                None => *row = Some(new),
            }
        }
    }
    let rows = rows.map(|row| row.expect("each had its turn"));
    let base = &rows[0];
    for ((name, _), row) in KINDS.iter().zip(&rows) {
        row.print(name, base);
        println!("{:>42}{:>8.2} µs, {:.4} x off", "mean", row.mean() * 1e6, row.mean() / base.mean());
    }

    println!("\n8 workers, 32 tasks                      requests/s   x off");
    let mut rates = [0.0_f64; KINDS.len()];
    for _ in 0..3 {
        for (rate, (_, one_in)) in rates.iter_mut().zip(KINDS) {
            *rate = rate.max(served_throughput(&service_of(one_in), 32, 3_000));
        }
    }
    for ((name, _), rate) in KINDS.iter().zip(rates) {
        println!("{name:<38}{rate:>10.0}   {:>5.3}", rate / rates[0]);
    }

    measured(&single);
    sensors();
}

/// What is seen of some requests.
fn measured(runtime: &tokio::runtime::Runtime) {
    println!("\ntimed by the device, µs              upload   kernel download  executed  roofline");
    let mut service = service(|config| config.timing_sample_interval = 1);
    println!("peak: {:?}", service.backend().peak());
    for len in [1 << 10, 1 << 20, 16 << 20] {
        let input: Payload = saxpy_input(len);
        for _ in 0..3 {
            runtime.block_on(call(&mut service, "linalg/saxpy", &input));
        }
        let execution = runtime.block_on(call(&mut service, "linalg/saxpy", &input)).execution;
        let times: DeviceTimes = *execution.device_times().expect("every request is timed");
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        println!(
            "saxpy {len:<30}{:>8.1} {:>8.1} {:>8.1}  {:>8.1}  {:>8.3}",
            micros(times.upload),
            micros(times.kernel),
            micros(times.download),
            micros(execution.executed),
            times.roofline().unwrap_or(f64::NAN),
        );
    }
}

fn sensors() {
    let service = service(|_| {});
    let Some(gpu) = service.backend().gpu() else {
        println!("sensors: NVML is not there");
        return;
    };
    let begun = Instant::now();
    println!("{:?}, first read in {:.1?}", gpu.read(), begun.elapsed());
    let mut reads = sample(200, || drop(black_box(gpu.read())));
    reads.sort();
    println!("sensors, all of a device: p50 {:.1?}, p99 {:.1?}, most {:.1?}", reads[100], reads[197], reads[199]);
}
