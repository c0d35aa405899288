//! Layers around routers of other programs: what their operations are called, and that clients cannot make up names.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::routing::{any, get};
use tower::{Layer, ServiceBuilder};
use tower_kernels::layers::{CircuitBreakerLayer, ErrorResponseLayer, MetricsLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerConfig;
use tower_kernels::request::Operation;

use crate::axum::server::Server;

const HOUR: Duration = Duration::from_secs(3600);

/// Panics, with the whole page, unless it says that so many calls of the operation ended so.
#[track_caller]
fn counts(page: &str, operation: &str, outcome: &str, count: u64) {
    let line = format!(r#"kernel_requests_total{{operation="{operation}",outcome="{outcome}"}} {count}"#);
    assert!(page.lines().any(|this| this == line), "no {line}\nin\n{page}");
}

/// The operations that have series of their own.
fn operations(page: &str) -> Vec<&str> {
    let gauges = page.lines().filter_map(|line| line.strip_prefix(r#"kernel_requests_in_flight{operation=""#));
    let mut names: Vec<_> = gauges.filter_map(|line| line.split_once('"')).map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

fn users() -> Router {
    let user = async |Path(id): Path<u32>| if id < 100 { Ok(format!("user {id}")) } else { Err(StatusCode::NOT_FOUND) };
    Router::new()
        .route("/users/{id}", get(user).put(async || "changed"))
        .route("/files/{*path}", get(async || "a file"))
        .nest("/api/v1", Router::new().route("/orders/{id}/lines/{line}", get(async || "a line")))
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
}

#[tokio::test]
async fn an_operation_is_the_method_and_the_route() {
    let metrics = MetricsLayer::new();
    let server = Server::serve(users().layer(metrics.clone())).await;
    for (method, path, status) in [
        ("GET", "/users/1", 200),
        ("GET", "/users/2", 200),
        ("HEAD", "/users/2", 200),
        ("PUT", "/users/3", 200),
        ("GET", "/users/400", 404),
        ("GET", "/files/a/b/c", 200),
        ("GET", "/api/v1/orders/7/lines/3?full=true", 200),
        ("GET", "/broken", 500),
        ("GET", "/users/1/2/3", 404),
        ("DELETE", "/users/1", 405),
    ] {
        assert_eq!(server.request(method, path, &[], b"").await.status, status, "{method} {path}");
    }
    let page = metrics.render();
    counts(&page, "GET /users/{id}", "ok", 2);
    counts(&page, "GET /users/{id}", "not_found", 1);
    counts(&page, "HEAD /users/{id}", "ok", 1);
    counts(&page, "PUT /users/{id}", "ok", 1);
    counts(&page, "GET /files/{*path}", "ok", 1);
    counts(&page, "GET /api/v1/orders/{id}/lines/{line}", "ok", 1);
    counts(&page, "GET /broken", "internal", 1);
    counts(&page, "unknown", "not_found", 1);
    counts(&page, "unknown", "invalid_argument", 1);
    assert_eq!(operations(&page).len(), 6 + 2, "{page}");
}

#[tokio::test]
async fn a_name_of_the_programs_own_comes_before_the_route() {
    let metrics = MetricsLayer::new();
    let name = |mut request: Request| {
        let name = format!("{} by id", request.uri().path().split('/').nth(1).unwrap_or_default());
        request.extensions_mut().insert(Operation::new(name));
        request
    };
    let layers = ServiceBuilder::new().map_request(name).layer(metrics.clone());
    let server = Server::serve(users().layer(layers)).await;
    assert_eq!(server.get("/users/1").await.status, 200);
    counts(&metrics.render(), "users by id", "ok", 1);
}

/// Neither a path that no route takes, nor a method that HTTP does not know, nor both.
#[tokio::test]
async fn what_clients_make_up_takes_no_place() {
    let metrics = MetricsLayer::new().max_operations(8);
    let app = users().route("/any/{id}", any(async || "whatever")).fallback(async || "a page for whatever path");
    let server = Server::serve(app.layer(metrics.clone())).await;
    for number in 0..30 {
        assert_eq!(server.get(&format!("/made-up/{number}")).await.status, 200);
        assert_eq!(server.get(&format!("/any/{number}")).await.status, 200);
        for path in ["/made-up", "/any/1"] {
            assert_eq!(server.request(&format!("BREW{number}"), path, &[], b"").await.status, 200);
        }
    }
    let page = metrics.render();
    assert_eq!(operations(&page), ["GET", "GET /any/{id}", "HTTP", "HTTP /any/{id}", "other", "unknown"]);
    counts(&page, "GET /any/{id}", "ok", 30);
    counts(&page, "HTTP", "ok", 30);
    counts(&page, "HTTP /any/{id}", "ok", 30);
}

/// Before the router has found a route there is nothing to be named by.
#[tokio::test]
async fn around_the_whole_router_an_operation_is_the_method() {
    let metrics = MetricsLayer::new();
    let server = Server::serve(Router::new().fallback_service(metrics.layer(users()))).await;
    assert_eq!(server.get("/users/1").await.status, 200);
    counts(&metrics.render(), "GET", "ok", 1);
}

#[tokio::test]
async fn circuits_go_by_the_same_names() {
    let breaker = CircuitBreakerLayer::with_config(CircuitBreakerConfig {
        consecutive_failures: Some(2),
        initial_open_time: HOUR,
        max_open_time: HOUR,
        ..Default::default()
    })
    .per_operation();
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::http()).layer(breaker.clone());
    let server = Server::serve(users().layer(layers)).await;
    for status in [500, 500, 503] {
        assert_eq!(server.get("/broken").await.status, status);
    }
    assert_eq!(server.get("/users/1").await.status, 200);
    assert_eq!(server.get("/nowhere").await.status, 404);
    let statuses = breaker.snapshots();
    let mut names: Vec<_> = statuses.iter().map(|circuit| circuit.circuit.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["GET /broken", "GET /users/{id}", "rest"]);
}
