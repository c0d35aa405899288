//! What it costs to run a closure on another thread and await its answer, against running it in the call: the figure
//! that decides which kernels are worth a lane. `cargo bench --bench hop` prints a Markdown table.
//!
//! A closure goes over a crossbeam channel to an OS thread, and its answer comes back over a tokio oneshot. "Paced"
//! leaves 100 us between calls, in which a parked thread really parks; "back to back" leaves nothing. CPU time is that of
//! the whole process, both threads: what a hop costs a machine that is busy.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const CALLS: usize = 10_000;
const PACE: Duration = Duration::from_micros(100);

type Work = Box<dyn FnOnce() + Send>;

/// How a thread waits for work.
#[derive(Clone, Copy)]
enum Waiting {
    Parked,
    Spinning,
}

/// An OS thread that runs what it is handed.
struct Worker {
    work: Sender<Work>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(waiting: Waiting) -> Self {
        let (work, waiting_work) = bounded(64);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || match waiting {
            Waiting::Parked => waiting_work.iter().for_each(|work: Work| work()),
            Waiting::Spinning => spin(&waiting_work, &stopped),
        });
        Self { work, stop, thread }
    }

    fn join(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.work);
        self.thread.join().expect("the worker ran to its end");
    }
}

fn spin(work: &Receiver<Work>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match work.try_recv() {
            Ok(work) => work(),
            Err(TryRecvError::Empty) => spin_loop(),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Who runs the closure.
#[derive(Clone)]
enum Runner {
    Inline,
    Thread(Sender<Work>),
    Blocking,
}

impl Runner {
    async fn run(&self) -> u64 {
        match self {
            Self::Inline => kernel(),
            Self::Thread(work) => {
                let (reply, answer) = oneshot::channel();
                let job: Work = Box::new(move || reply.send(kernel()).expect("the caller waits"));
                work.send(job).expect("the worker lives");
                answer.await.expect("the worker answers")
            }
            Self::Blocking => tokio::task::spawn_blocking(kernel).await.expect("an answer"),
        }
    }
}

/// Next to no work: the hop is what is measured.
#[inline(never)]
fn kernel() -> u64 {
    black_box(1)
}

struct Figures {
    paced: Vec<Duration>,
    close: Vec<Duration>,
    cpu: Option<Duration>,
}

async fn measure(runner: Runner) -> Figures {
    for _ in 0..CALLS / 10 {
        runner.run().await;
    }
    let mut paced = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let idle = Instant::now();
        while idle.elapsed() < PACE {
            spin_loop();
        }
        let start = Instant::now();
        runner.run().await;
        paced.push(start.elapsed());
    }
    let mut close = Vec::with_capacity(CALLS);
    let before = cpu_time();
    for _ in 0..CALLS {
        let start = Instant::now();
        runner.run().await;
        close.push(start.elapsed());
    }
    let cpu = before.and_then(|before| Ok(cpu_time()? - before));
    Figures { paced, close, cpu: cpu.ok().map(|cpu| cpu / CALLS as u32) }
}

/// CPU time of all threads of this process, which Linux tells to the nanosecond.
fn cpu_time() -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let running = text.split(' ').next().and_then(|field| field.parse().ok());
        total += Duration::from_nanos(running.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(total)
}

fn row(name: &str, runtime: &str, mut figures: Figures) {
    let micros = |figure: Duration| format!("{:.2}", figure.as_nanos() as f64 / 1e3);
    let mut at = |percent: usize, close: bool| {
        let samples = if close { &mut figures.close } else { &mut figures.paced };
        samples.sort_unstable();
        micros(samples[samples.len() * percent / 100])
    };
    let (paced_50, paced_99, close_50, close_99) = (at(50, false), at(99, false), at(50, true), at(99, true));
    let cpu = figures.cpu.map_or("n/a".to_owned(), micros);
    println!("| {name} | {runtime} | {paced_50} | {paced_99} | {close_50} | {close_99} | {cpu} |");
}

fn on(runtime: &Runtime, runner: Runner) -> Figures {
    // As a task: the calls come from a worker of a multi-threaded runtime, as a server's do.
    let task = runtime.spawn(measure(runner));
    runtime.block_on(task).expect("the measurement ran to its end")
}

fn main() {
    println!("| run by | awaited on | paced p50 us | p99 | back to back p50 us | p99 | CPU us |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    let runtimes = [
        ("current_thread", Builder::new_current_thread().build()),
        ("multi_thread", Builder::new_multi_thread().worker_threads(2).build()),
    ];
    for (name, runtime) in runtimes {
        let runtime = runtime.expect("a tokio runtime");
        row("the call itself", name, on(&runtime, Runner::Inline));
        for (run_by, waiting) in [("a parked thread", Waiting::Parked), ("a spinning thread", Waiting::Spinning)] {
            let worker = Worker::start(waiting);
            let figures = on(&runtime, Runner::Thread(worker.work.clone()));
            worker.join();
            row(run_by, name, figures);
        }
        row("spawn_blocking", name, on(&runtime, Runner::Blocking));
    }
}
