//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::load::{Pace, Plan};
use super::target::Destination;
use super::units::parse_duration;

/// The defaults of `--concurrency`: enough to keep a server of this size busy, and enough for 1 000 requests a second to
/// go on during a stall of a quarter of a second.
const CLOSED: usize = 32;
const OPEN: usize = 256;
const DURATION: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel's id, or one of its aliases.
    #[arg(value_name = "ID", required_unless_present = "compare")]
    kernel: Option<String>,

    /// The file that holds the input, a JSON document; `-` is stdin.
    #[arg(short, long, value_name = "FILE", required_unless_present = "compare")]
    input: Option<PathBuf>,

    /// Ask the REST server at this URL, such as http://127.0.0.1:8080, instead of running the kernel in this process.
    #[arg(long, value_name = "URL", conflicts_with = "grpc")]
    rest: Option<String>,

    /// Ask the gRPC server at this URL, such as http://127.0.0.1:50051, instead.
    #[arg(long, value_name = "URL")]
    grpc: Option<String>,

    /// A PEM file with the authorities that the server's certificate is checked with, where the URL is of https.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// How the input goes out and the output comes back.
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Json)]
    payload: Form,

    /// A header, or over gRPC an entry of metadata, to send along, such as `authorization: Bearer ...`.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// The most requests on their way at one time, over REST each on a connection of its own [default: 32, or 256
    /// with --rate].
    #[arg(short, long, value_name = "N", value_parser = positive)]
    concurrency: Option<usize>,

    /// Send so many requests a second by the clock (open loop); latency counts from when each was due.
    #[arg(short, long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// The times between requests that go by the clock.
    #[arg(long, value_enum, value_name = "TIMES", default_value_t = Arrivals::Constant, requires = "rate")]
    arrivals: Arrivals,

    /// How long to measure [default: 10s, or as long as --requests takes].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// How many requests to measure; with --duration, whichever ends first.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// How long to send requests before measuring.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    warmup: Duration,

    /// How long to wait for an answer before the request counts as failed.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,

    /// Threads that send [default: one for each processor; over REST and gRPC one for two processors].
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,

    /// gRPC connections of each thread, which its requests share; no more of them than it has requests on their way.
    #[arg(long, value_name = "N", value_parser = positive, default_value = "4")]
    channels: usize,

    /// Measure on, and exit with 0, even if requests fail.
    #[arg(long)]
    allow_errors: bool,

    /// Write the run to this file as well, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare two runs that --json has written, and measure nothing.
    #[arg(long, num_args = 2, value_names = ["A", "B"], exclusive = true)]
    compare: Option<Vec<PathBuf>>,
}

/// How an input goes out and an output comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// As JSON.
    Json,
    /// As tensors; in process and over gRPC.
    Tensors,
    /// As the kernel's own type, with no codec at all; in process.
    Typed,
}

/// The times between requests that go by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Arrivals {
    /// All the same.
    Constant,
    /// At random, as independent users come; each run with the same times.
    Poisson,
}

/// What the command is to do.
#[derive(Debug)]
pub(super) enum Work {
    Compare(PathBuf, PathBuf),
    Measure(Box<Order>),
}

/// What to measure, and what to do with the result.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) destination: Destination,
    pub(super) input: PathBuf,
    pub(super) plan: Plan,
    pub(super) allow_errors: bool,
    pub(super) json: Option<PathBuf>,
}

