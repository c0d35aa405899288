//! Layers around the routes of an axum server that knows nothing of kernels.
//!
//! `cargo run --example layers_axum --no-default-features --features error-response,metrics,rate-limit,timeout`

use std::time::Duration;

use axum::{Router, routing::get};
use tower::ServiceBuilder;
use tower_kernels::layers::{ErrorResponseLayer, MetricsLayer, RateLimiterLayer, TimeoutLayer};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let metrics = MetricsLayer::new().prefix("shop");
    let app = Router::new().route("/users/{id}", get(async || "a user")).layer(
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(metrics.clone())
            .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
            .layer(TimeoutLayer::new(Duration::from_secs(5))),
    );
    let app = app.route("/metrics", get(async move || metrics.render()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
