//! The results of a run: printed, written to a file, and read back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::args::{Arrivals, Measurement, PayloadFormat};
use super::load::{Errors, LoadModel, Measured, WINDOW};
use super::machine;
use super::units::{bytes, time};

/// The format version of a file.
const FORMAT: &str = "tower-kernels bench 1";

/// The width of the text histogram.
const BAR_WIDTH: usize = 40;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    format: String,
    pub(super) date: String,
    pub(super) version: String,
    pub(super) machine: String,
    pub(super) kernel: String,
    pub(super) target: String,
    pub(super) payload: PayloadFormat,
    pub(super) input_bytes: usize,
    pub(super) load: Load,
    pub(super) interrupted: bool,
    pub(super) elapsed_s: f64,
    /// Requests that succeeded.
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    pub(super) errors: BTreeMap<String, Failed>,
    pub(super) bytes_received: u64,
    /// Processor time of this program per request.
    pub(super) cpu_us_per_request: Option<f64>,
    pub(super) held: u64,
    pub(super) late: u64,
    pub(super) unsent: u64,
    /// Latency of the requests that succeeded.
    pub(super) latency_ns: Latency,
    pub(super) window_s: f64,
    pub(super) windows: Vec<Window>,
    /// All latencies in nanoseconds, in HdrHistogram's log format.
    histogram: String,
    #[serde(skip)]
    bars: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) concurrency: usize,
    pub(super) threads: usize,
    /// Requests per second of an open loop.
    pub(super) rate: Option<f64>,
    pub(super) arrivals: Option<Arrivals>,
    pub(super) warmup_s: f64,
    pub(super) duration_s: Option<f64>,
    pub(super) requests: Option<u64>,
    pub(super) timeout_s: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) count: u64,
    /// The message of the first.
    pub(super) example: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// Figures of one window of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) requests: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
}

impl Run {
    pub(super) fn new(
        measurement: &Measurement,
        input_bytes: usize,
        measured: Measured,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let Measured { statistics, elapsed, cpu, interrupted } = measured;
        let plan = &measurement.plan;
        let (rate, arrivals) = match plan.model {
            LoadModel::Closed => (None, None),
            LoadModel::Open { rate, arrivals } => (Some(rate), Some(arrivals)),
        };
        let mut date = String::new();
        SystemTime.format_time(&mut Writer::new(&mut date))?;
        let (latency, failures) = (&statistics.latency, statistics.failures());
        let at = |quantile| latency.value_at_quantile(quantile);
        // The last window is incomplete.
        let whole = (elapsed.as_nanos() / WINDOW.as_nanos()) as usize;
        let failed = |(code, Errors { count, example }): (&String, &Errors)| {
            (code.clone(), Failed { count: *count, example: example.clone() })
        };
        Ok(Self {
            format: FORMAT.to_owned(),
            date,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: machine::line(),
            kernel: measurement.destination.kernel().to_owned(),
            target: measurement.destination.to_string(),
            payload: measurement.destination.format(),
            input_bytes,
            load: Load {
                concurrency: plan.concurrency,
                threads: plan.threads,
                rate,
                arrivals,
                warmup_s: plan.warmup.as_secs_f64(),
                duration_s: plan.duration.map(|duration| duration.as_secs_f64()),
                requests: plan.requests,
                timeout_s: plan.timeout.as_secs_f64(),
            },
            interrupted,
            elapsed_s: elapsed.as_secs_f64(),
            requests: latency.len(),
            requests_per_s: latency.len() as f64 / elapsed.as_secs_f64().max(1e-9),
            errors: statistics.errors.iter().map(failed).collect(),
            bytes_received: statistics.bytes_received,
            cpu_us_per_request: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / (latency.len() + failures).max(1) as f64),
            held: statistics.held,
            late: statistics.late,
            unsent: statistics.unsent,
            latency_ns: Latency {
                mean: latency.mean(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: latency.max(),
            },
            window_s: WINDOW.as_secs_f64(),
            windows: statistics.windows.iter().take(whole).map(window).collect(),
            histogram: encode(latency, elapsed)?,
            bars: bars(latency),
        })
    }

    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let read = || -> Result<Self, Box<dyn std::error::Error>> {
            let run: Self = serde_json::from_slice(&std::fs::read(path)?)?;
            if run.format != FORMAT {
                return Err(format!("its format is {:?}, but this program reads {FORMAT:?}", run.format).into());
            }
            Ok(run)
        };
        read().map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let mut document = serde_json::to_vec_pretty(self)?;
            document.push(b'\n');
            Ok(std::fs::write(path, document)?)
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Describes the load.
    pub(super) fn load(&self) -> String {
        let Load { concurrency, threads, rate, arrivals, warmup_s, .. } = &self.load;
        let model = match (rate, arrivals) {
            (Some(rate), Some(Arrivals::Poisson)) => format!("open loop, {rate} requests/s, Poisson"),
            (Some(rate), _) => format!("open loop, {rate} requests/s"),
            (None, _) => "closed loop".to_owned(),
        };
        format!("{model}, concurrency {concurrency}, {threads} threads, {warmup_s} s of warm-up")
    }
}

fn window(latency: &Histogram<u32>) -> Window {
    let at = |quantile| latency.value_at_quantile(quantile);
    Window { requests: latency.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
}

fn encode(latency: &Histogram<u64>, elapsed: Duration) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    IntervalLogWriterBuilder::new()
        .with_start_time(std::time::SystemTime::now().checked_sub(elapsed).unwrap_or(UNIX_EPOCH))
        .begin_log_with(&mut log, &mut serializer)?
        .write_histogram(latency, Duration::ZERO, elapsed, None)
        .map_err(|error| format!("{error:?}"))?;
    Ok(String::from_utf8(log)?)
}

