//! Kernels over plain hyper 1.x: the whole pipeline, and a graceful end on Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --example hyper_server -- [127.0.0.1:8080]
//! ```
//! `POST /execute` runs a kernel, `GET /kernels` lists them, `GET /kernels/{id}` describes one, `GET /metrics` is for
//! Prometheus. A client that hangs up cancels its kernel, because hyper drops the handler's future.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::metrics::MetricsHandle;
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer, timeout};
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// The most that a request can take where it asks for no less, its wait for a free slot included.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 64 << 20;
/// How long requests in flight may still take once the server has been told to stop.
const DRAIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    let listener = TcpListener::bind(&address).await?;
    serve(listener, registry, stop_signal()).await?;
    Ok(())
}

/// Serves until `stop` completes; then no connection is accepted any more, and requests in flight are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: Arc<KernelRegistry>,
    stop: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<()> {
    let kernels = KernelService::new(Arc::clone(&registry));
    eprintln!("{} kernels on {}", registry.len(), kernels.backend().status());
    let metrics = MetricsLayer::new().operations(registry.list().iter().map(|kernel| kernel.info().id.clone()));
    let pipeline = ServiceBuilder::new()
        .layer(metrics.clone())
        .layer(TracingLayer::new())
        .layer(RateLimiterLayer::new(100_000, Duration::from_secs(1)))
        .layer(TimeoutLayer::new(TIMEOUT))
        .service(kernels);

    eprintln!("listening on http://{}", listener.local_addr()?);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            connection = listener.accept() => match connection {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of file descriptors, or the peer is gone already: the next one may fare better.
                    tracing::warn!(%error, "no connection accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            result = &mut stop => break result?,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the peer is gone already");
            continue;
        }
        let (pipeline, registry, metrics) = (pipeline.clone(), Arc::clone(&registry), metrics.handle());
        let handler = hyper::service::service_fn(move |request| {
            let (pipeline, registry, metrics) = (pipeline.clone(), Arc::clone(&registry), metrics.clone());
            async move { Ok::<_, Infallible>(answer(pipeline, &registry, &metrics, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), handler);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    eprintln!("stopping: {} requests in flight", metrics.handle().in_flight());
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        eprintln!("stopped with requests in flight");
    }
    Ok(())
}

/// Completes on Ctrl-C and, where there is one, on SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

async fn answer<S>(
    pipeline: S,
    registry: &KernelRegistry,
    metrics: &MetricsHandle,
    request: Request<Incoming>,
) -> Response<Full<Bytes>>
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Classify + Error + 'static>,
{
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/execute") => execute(pipeline, request.into_body()).await,
        (&Method::GET, "/kernels") => {
            let kernels = registry.list();
            json(StatusCode::OK, &kernels.iter().map(|kernel| kernel.info()).collect::<Vec<_>>())
        }
        (&Method::GET, "/metrics") => {
            let mut response = Response::new(Full::from(metrics.render()));
            let content_type = header::HeaderValue::from_static(MetricsHandle::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        (&Method::GET, path) => match path.strip_prefix("/kernels/").and_then(|id| registry.describe(id)) {
            Some(description) => json(StatusCode::OK, &description),
            None => problem(ErrorKind::NotFound, format!("nothing is at {path}"), None, None),
        },
        (method, path) => problem(ErrorKind::NotFound, format!("{method} {path} does nothing"), None, None),
    }
}

async fn execute<S>(pipeline: S, body: Incoming) -> Response<Full<Bytes>>
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Classify + Error + 'static>,
{
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let request_id = format!("req-{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    let latest = Instant::now() + TIMEOUT;

    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return problem(ErrorKind::TooLarge, format!("the body is over {MAX_BODY} bytes"), Some(&request_id), None);
        }
        Err(error) => return problem(ErrorKind::InvalidArgument, error.to_string(), Some(&request_id), None),
    };
    let mut request = match KernelRequest::from_json(body) {
        Ok(request) => request,
        Err(error) => return problem(ErrorKind::InvalidArgument, error.to_string(), Some(&request_id), None),
    };
    request.deadline = Some(request.deadline.map_or(latest, |deadline| deadline.min(latest)));
    let kernel_id = request.kernel_id.clone();

    // Waits for a free slot no longer than the deadline, and then for the answer no longer than what is left of it.
    match timeout::oneshot(pipeline, request).await {
        Ok(response) => match response.to_json(&request_id, &kernel_id) {
            Ok(document) => with_type(StatusCode::OK, "application/json", document),
            Err(error) => problem(error.kind(), chain(&error), Some(&request_id), None),
        },
        Err(error) => problem(error.kind(), chain(&error), Some(&request_id), error.retry_after()),
    }
}

/// An error and its causes: each level of the pipeline speaks for itself alone.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// A problem document after RFC 9457.
fn problem(
    kind: ErrorKind,
    detail: String,
    request_id: Option<&str>,
    retry_after: Option<Duration>,
) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Client Closed Request"),
        "status": status.as_u16(),
        "code": kind.code(),
        "detail": detail,
        "request_id": request_id,
    });
    let mut response = with_type(status, "application/problem+json", document.to_string().into());
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json(status: StatusCode, document: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(document) {
        Ok(document) => with_type(status, "application/json", document.into()),
        Err(error) => problem(ErrorKind::Internal, error.to_string(), None, None),
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
