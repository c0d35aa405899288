//! The server and command line of tower-kernels.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

mod bench;
mod client;
mod config;
mod exit;
mod kernels;
mod operand;
mod output;
mod run;
mod serve;
mod suggest;

/// The result of a subcommand: an exit code, or an error to print.
type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// Runs compute kernels on CUDA GPUs and on the CPU: as a REST and gRPC server, or from the command line.
#[derive(Debug, Parser)]
#[command(version, after_help = help(EXAMPLES))]
enum Command {
    /// Serve REST and gRPC until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C.
    #[command(after_help = help(serve::HELP))]
    Serve(serve::Args),
    /// List the kernels.
    #[command(after_help = exit::TABLE)]
    List(kernels::ListArgs),
    /// Describe one kernel: its input, output, aliases and backends.
    #[command(after_help = exit::TABLE)]
    Describe(kernels::DescribeArgs),
    /// Run one kernel in this process and print its output as JSON.
    #[command(after_help = help(run::HELP))]
    Run(run::Args),
    /// Measure throughput and latency of a kernel: in this process, over REST or over gRPC.
    #[command(after_help = help(bench::HELP))]
    Bench(Box<bench::Args>),
    /// Store, list, show and remove operands of a server: values that are uploaded once and that requests refer to.
    #[command(subcommand, after_help = help(operand::HELP))]
    Operand(operand::Args),
}

const EXAMPLES: &str = "\
Examples:
  tower-kernels serve
  tower-kernels list
  tower-kernels describe linalg/saxpy
  echo '{\"a\": 2.0, \"x\": [1.0, 2.0], \"y\": [10.0, 20.0]}' | tower-kernels run linalg/saxpy
  tower-kernels bench linalg/saxpy --input saxpy.json --rest http://127.0.0.1:8080
  tower-kernels operand put payments --type graph payments.json";

/// The text below the options.
fn help(text: &str) -> String {
    format!("{text}\n\n{}", exit::TABLE)
}

fn main() -> ExitCode {
    // First of all, as a device process must not have started a thread or opened a file.
    #[cfg(target_os = "linux")]
    serve::run_device_process();
    let outcome = match Command::parse() {
        Command::Serve(args) => serve::main(&args),
        Command::List(args) => kernels::list(&args),
        Command::Describe(args) => kernels::describe(&args),
        Command::Run(args) => run::main(args),
        Command::Bench(args) => bench::main(*args),
        Command::Operand(args) => operand::main(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&format!("error: {}", tower_kernels::error::chain(&*error)));
            error.downcast_ref::<exit::Failure>().map_or(ExitCode::FAILURE, |failure| failure.exit.into())
        }
    }
}
