//! Layers around an HTTP client: retries, a circuit breaker and a timeout for the calls to another server.
//!
//! `cargo run --example layers_hyper_client --no-default-features --features circuit-breaker,classify,retry,timeout`

use std::time::Duration;

use http::Request;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_kernels::error::ErrorKind;
use tower_kernels::layers::{CircuitBreakerLayer, ClassifyLayer, RetryLayer, TimeoutLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new())
        .layer(TimeoutLayer::new(Duration::from_secs(2)))
        .layer(RetryLayer::new(|request: &Request<Empty<Bytes>>| request.method().is_idempotent()).max_attempts(3))
        .layer(ClassifyLayer::new().errors(|_: &hyper_util::client::legacy::Error| ErrorKind::Unavailable))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::get("http://127.0.0.1:3000/users/7").body(Empty::new())?;
    match client.ready().await?.call(request).await {
        Ok(response) => println!("{}", response.status()),
        Err(error) => println!("failed: {error}"),
    }
    Ok(())
}
