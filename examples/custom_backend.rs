//! A backend that forwards its jobs to another server over HTTP, which here is in the same process:
//! `cargo run --release --features hyper --example custom_backend`.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::value::RawValue;
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_kernels::error::{Classify, ErrorKind, chain};
use tower_kernels::hyper::{KernelHttpService, listen, serve};
use tower_kernels::layers::RetryLayer;
use tower_kernels::middleware::classify::ClassifiedError;
use tower_kernels::request::Execution;
use tower_kernels::service::{Job, KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

type Client = legacy::Client<legacy::connect::HttpConnector, Full<bytes::Bytes>>;

/// Forwards jobs to a server. Dropping the response future closes the connection, which cancels the kernel there.
#[derive(Clone)]
struct Remote(Client, String);

impl Service<Job> for Remote {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = BoxFuture<'static, Result<KernelResponse, KernelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        Poll::Ready(Ok(())) // The concurrency limit around it reserves the permit.
    }

    fn call(&mut self, job: Job) -> Self::Future {
        let Self(client, url) = self.clone();
        async move { execute(client, url, job.into_request()?).await.map_err(KernelError::backend) }.boxed()
    }
}

async fn execute(client: Client, url: String, request: KernelRequest) -> Result<KernelResponse, BoxError> {
    let timeout =
        request.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis() as u64);
    let input = request.payload.deserialize::<&RawValue>()?;
    let (id, timeout) = (serde_json::to_string(&request.kernel_id)?, serde_json::to_string(&timeout)?);
    let body = format!(r#"{{"kernel_id": {id}, "input": {input}, "metadata": {{"timeout_ms": {timeout}}}}}"#);
    let post = http::Request::post(url).header("content-type", "application/json").body(body.into())?;
    let response = client.request(post).await.map_err(|error| ClassifiedError::new(ErrorKind::Unavailable, error))?;
    let is_ok = response.status().is_success();
    let body: serde_json::Value = serde_json::from_slice(&response.collect().await?.to_bytes())?;
    if is_ok {
        return Ok(KernelResponse::new(Payload::from_serialize(&body["output"])?, Execution::new("remote")));
    }
    let kind = ErrorKind::ALL.into_iter().find(|kind| body["code"] == kind.code());
    Err(ClassifiedError::new(kind.unwrap_or(ErrorKind::Internal), body["detail"].to_string()).into())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), BoxError> {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry)?;
    let listener = listen("127.0.0.1:0".parse()?)?;
    let url = format!("http://{}/execute", listener.local_addr()?);
    let server = KernelHttpService::new(Arc::clone(&registry));
    tokio::spawn(serve(listener, server, std::future::pending(), std::time::Duration::ZERO));

    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let kernels = KernelService::with_backend(Arc::clone(&registry), ConcurrencyLimit::new(Remote(client, url), 8));
    let mut service =
        RetryLayer::new(move |request: &KernelRequest| registry.is_pure(&request.kernel_id)).layer(kernels);
    let saxpy = |input: &str| KernelRequest::new("linalg/saxpy", Payload::json(input));
    let response = service.ready().await?.call(saxpy(r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#)).await?;
    println!("{}: {}", response.execution.backend, response.json::<serde_json::Value>()?);
    let invalid = saxpy(r#"{"a": 2.0, "x": [1.0], "y": []}"#);
    if let Err(error) = service.ready().await?.call(invalid).await {
        println!("{}: {}", error.kind(), chain(&error));
    }
    Ok(())
}
