//! What to keep MetricsLayer's numbers in: one counter by (kernel, backend, outcome) incremented and one histogram
//! observed, through each library's labels, through handles resolved once, and in relaxed atomics of our own that
//! `prometheus-client` only names and prints.

use std::fmt;
use std::hint::black_box;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_exporter_prometheus::PrometheusBuilder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::{Calls, Case};

pub(crate) const CASES: &[Case] = &[
    Case { name: "store: metrics, labels looked up", over: None, build: metrics_by_label },
    Case { name: "store: metrics, handles kept", over: None, build: metrics_by_handle },
    Case { name: "store: prometheus-client, labels looked up", over: None, build: prometheus_by_label },
    Case { name: "store: prometheus-client, handles kept", over: None, build: prometheus_by_handle },
    Case { name: "store: own atomics, prometheus-client prints", over: None, build: own_atomics },
];

const KERNEL: &str = "linalg/saxpy";
const BACKEND: &str = "CPU";
const OUTCOME: &str = "ok";

/// Upper bounds of the duration histogram in seconds, 10 us to 10 s.
pub(crate) const BUCKETS: [f64; 14] =
    [10e-6, 25e-6, 100e-6, 250e-6, 1e-3, 2.5e-3, 10e-3, 25e-3, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0];

/// The same in nanoseconds.
const BOUNDS: [u64; BUCKETS.len()] = {
    let mut bounds = [0; BUCKETS.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = (BUCKETS[at] * 1e9) as u64;
        at += 1;
    }
    bounds
};

/// The duration observed: in the fifth bucket.
const SECONDS: f64 = 700e-6;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kernel: String,
    backend: &'static str,
    outcome: &'static str,
}

fn labels(kernel: &str) -> Labels {
    Labels { kernel: kernel.to_owned(), backend: BACKEND, outcome: OUTCOME }
}

/// Makes `record` the call that is measured, with a kernel name that the compiler does not know.
fn each(record: impl Fn(&str) + 'static) -> Calls {
    Box::new(move |calls| {
        for _ in 0..calls {
            record(black_box(KERNEL));
        }
    })
}

fn install_recorder() {
    PrometheusBuilder::new()
        .set_buckets(&BUCKETS)
        .expect("buckets")
        .install_recorder()
        .expect("no other recorder in this process");
}

fn metrics_by_label() -> Calls {
    install_recorder();
    each(|kernel| {
        metrics::counter!("requests", "kernel" => kernel.to_owned(), "backend" => BACKEND, "outcome" => OUTCOME)
            .increment(1);
        metrics::histogram!("duration", "kernel" => kernel.to_owned(), "backend" => BACKEND, "outcome" => OUTCOME)
            .record(SECONDS);
    })
}

fn metrics_by_handle() -> Calls {
    install_recorder();
    let requests = metrics::counter!("requests", "kernel" => KERNEL, "backend" => BACKEND, "outcome" => OUTCOME);
    let duration = metrics::histogram!("duration", "kernel" => KERNEL, "backend" => BACKEND, "outcome" => OUTCOME);
    each(move |_| {
        requests.increment(1);
        duration.record(black_box(SECONDS));
    })
}

/// Families of the two metrics, registered as a program would.
fn families() -> (Family<Labels, Counter>, Family<Labels, Histogram>) {
    let requests = Family::<Labels, Counter>::default();
    let duration = Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
    let mut registry = Registry::default();
    registry.register("requests", "Requests", requests.clone());
    registry.register("duration", "Duration", duration.clone());
    (requests, duration)
}

fn prometheus_by_label() -> Calls {
    let (requests, duration) = families();
    each(move |kernel| {
        let labels = labels(kernel);
        requests.get_or_create(&labels).inc();
        duration.get_or_create(&labels).observe(SECONDS);
    })
}

fn prometheus_by_handle() -> Calls {
    let (requests, duration) = families();
    let requests = requests.get_or_create_owned(&labels(KERNEL));
    let duration = duration.get_or_create_owned(&labels(KERNEL));
    each(move |_| {
        requests.inc();
        duration.observe(black_box(SECONDS));
    })
}

/// One counter and one histogram, of relaxed atomics: buckets are counted singly and summed when printed.
#[derive(Default)]
struct Own {
    requests: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Own {
    fn record(&self, nanoseconds: u64) {
        let bucket = BOUNDS.partition_point(|&bound| bound < nanoseconds);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct OwnCollector(Arc<Own>);

impl fmt::Debug for OwnCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCollector").finish_non_exhaustive()
    }
}

impl Collector for OwnCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let own = &*self.0;
        let labels = labels(KERNEL);
        let requests = ConstCounter::new(own.requests.load(Ordering::Relaxed));
        let mut counter = encoder.encode_descriptor("requests", "Requests", None, requests.metric_type())?;
        requests.encode(counter.encode_family(&labels)?)?;

        let histogram = encoder.encode_descriptor("duration", "Duration", None, MetricType::Histogram)?;
        encode_histogram(own, &labels, histogram)
    }
}

fn encode_histogram(own: &Own, labels: &Labels, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let bounds = BUCKETS.into_iter().chain(iter::once(f64::MAX));
    let buckets: Vec<(f64, u64)> = bounds.zip(own.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let seconds = own.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
    encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
}

fn own_atomics() -> Calls {
    let own = Arc::new(Own::default());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(OwnCollector(Arc::clone(&own))));
    own.record((SECONDS * 1e9) as u64);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(
        text.contains(r#"duration_bucket{le="0.001",kernel="linalg/saxpy",backend="CPU",outcome="ok"} 1"#),
        "the collector prints what was recorded:\n{text}"
    );
    each(move |_| own.record(black_box((SECONDS * 1e9) as u64)))
}
