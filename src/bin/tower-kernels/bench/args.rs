//! Arguments of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::load::{LoadModel, Plan};
use super::target::Destination;
use super::units::parse_duration;
use crate::client::ConnectionArgs;

/// The default of `--concurrency` in a closed loop: enough to keep a small server busy.
const CLOSED_LOOP_CONCURRENCY: usize = 32;
/// The default of `--concurrency` in an open loop: enough for 1 000 requests per second during a stall of 250 ms.
const OPEN_LOOP_CONCURRENCY: usize = 256;
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel's id, or one of its aliases; with --protocol v2 the name of a model.
    #[arg(value_name = "ID", required_unless_present = "compare")]
    kernel: Option<String>,

    /// File with the input, a JSON document; `-` is stdin.
    #[arg(short, long, value_name = "FILE", required_unless_present = "compare")]
    input: Option<PathBuf>,

    /// Send requests to the REST server at this URL, such as http://127.0.0.1:8080, instead of running in this process.
    #[arg(long, value_name = "URL", conflicts_with = "grpc")]
    rest: Option<String>,

    /// Send requests to the gRPC server at this URL, such as http://127.0.0.1:50051.
    #[arg(long, value_name = "URL")]
    grpc: Option<String>,

    /// Protocol of the server. Servers such as Triton speak v2 as well, so that the same command measures them.
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t = Protocol::Native)]
    protocol: Protocol,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Format of the input and output payloads.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = PayloadFormat::Json)]
    payload: PayloadFormat,

    /// Send tensors: short for --payload tensors.
    #[arg(long, conflicts_with = "payload")]
    tensors: bool,

    /// Maximum number of requests in flight; over REST each has its own connection [default: 32, or 256 with --rate].
    #[arg(short, long, value_name = "N", value_parser = positive)]
    concurrency: Option<usize>,

    /// Send requests at this rate, independent of responses (open loop); latency counts from when each was due.
    #[arg(short, long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// Distribution of the times between requests, with --rate.
    #[arg(long, value_enum, value_name = "DISTRIBUTION", default_value_t = Arrivals::Constant, requires = "rate")]
    arrivals: Arrivals,

    /// Duration of the measurement [default: 10s, or as long as --requests takes].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Number of requests to measure; with --duration, whichever ends first.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Duration of the warm-up before the measurement.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    warmup: Duration,

    /// Time limit of a request, after which it counts as failed.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,

    /// Number of sending threads [default: one per processor; over REST and gRPC one per two processors].
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// Number of gRPC connections of each thread, at most one per request in flight.
    #[arg(long, value_name = "N", value_parser = positive, default_value = "4")]
    channels: usize,

    /// Continue and exit with code 0 even if requests fail.
    #[arg(long)]
    allow_errors: bool,

    /// Also write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare two files written by --json, without measuring.
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    compare: Option<Vec<PathBuf>>,
}

/// The protocol between this program and a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// The REST API and the gRPC service of `tower-kernels serve`.
    #[default]
    Native,
    /// The Open Inference Protocol: over REST with JSON, or with binary data as tensors; over gRPC with raw contents.
    V2,
}

/// The format of input and output payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PayloadFormat {
    /// JSON.
    Json,
    /// Tensors.
    Tensors,
    /// The kernel's own type, without encoding; in process only.
    Typed,
}

/// The distribution of the times between requests of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Arrivals {
    /// All equal.
    Constant,
    /// Random, like those of independent users; the same in each run.
    Poisson,
}

/// The action of the command.
#[derive(Debug)]
pub(super) enum Action {
    Compare(PathBuf, PathBuf),
    Measure(Box<Measurement>),
}

/// A measurement: its target, input and load, and the output of the results.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) destination: Destination,
    pub(super) input: PathBuf,
    pub(super) plan: Plan,
    pub(super) allow_errors: bool,
    pub(super) json: Option<PathBuf>,
}

