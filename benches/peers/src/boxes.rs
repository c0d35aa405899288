//! Four layers as they are written by hand when time is short: every future in a box, every service cloned into it,
//! the bucket in a mutex, labels as strings.

use std::error::Error;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use tower::Service;
use tracing::Instrument;

use crate::inner::{Job, PLAIN, Plain, job};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case { name: "boxed timeout", over: Some(PLAIN), build: timeout },
    Case { name: "boxed rate limit", over: Some(PLAIN), build: rate_limit },
    Case { name: "boxed tracing, no subscriber", over: Some(PLAIN), build: trace },
    Case { name: "boxed metrics", over: Some(PLAIN), build: measure },
    Case { name: "four boxed layers", over: Some(PLAIN), build: stack },
];

type BoxError = Box<dyn Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Takes the service that was polled ready, and leaves a clone for the next call.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    mem::replace(service, clone)
}

#[derive(Clone)]
struct Timeout<S> {
    inner: S,
    limit: Duration,
}

impl<S> Service<Job> for Timeout<S>
where
    S: Service<Job, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, inner.call(job)).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(elapsed) => Err(elapsed.into()),
            }
        })
    }
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

#[derive(Clone)]
struct RateLimit<S> {
    inner: S,
    per_second: f64,
    bucket: Arc<Mutex<Bucket>>,
}

impl<S> RateLimit<S> {
    fn new(inner: S) -> Self {
        let per_second = 1e12;
        let bucket = Bucket { tokens: per_second, filled: Instant::now() };
        Self { inner, per_second, bucket: Arc::new(Mutex::new(bucket)) }
    }
}

impl<S> Service<Job> for RateLimit<S>
where
    S: Service<Job, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let bucket = Arc::clone(&self.bucket);
        let per_second = self.per_second;
        Box::pin(async move {
            {
                let mut bucket = bucket.lock().map_err(|error| error.to_string())?;
                let now = Instant::now();
                let earned = now.duration_since(bucket.filled).as_secs_f64() * per_second;
                bucket.filled = now;
                bucket.tokens = (bucket.tokens + earned).min(per_second);
                if bucket.tokens < 1.0 {
                    return Err("rate limit exceeded".into());
                }
                bucket.tokens -= 1.0;
            }
            inner.call(job).await.map_err(Into::into)
        })
    }
}

#[derive(Clone)]
struct Trace<S> {
    inner: S,
}

impl<S> Service<Job> for Trace<S>
where
    S: Service<Job, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let span = tracing::info_span!("kernel", kernel = job.kernel, size = job.size);
        Box::pin(async move { inner.call(job).await.map_err(Into::into) }.instrument(span))
    }
}

#[derive(Clone)]
struct Measure<S> {
    inner: S,
}

impl<S> Service<Job> for Measure<S>
where
    S: Service<Job, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        Box::pin(async move {
            let kernel = job.kernel.to_string();
            let start = Instant::now();
            let answer = inner.call(job).await.map_err(Into::into);
            let outcome = if answer.is_ok() { "ok" } else { "error" };
            metrics::counter!("kernel_requests_total", "kernel" => kernel.clone(), "outcome" => outcome).increment(1);
            metrics::histogram!("kernel_duration_seconds", "kernel" => kernel).record(start.elapsed().as_secs_f64());
            answer
        })
    }
}

/// What `metrics` records goes to Prometheus, in the buckets that a user would set.
fn install_recorder() {
    PrometheusBuilder::new()
        .set_buckets(&crate::stores::BUCKETS)
        .expect("buckets")
        .install_recorder()
        .expect("no other recorder in this process");
}

fn timeout() -> Calls {
    in_runtime(|| {
        let limit = Duration::from_secs(30);
        drive(Timeout { inner: Plain, limit }, job)
    })
}

fn rate_limit() -> Calls {
    drive(RateLimit::new(Plain), job)
}

fn trace() -> Calls {
    drive(Trace { inner: Plain }, job)
}

fn measure() -> Calls {
    install_recorder();
    drive(Measure { inner: Plain }, job)
}

fn stack() -> Calls {
    install_recorder();
    in_runtime(|| {
        let inner = Timeout { inner: Plain, limit: Duration::from_secs(30) };
        let inner = Trace { inner: RateLimit::new(inner) };
        drive(Measure { inner }, job)
    })
}