/// Counts latencies up to 1, 2, 5, 10, 20, 50 and so on.
fn bars(latency: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut bars: Vec<(u64, u64)> = Vec::new();
    let steps = (0..19).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power)));
    let mut steps = steps.skip_while(|&step| step < latency.min());
    let mut limit = steps.next();
    for step in latency.iter_recorded() {
        let value = latency.lowest_equivalent(step.value_iterated_to());
        while let Some(at) = limit.filter(|&at| value > at) {
            // Empty rows between others are shown too.
            if bars.last().is_none_or(|&(last, _)| last != at) {
                bars.push((at, 0));
            }
            limit = steps.next();
        }
        let Some(at) = limit else { break };
        match bars.last_mut() {
            Some((last, count)) if *last == at => *count += step.count_since_last_iteration(),
            _ => bars.push((at, step.count_since_last_iteration())),
        }
    }
    bars
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = match self.payload {
            PayloadFormat::Json => "JSON",
            PayloadFormat::Tensors => "tensors",
            PayloadFormat::Typed => "typed",
        };
        writeln!(f, "{}, {}, {payload}, from {} of JSON", self.kernel, self.target, bytes(self.input_bytes as f64))?;
        writeln!(f, "{}", self.load())?;
        writeln!(f, "{}; tower-kernels {}; {}\n", self.machine, self.version, self.date)?;
        let cut = if self.interrupted { ", ended by Ctrl-C" } else { "" };
        writeln!(f, "succeeded {} in {:.2} s{cut}", self.requests, self.elapsed_s)?;
        writeln!(f, "          {:.1} requests/s", self.requests_per_s)?;
        let received = self.bytes_received as f64;
        writeln!(f, "          {} of payload, {}/s", bytes(received), bytes(received / self.elapsed_s.max(1e-9)))?;
        if let Some(cpu) = self.cpu_us_per_request {
            writeln!(f, "          {} of processor time of this program per request", time(cpu * 1e3))?;
        }
        writeln!(f, "failed    {}", self.errors.values().map(|failed| failed.count).sum::<u64>())?;
        for (code, Failed { count, example }) in &self.errors {
            writeln!(f, "          {count} {code}: {example}")?;
        }
        self.fmt_schedule(f)?;
        self.fmt_latency(f)
    }
}

impl Run {
    /// Reports how well an open loop met its schedule.
    fn fmt_schedule(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { rate: Some(_), concurrency, .. } = self.load else { return Ok(()) };
        if self.held + self.late + self.unsent == 0 {
            return writeln!(f, "schedule  met");
        }
        writeln!(f, "schedule  not met; latencies count from when each request was due")?;
        if self.held > 0 {
            writeln!(
                f,
                "          {} waited because {concurrency} requests were in flight (--concurrency)",
                self.held
            )?;
        }
        if self.late > 0 {
            writeln!(
                f,
                "          {} were sent more than 1 ms late because this program was too slow (--threads)",
                self.late
            )?;
        }
        if self.unsent > 0 {
            writeln!(f, "          {} were never sent and are not counted above: the rate is too high", self.unsent)?;
        }
        Ok(())
    }

    fn fmt_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requests == 0 {
            return Ok(());
        }
        let Latency { mean, p50, p90, p99, p999, max } = self.latency_ns;
        let shown = [("mean", mean), ("p50", p50 as f64), ("p90", p90 as f64), ("p99", p99 as f64)];
        let shown = shown.into_iter().chain([("p99.9", p999 as f64), ("max", max as f64)]);
        for (index, (name, value)) in shown.enumerate() {
            let title = if index == 0 { "latency" } else { "" };
            writeln!(f, "{title:<9} {name:<6}{:>9}", time(value))?;
        }
        writeln!(f)?;
        let max_count = self.bars.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1);
        for &(limit, count) in &self.bars {
            let bar = "#".repeat((count as f64 / max_count as f64 * BAR_WIDTH as f64).ceil() as usize);
            let share = count as f64 / self.requests as f64 * 100.0;
            writeln!(f, "<= {:>7} {count:>10} {share:>6.2} % {bar}", time(limit as f64).replace(".00", ""))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn latencies(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        values.iter().for_each(|&value| histogram.record(value).unwrap());
        histogram
    }

    fn base64(text: &str) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits: Vec<u32> = text
            .trim_end_matches('=')
            .bytes()
            .map(|byte| DIGITS.iter().position(|&digit| digit == byte).unwrap() as u32)
            .collect();
        let group = |group: &[u32]| {
            let bits = group.iter().enumerate().fold(0, |bits, (index, digit)| bits | digit << (18 - 6 * index));
            bits.to_be_bytes()[1..group.len()].to_vec()
        };
        digits.chunks(4).flat_map(group).collect()
    }

    #[test]
    fn the_encoded_histogram_can_be_decoded() {
        let latency = latencies(&[10, 331_000, 331_000, 5_000_000_000]);
        let log = encode(&latency, Duration::from_secs(10)).unwrap();
        let histogram = IntervalLogIterator::new(log.as_bytes()).find_map(|entry| match entry.unwrap() {
            LogEntry::Interval(interval) => Some(interval.encoded_histogram().to_owned()),
            _ => None,
        });
        let bytes = base64(&histogram.unwrap());
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, latency);
    }

    #[test]
    fn bars_count_every_latency_once_and_show_gaps() {
        let latency = latencies(&[3_000, 3_000, 5_000, 7_000, 90_000]);
        assert_eq!(bars(&latency), [(5_000, 3), (10_000, 1), (20_000, 0), (50_000, 0), (100_000, 1)]);
        assert_eq!(bars(&latencies(&[])), []);
        assert_eq!(bars(&latencies(&[1])), [(1, 1)]);
    }
}
