//! `allocations CASE CALLS`: prints the heap allocations that so many calls make.
//!
//! A binary of its own, because a counting allocator would slow what `benches/layers.rs` times.

use std::process::ExitCode;

use tower_kernels_peers::case;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, calls] = arguments.as_slice() else {
        eprintln!("usage: allocations CASE CALLS");
        return ExitCode::FAILURE;
    };
    let (Some(case), Ok(calls)) = (case(name), calls.parse::<u64>()) else {
        eprintln!("no case {name:?}, or {calls:?} is not a number of calls");
        return ExitCode::FAILURE;
    };
    let mut run = (case.build)();
    // What is made at the first call, and tables that grow to their size, are not of one call.
    run(calls);
    let counted = allocation_counter::measure(|| run(calls));
    println!("{}", counted.count_total);
    ExitCode::SUCCESS
}