impl Args {
    pub(super) fn work(self) -> Result<Work, String> {
        if let Some(paths) = self.compare {
            let [a, b] = <[PathBuf; 2]>::try_from(paths).map_err(|_| "--compare takes two files")?;
            return Ok(Work::Compare(a, b));
        }
        let (Some(kernel), Some(input)) = (self.kernel, self.input) else {
            return Err("an ID and an --input are needed".to_owned());
        };
        let (form, headers, cacert) = (self.payload, self.headers, self.cacert);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (destination, threads) = match (self.rest, self.grpc) {
            (None, None) if headers.is_empty() && cacert.is_none() => {
                (Destination::InProcess { kernel, form }, processors)
            }
            (None, None) if headers.is_empty() => return Err("--cacert goes with --rest or --grpc".to_owned()),
            (None, None) => return Err("--header goes with --rest or --grpc".to_owned()),
            (Some(url), _) if form == Form::Json => {
                (Destination::Rest { url, kernel, headers, cacert }, processors.div_ceil(2))
            }
            (Some(_), _) => return Err("over REST the payload is JSON".to_owned()),
            (None, Some(_)) if form == Form::Typed => {
                return Err("a typed payload does not leave its process".to_owned());
            }
            (None, Some(url)) => {
                let channels = self.channels;
                (Destination::Grpc { url, kernel, form, headers, cacert, channels }, processors.div_ceil(2))
            }
        };
        let concurrency = self.concurrency.unwrap_or(if self.rate.is_some() { OPEN } else { CLOSED });
        let plan = Plan {
            threads: self.threads.unwrap_or(threads).min(concurrency),
            concurrency,
            pace: match self.rate {
                Some(rate) => Pace::Open { rate, arrivals: self.arrivals },
                None => Pace::Closed,
            },
            warmup: self.warmup,
            duration: self.duration.or(self.requests.is_none().then_some(DURATION)),
            requests: self.requests,
            timeout: self.timeout,
        };
        Ok(Work::Measure(Box::new(Order {
            destination,
            input,
            plan,
            allow_errors: self.allow_errors,
            json: self.json,
        })))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "a whole number from 1 on".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let fits = |&rate: &f64| (0.001..=1e8).contains(&rate);
    text.parse().ok().filter(fits).ok_or_else(|| "requests a second, from 0.001 to 100000000".to_owned())
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("a name, a colon and a value")?;
    let name = name.trim().parse::<HeaderName>().map_err(|error| format!("{name:?}: {error}"))?;
    // An error that repeats the value would show a secret.
    let mut value = value.trim().parse::<HeaderValue>().map_err(|error| format!("the value of {name}: {error}"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn work(line: &[&str]) -> Result<Work, String> {
        let line = Line::try_parse_from(std::iter::once(&"bench").chain(line)).map_err(|error| error.to_string())?;
        line.args.work()
    }

    fn plan(line: &[&str]) -> Plan {
        match work(&[&["linalg/saxpy", "--input", "-"], line].concat()).unwrap() {
            Work::Measure(order) => order.plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_ends_by_its_requests_or_after_ten_seconds() {
        assert_eq!((plan(&[]).duration, plan(&[]).requests), (Some(DURATION), None));
        let counted = plan(&["-n", "100"]);
        assert_eq!((counted.duration, counted.requests), (None, Some(100)));
        assert_eq!(plan(&["-n", "100", "-d", "2s"]).duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_rate_makes_it_an_open_loop_with_more_room() {
        assert_eq!((plan(&[]).pace, plan(&[]).concurrency), (Pace::Closed, CLOSED));
        let open = plan(&["--rate", "100", "--arrivals", "poisson"]);
        assert_eq!(open.pace, Pace::Open { rate: 100.0, arrivals: Arrivals::Poisson });
        assert_eq!(open.concurrency, OPEN);
        assert_eq!(plan(&["-c", "1", "--threads", "8"]).threads, 1);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let id = ["linalg/saxpy", "-i", "-"];
        for line in [
            &["linalg/saxpy"][..],
            &["--compare", "a.json"],
            &["--compare", "a.json", "b.json", "-n", "1"],
            &[&id[..], &["--rest", "http://a", "--grpc", "http://b"]].concat(),
            &[&id[..], &["--rest", "http://a", "--payload", "tensors"]].concat(),
            &[&id[..], &["--grpc", "http://a", "--payload", "typed"]].concat(),
            &[&id[..], &["--header", "a: b"]].concat(),
            &[&id[..], &["--cacert", "ca.crt"]].concat(),
            &[&id[..], &["--arrivals", "poisson"]].concat(),
            &[&id[..], &["--rate", "0"]].concat(),
            &[&id[..], &["--rate", "NaN"]].concat(),
            &[&id[..], &["-c", "0"]].concat(),
            &[&id[..], &["-n", "0"]].concat(),
        ] {
            assert!(work(line).is_err(), "{line:?}");
        }
    }
}