impl Args {
    pub(super) fn action(self) -> Result<Action, String> {
        if let Some(paths) = self.compare {
            let [a, b] = <[PathBuf; 2]>::try_from(paths).map_err(|_| "--compare takes two files")?;
            return Ok(Action::Compare(a, b));
        }
        let (Some(kernel), Some(input)) = (self.kernel, self.input) else {
            return Err("ID and --input are required".to_owned());
        };
        let format = if self.tensors { PayloadFormat::Tensors } else { self.payload };
        let (connection, protocol) = (self.connection, self.protocol);
        let (has_headers, has_cacert) = (!connection.headers.is_empty(), connection.cacert.is_some());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if protocol == Protocol::V2 {
            if self.rest.is_none() && self.grpc.is_none() {
                return Err("--protocol v2 needs --rest or --grpc".to_owned());
            }
            if self.grpc.is_some() && format == PayloadFormat::Json {
                return Err("--protocol v2 over gRPC has no JSON: add --tensors".to_owned());
            }
        }
        let (destination, threads) = match (self.rest, self.grpc) {
            (None, None) if !has_headers && !has_cacert => (Destination::InProcess { kernel, format }, processors),
            (None, None) if !has_headers => return Err("--cacert needs --rest or --grpc".to_owned()),
            (None, None) => return Err("--header needs --rest or --grpc".to_owned()),
            (Some(_), _) | (_, Some(_)) if format == PayloadFormat::Typed => {
                return Err("--payload typed works in process only, without --rest and --grpc".to_owned());
            }
            (Some(url), _) => (Destination::Rest { url, protocol, kernel, format, connection }, processors.div_ceil(2)),
            (None, Some(url)) => {
                let channels = self.channels;
                (Destination::Grpc { url, protocol, kernel, format, connection, channels }, processors.div_ceil(2))
            }
        };
        let concurrency = self.concurrency.unwrap_or(if self.rate.is_some() {
            OPEN_LOOP_CONCURRENCY
        } else {
            CLOSED_LOOP_CONCURRENCY
        });
        let plan = Plan {
            threads: self.threads.unwrap_or(threads).min(concurrency),
            concurrency,
            model: match self.rate {
                Some(rate) => LoadModel::Open { rate, arrivals: self.arrivals },
                None => LoadModel::Closed,
            },
            warmup: self.warmup,
            duration: self.duration.or(self.requests.is_none().then_some(DEFAULT_DURATION)),
            requests: self.requests,
            timeout: self.timeout,
        };
        Ok(Action::Measure(Box::new(Measurement {
            destination,
            input,
            plan,
            allow_errors: self.allow_errors,
            json: self.json,
        })))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "must be a whole number of at least 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let fits = |&rate: &f64| (0.001..=1e8).contains(&rate);
    text.parse().ok().filter(fits).ok_or_else(|| "must be requests per second from 0.001 to 100000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn action(line: &[&str]) -> Result<Action, String> {
        let line = Cli::try_parse_from(std::iter::once(&"bench").chain(line)).map_err(|error| error.to_string())?;
        line.args.action()
    }

    fn plan(line: &[&str]) -> Plan {
        match action(&[&["linalg/saxpy", "--input", "-"], line].concat()).unwrap() {
            Action::Measure(order) => order.plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_ends_by_its_requests_or_after_ten_seconds() {
        assert_eq!((plan(&[]).duration, plan(&[]).requests), (Some(DEFAULT_DURATION), None));
        let counted = plan(&["-n", "100"]);
        assert_eq!((counted.duration, counted.requests), (None, Some(100)));
        assert_eq!(plan(&["-n", "100", "-d", "2s"]).duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_rate_makes_it_an_open_loop_with_more_concurrency() {
        assert_eq!((plan(&[]).model, plan(&[]).concurrency), (LoadModel::Closed, CLOSED_LOOP_CONCURRENCY));
        let open = plan(&["--rate", "100", "--arrivals", "poisson"]);
        assert_eq!(open.model, LoadModel::Open { rate: 100.0, arrivals: Arrivals::Poisson });
        assert_eq!(open.concurrency, OPEN_LOOP_CONCURRENCY);
        assert_eq!(plan(&["-c", "1", "--threads", "8"]).threads, 1);
    }

    #[test]
    fn contradicting_arguments_are_rejected() {
        let id = ["linalg/saxpy", "-i", "-"];
        for line in [
            &["linalg/saxpy"][..],
            &["--compare", "a.json"],
            &["--compare", "a.json", "b.json", "-n", "1"],
            &[&id[..], &["--rest", "http://a", "--grpc", "http://b"]].concat(),
            &[&id[..], &["--rest", "http://a", "--payload", "typed"]].concat(),
            &[&id[..], &["--tensors", "--payload", "json"]].concat(),
            &[&id[..], &["--grpc", "http://a", "--payload", "typed"]].concat(),
            &[&id[..], &["--header", "a: b"]].concat(),
            &[&id[..], &["--protocol", "v2"]].concat(),
            &[&id[..], &["--protocol", "v2", "--grpc", "http://a"]].concat(),
            &[&id[..], &["--protocol", "v2", "--rest", "http://a", "--payload", "typed"]].concat(),
            &[&id[..], &["--cacert", "ca.crt"]].concat(),
            &[&id[..], &["--arrivals", "poisson"]].concat(),
            &[&id[..], &["--rate", "0"]].concat(),
            &[&id[..], &["--rate", "NaN"]].concat(),
            &[&id[..], &["-c", "0"]].concat(),
            &[&id[..], &["-n", "0"]].concat(),
        ] {
            assert!(action(line).is_err(), "{line:?}");
        }
    }
}
