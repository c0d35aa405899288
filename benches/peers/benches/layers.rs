//! Instructions, heap allocations and nanoseconds of one call of each case, as a Markdown table.
//!
//! `cargo bench --bench layers [-- PART_OF_A_NAME]` runs each case in processes of its own:
//! - under `valgrind --tool=callgrind`, counting inside the calls only, with N and with 2N calls; the difference over N
//!   is the instructions of a call, free of what setting up costs (without valgrind the column says n/a);
//! - in the `allocations` binary, which counts allocations;
//! - plainly, for the median time of a call over many batches.
//!
//! `--case NAME --calls N` makes N calls of one case and nothing else, to put under a profiler.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use tower_kernels_peers::{Calls, Case, case, cases};

/// Calls of the shorter callgrind run.
const CALLS: u64 = 2000;
/// How long one case is timed for, after half of that to warm up.
const TIMED: Duration = Duration::from_millis(600);
/// What a batch takes: long against the clock's own 25 ns, short against the scheduler's slice.
const BATCH: Duration = Duration::from_micros(50);

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // `cargo bench` adds --bench.
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => table(""),
        ["--case", name, "--calls", calls] => make_calls(name, calls),
        ["--case", name, "--time"] => time(name),
        [part] if !part.starts_with('-') => table(part),
        _ => Err("usage: layers [PART_OF_A_NAME] | --case NAME --calls N | --case NAME --time".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build(name: &str) -> Result<Calls, Failure> {
    let case = case(name).ok_or_else(|| format!("no case {name:?}"))?;
    Ok((case.build)())
}

fn make_calls(name: &str, calls: &str) -> Result<(), Failure> {
    let calls = calls.parse()?;
    let mut run = build(name)?;
    // Tables grow to their size, and lazily made things are made.
    run(calls);
    counted_calls(&mut run, calls);
    Ok(())
}

/// Where callgrind counts: it finds this function by its name. Set-up has to be left out by name, not by subtraction
/// alone, since some of it (`quanta` measuring the processor's clock) takes a different number of instructions each time.
#[inline(never)]
fn counted_calls(run: &mut Calls, calls: u64) {
    run(calls);
}

/// Prints the median nanoseconds of a call.
fn time(name: &str) -> Result<(), Failure> {
    let mut run = build(name)?;
    let mut batch = 1;
    let warm = Instant::now();
    while warm.elapsed() < TIMED / 2 {
        let start = Instant::now();
        run(batch);
        if start.elapsed() < BATCH {
            batch = (batch * 2).min(1 << 20);
        }
    }
    let mut samples = Vec::new();
    let started = Instant::now();
    while started.elapsed() < TIMED {
        let start = Instant::now();
        run(batch);
        samples.push(start.elapsed().as_nanos() as f64 / batch as f64);
    }
    samples.sort_by(f64::total_cmp);
    println!("{}", samples[samples.len() / 2]);
    Ok(())
}

/// The figures of one call.
#[derive(Clone, Copy)]
struct Figures {
    instructions: Option<f64>,
    allocations: f64,
    nanoseconds: f64,
}

fn table(part: &str) -> Result<(), Failure> {
    let chosen: Vec<Case> = cases()
        .filter(|case| case.name.contains(part) || case.over.is_none() && !case.name.contains("store"))
        .collect();
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !valgrind {
        eprintln!("valgrind is not installed: instructions are not counted");
    }
    let mut rows: Vec<(Case, Figures)> = Vec::new();
    for case in chosen {
        eprintln!("{}", case.name);
        rows.push((case, measure(&case, valgrind)?));
    }

    println!("| case | instructions | net | allocations | net | ns | net |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (case, figures) in &rows {
        let below =
            case.over.and_then(|over| rows.iter().find(|(row, _)| row.name == over)).map(|(_, figures)| figures);
        let instructions = |f: &Figures| f.instructions;
        let allocations = |f: &Figures| Some(f.allocations);
        let nanoseconds = |f: &Figures| Some(f.nanoseconds);
        println!(
            "| {} | {} | {} | {} |",
            case.name,
            total_and_net(figures, below, instructions, 0),
            total_and_net(figures, below, allocations, 2),
            total_and_net(figures, below, nanoseconds, 1),
        );
    }
    Ok(())
}

/// The two cells of one figure: all of it, and what is over the baseline.
fn total_and_net(
    figures: &Figures,
    below: Option<&Figures>,
    figure: impl Fn(&Figures) -> Option<f64>,
    digits: usize,
) -> String {
    let cell = |value: Option<f64>| match value {
        // No minus before what rounds to nought, and no digits after what is whole.
        Some(value) if (value - value.round()).abs() < 0.005 => format!("{}", value.round() as i64),
        Some(value) => format!("{value:.digits$}"),
        None => "n/a".to_owned(),
    };
    let total = figure(figures);
    let net = match below {
        Some(below) => cell(total.zip(figure(below)).map(|(total, below)| total - below)),
        None => String::new(),
    };
    format!("{} | {net}", cell(total))
}

fn measure(case: &Case, valgrind: bool) -> Result<Figures, Failure> {
    let own = env::current_exe()?;
    let allocations = Command::new(env!("CARGO_BIN_EXE_allocations")).args([case.name, "10000"]).to_number()?;
    let nanoseconds = Command::new(&own).args(["--case", case.name, "--time"]).to_number()?;
    let instructions = if valgrind {
        let once = instructions(&own, case, CALLS)?;
        let twice = instructions(&own, case, 2 * CALLS)?;
        Some((twice - once) / CALLS as f64)
    } else {
        None
    };
    Ok(Figures { instructions, allocations: allocations / 10_000.0, nanoseconds })
}

/// The instructions of a whole process that makes `calls` calls.
fn instructions(own: &Path, case: &Case, calls: u64) -> Result<f64, Failure> {
    let counts = env::temp_dir().join(format!("layers-{}.callgrind", std::process::id()));
    let done = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*counted_calls*")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(own)
        .args(["--case", case.name, "--calls", &calls.to_string()])
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("callgrind on {:?}: {}\n{said}", case.name, done.status).into());
    }
    let text = std::fs::read_to_string(&counts)?;
    std::fs::remove_file(&counts)?;
    text.lines()
        .find_map(|line| line.strip_prefix("totals:"))
        .ok_or("callgrind wrote no totals")?
        .trim()
        .parse()
        .map_err(|error| format!("callgrind's totals: {error}").into())
}

trait ToNumber {
    /// Runs the command and reads the one number that it prints.
    fn to_number(&mut self) -> Result<f64, Failure>;
}

impl ToNumber for Command {
    fn to_number(&mut self) -> Result<f64, Failure> {
        let done = self.output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!("{self:?}: {}\n{said}", done.status).into());
        }
        Ok(String::from_utf8(done.stdout)?.trim().parse()?)
    }
}
