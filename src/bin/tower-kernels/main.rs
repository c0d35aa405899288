//! Kernels as a server, and from the command line.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

mod bench;
mod catalogue;
mod config;
mod exit;
mod output;
mod run;
mod serve;

/// What a subcommand ends with: an exit code, or an error to print.
type Outcome = Result<ExitCode, Box<dyn Error + Send + Sync>>;

/// Kernels on CUDA GPUs and the CPU, behind REST and gRPC.
#[derive(Debug, Parser)]
#[command(version, about, after_help = exit::TABLE)]
enum Command {
    /// Serves REST and gRPC until SIGTERM or Ctrl-C.
    #[command(after_help = exit::TABLE)]
    Serve(serve::Args),
    /// Lists the kernels.
    List(catalogue::ListArgs),
    /// Describes one kernel: its schemas, aliases and backends.
    Describe(catalogue::DescribeArgs),
    /// Runs one kernel in this process.
    #[command(after_help = exit::TABLE)]
    Run(run::Args),
    /// Measures how fast a kernel answers: in this process, over REST or over gRPC.
    Bench(Box<bench::Args>),
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Serve(args) => serve::main(&args),
        Command::List(args) => catalogue::list(&args),
        Command::Describe(args) => catalogue::describe(&args),
        Command::Run(args) => run::main(args),
        Command::Bench(args) => bench::main(*args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", exit::chain(&*error));
            error.downcast_ref::<exit::Failure>().map_or(ExitCode::FAILURE, |failure| failure.exit.into())
        }
    }
}
