//! The subcommand `bench`: measures throughput and latency of a kernel in this process or on a server.
//!
//! **Closed loop** (`--concurrency N`): N clients, each of which sends its next request when it has the response to the last.
//! This measures the maximum throughput. Clients wait while the server is slow, so the latencies are not those that
//! independent users would see.
//!
//! **Open loop** (`--rate R`): requests are due at fixed times, independent of responses, and latency counts from when each
//! was *due*. So a stall shows in all requests that it delayed, not only in those in flight. A load generator that waits
//! for the server omits exactly these latencies, which Gil Tene called *coordinated omission*; his `wrk2` measures as this
//! does.
//!
//! ```text
//! echo '{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}' > saxpy.json
//! tower-kernels bench linalg/saxpy --input saxpy.json --rest http://127.0.0.1:8080 --json before.json
//! tower-kernels bench linalg/saxpy --input saxpy.json --grpc http://127.0.0.1:50051 --rate 1000 --arrivals poisson
//! tower-kernels bench --compare before.json after.json
//! ```
//!
//! The exit code is 0, 1 if a request failed (unless `--allow-errors`), or 130 after Ctrl-C, which ends the run early and
//! still prints it. An initial request before the measurement finds out whether requests can succeed at all; if it fails,
//! the exit code is that of `run`: 3 for invalid input, 4 for an unknown kernel.
//!
//! Each thread has its own connections, single-threaded runtime and statistics, which are merged at the end.

mod args;
mod compare;
mod load;
mod machine;
mod report;
mod target;
mod units;

use std::error::Error;
use std::io::Read;
use std::path::Path;

use self::args::Action;
use self::load::{Measured, Plan};
use self::report::Run;
use self::target::{Destination, Target, connect};
use crate::client::Failure;
use crate::exit::Exit;

pub(crate) use self::args::Args;

/// The text below the options.
pub(crate) const HELP: &str = "\
Times are written as 500ms, 10s or 2m. Latency is shown in the unit that fits it.

Examples:
  tower-kernels bench linalg/saxpy --input saxpy.json
  tower-kernels bench linalg/saxpy --input saxpy.json --rest http://127.0.0.1:8080 --json before.json
  tower-kernels bench linalg/saxpy --input saxpy.json --grpc http://127.0.0.1:50051 --rate 1000 --arrivals poisson
  tower-kernels bench linalg.saxpy --input saxpy.json --rest http://127.0.0.1:8080 --protocol v2 --tensors
  tower-kernels bench --compare before.json after.json";

pub(crate) fn main(args: Args) -> crate::Outcome {
    match args.action().map_err(|error| Exit::Usage.failure(error))? {
        Action::Compare(a, b) => {
            let read = |path: &Path| Run::read(path).map_err(|error| Exit::Input.failure(error));
            crate::output::print(compare::table(&read(&a)?, &read(&b)?))?;
            Ok(Exit::Done.into())
        }
        Action::Measure(measurement) => {
            let input = read(&measurement.input).map_err(|error| Exit::Input.failure(error))?;
            let measured = measure(&measurement.destination, &input, &measurement.plan, measurement.allow_errors)
                .map_err(with_exit_code)?;
            let failed = measured.statistics.failures() > 0 && !measurement.allow_errors;
            let interrupted = measured.interrupted;
            let run = Run::new(&measurement, input.len(), measured)?;
            crate::output::print(run.to_string())?;
            if let Some(path) = &measurement.json {
                run.write(path)?;
            }
            Ok(match (interrupted, failed) {
                (true, _) => Exit::Interrupted,
                (false, true) => Exit::Failed,
                (false, false) => Exit::Done,
            }
            .into())
        }
    }
}

/// Adds the exit code if the error is a failed request.
fn with_exit_code(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error + Send + Sync> {
    match error.downcast::<Failure>() {
        Ok(failure) => failure.exit().failure(failure.to_string()).into(),
        Err(error) => error,
    }
}

/// Connects to the target and runs the load.
fn measure(
    destination: &Destination,
    input: &[u8],
    plan: &Plan,
    allow_errors: bool,
) -> Result<Measured, Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(connect(destination, input))? {
        Target::InProcess(target) => load::run(&runtime, &*target, plan, allow_errors),
        Target::Rest(target) => load::run(&runtime, &target, plan, allow_errors),
        Target::Grpc(target) => load::run(&runtime, &*target, plan, allow_errors),
    }
}

fn read(input: &Path) -> Result<Vec<u8>, String> {
    let read = if input == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(input)
    };
    read.map_err(|error| format!("{}: {error}", input.display()))
}
