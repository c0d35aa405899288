//! How many workers: small requests, large ones from pinned memory, and small ones while long kernels occupy workers; and
//! the cost of idle workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tower_kernels::service::Payload;

use crate::hold::{HOLD, HoldInput};
use crate::{Cuda, Row, call, pinned_input, saxpy_input, service};

const WORKERS: [usize; 7] = [1, 2, 4, 6, 8, 12, 16];
const EACH: Duration = Duration::from_millis(300);

pub(crate) fn run() {
    println!("\nlanes: p50 and p99 in µs; cores: the process's time on processors over the time that passed");
    println!("       small, 1 task   small, 8 tasks                     small, 64 tasks");
    println!("workers    p50    p99       req/s    p50    p99  cores       req/s    p50    p99  cores");
    for workers in WORKERS {
        let service = service(|config| config.workers = workers);
        let small = saxpy_input(1024);
        let one = load(&service, 1, "linalg/saxpy", &small, EACH);
        print!("{workers:>5}{:>7.1}{:>7.1}", one.micros(0.5), one.micros(0.99));
        for tasks in [8, 64] {
            load(&service, tasks, "linalg/saxpy", &small, EACH).print();
        }
        println!();
    }

    println!("\n       saxpy 1M pinned, 4 tasks           saxpy 1M pinned, 16 tasks");
    println!("workers       req/s    p50    p99  cores       req/s    p50    p99  cores");
    for workers in WORKERS {
        let service = service(|config| config.workers = workers);
        let large = pinned_input(&service, 1 << 20);
        print!("{workers:>5}");
        for tasks in [4, 16] {
            load(&service, tasks, "linalg/saxpy", &large, EACH).print();
        }
        println!();
    }

    println!("\n       small, 8 tasks, with 4 that occupy a worker for 5 ms at a time       16 at once of 5 ms, ms");
    println!("       copy queued behind the kernel      copy queued once it has ended");
    println!("workers       req/s    p50    p99  cores       req/s    p50    p99  cores");
    for workers in WORKERS {
        let service = service(|config| config.workers = workers);
        print!("{workers:>5}");
        beside_long_ones(&service, false).print();
        beside_long_ones(&service, true).print();
        println!("{:>12.1}", at_once(&service, 16).as_secs_f64() * 1e3);
    }
    idle();
}

fn held(micros: u64, waits: bool) -> Payload {
    Payload::typed(HoldInput { micros, blocks: 1, waits })
}

fn beside_long_ones(service: &Cuda, waits: bool) -> Load {
    let end = Arc::new(AtomicBool::new(false));
    let others = runtime();
    for _ in 0..4 {
        let (mut service, end) = (service.clone(), Arc::clone(&end));
        others.spawn(async move {
            while !end.load(Ordering::Relaxed) {
                call(&mut service, HOLD, &held(5000, waits)).await;
            }
        });
    }
    std::thread::sleep(Duration::from_millis(20));
    let load = load(service, 8, "linalg/saxpy", &saxpy_input(1024), EACH);
    end.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    load
}

/// Kernels of one block and 5 ms each, all at once: as long as one of them if they run
/// concurrently.
fn at_once(service: &Cuda, count: usize) -> Duration {
    runtime().block_on(async {
        let start = Instant::now();
        let all: Vec<_> = (0..count)
            .map(|_| {
                let mut service = service.clone();
                tokio::spawn(async move { call(&mut service, HOLD, &held(5000, false)).await })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        start.elapsed()
    })
}

/// A backend that has worked and has nothing to do.
fn idle() {
    println!("\ncores while idle            first 10 ms after load   next 100 ms    then, 2 s");
    for workers in [4, 8, 16] {
        let service = service(|config| config.workers = workers);
        load(&service, 64, "linalg/saxpy", &saxpy_input(1024), EACH);
        let cores = [10, 100, 2000].map(|millis| {
            let (start, before) = (Instant::now(), processor_time());
            std::thread::sleep(Duration::from_millis(millis));
            (processor_time() - before).as_secs_f64() / start.elapsed().as_secs_f64()
        });
        println!("{workers:>2} workers{:>43.3}{:>14.4}{:>13.4}", cores[0], cores[1], cores[2]);
    }
}

/// What many calls took.
struct Load {
    row: Row,
    rate: f64,
    cores: f64,
}

impl Load {
    fn micros(&self, share: f64) -> f64 {
        self.row.micros(share)
    }

    fn print(&self) {
        print!("{:>12.0}{:>7.0}{:>7.0}{:>7.1}", self.rate, self.micros(0.5), self.micros(0.99), self.cores);
    }
}

/// So many tasks that call one after the other, for `time`, after a tenth of it that does not count.
fn load(service: &Cuda, tasks: usize, id: &'static str, input: &Payload, time: Duration) -> Load {
    let runtime = runtime();
    runtime.block_on(async {
        let counts = Instant::now() + time / 10;
        let end = counts + time;
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (mut service, input) = (service.clone(), input.clone());
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    loop {
                        let start = Instant::now();
                        call(&mut service, id, &input).await;
                        match Instant::now() {
                            now if now > end => return times,
                            now if start >= counts => times.push(now - start),
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep_until(counts.into()).await;
        let before = processor_time();
        tokio::time::sleep_until(end.into()).await;
        let cores = (processor_time() - before).as_secs_f64() / time.as_secs_f64();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        Load { rate: times.len() as f64 / time.as_secs_f64(), row: Row::of(times), cores }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// What the threads that there are now have spent on processors. The clock of `/proc/self/stat` is too coarse for 10 ms.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = threads.filter_map(|thread| {
        // A thread may end while one looks.
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}
