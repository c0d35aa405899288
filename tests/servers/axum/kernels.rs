//! What `/kernels` shows, and where the routes are.

use serde_json::Value;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::service::{KernelRegistry, KernelService};

use crate::axum::server::Server;

fn ids(page: &Value) -> Vec<&str> {
    page["kernels"].as_array().unwrap().iter().map(|kernel| kernel["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn kernels_are_listed_by_id_and_filtered() {
    let server = Server::start().await;
    let all = server.get("/kernels").await.json();
    assert!(ids(&all).is_sorted() && ids(&all).contains(&"graph/betweenness-centrality"), "{all}");
    assert_eq!(all["total"], ids(&all).len());
    assert!(all.get("next").is_none());
    let nap = all["kernels"].as_array().unwrap().iter().find(|kernel| kernel["id"] == "test/nap").unwrap();
    assert_eq!(
        (&nap["domain"], &nap["mode"], &nap["aliases"][0]),
        (&"test".into(), &"batch".into(), &"rest/nap".into())
    );
    assert!(nap["backends"].is_array() && nap["version"].is_string() && nap["description"].is_string());

    assert_eq!(ids(&server.get("/kernels?domain=test").await.json()), ["test/nap", "test/panics"]);
    assert_eq!(ids(&server.get("/kernels?mode=ring").await.json()), ["orderbook/matching"]);
    assert_eq!(ids(&server.get("/kernels?mode=ring&domain=test").await.json()), [""; 0]);
    for (query, field) in [("mode=loop", "mode"), ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit")] {
        let response = server.get(&format!("/kernels?{query}")).await;
        assert!(response.problem(400, "invalid_argument").contains(field), "{response:?}");
    }
    server.get("/kernels?domian=test").await.problem(400, "invalid_argument");
}

#[tokio::test]
async fn pages_hold_every_kernel_once() {
    let server = Server::start().await;
    let all = server.get("/kernels").await.json();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/kernels?limit=2{after}")).await.json();
        assert_eq!(page["total"], all["total"]);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        assert!(ids(&page).len() <= 2);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ids(&all));
    let past = server.get("/kernels?after=zzz").await.json();
    assert_eq!((ids(&past).len(), past.get("next")), (0, None));
}

#[tokio::test]
async fn a_kernel_is_described_under_any_of_its_names() {
    let server = Server::start().await;
    for path in ["/kernels/risk/option-pricing", "/kernels/risk%2Foption-pricing"] {
        let kernel = server.get(path).await.json();
        assert_eq!((&kernel["id"], &kernel["domain"]), (&"risk/option-pricing".into(), &"risk".into()));
        assert!(kernel["input_schema"]["properties"]["spot"].is_object(), "{kernel}");
        assert!(kernel["output_schema"].is_object() && kernel["backends"].is_array());
    }
    let by_alias = server.get("/kernels/rest/nap").await.json();
    assert_eq!((&by_alias["id"], &by_alias["aliases"][0]), (&"test/nap".into(), &"rest/nap".into()));
    let head = server.request("HEAD", "/kernels/test/nap", &[], b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn the_prefix_moves_kernels_and_leaves_what_probes_ask_for() {
    let config = RouterConfig { prefix: "/api/v1".to_owned(), ..RouterConfig::default() };
    let server = Server::with_config(config).await;
    for path in ["/api/v1/kernels", "/api/v1/kernels/linalg/saxpy", "/health", "/metrics"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    server.get("/kernels").await.problem(404, "not_found");
    let input = serde_json::json!({"a": 1.0, "x": [1.0], "y": [1.0]});
    assert_eq!(server.post("/api/v1/kernels/linalg/saxpy/execute", &input).await.status, 200);
}

#[tokio::test]
async fn what_is_turned_off_is_not_there() {
    let config = RouterConfig { enable_metrics: false, enable_health: false, ..RouterConfig::default() };
    let server = Server::with_config(config).await;
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        server.get(path).await.problem(404, "not_found");
    }
    let origin = [("origin", "https://example.org")];
    assert_eq!(server.request("GET", "/kernels", &origin, b"").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn pages_of_other_origins_may_call_where_that_is_on() {
    let server = Server::with_config(RouterConfig { cors_enabled: true, ..RouterConfig::default() }).await;
    let preflight = [
        ("origin", "https://example.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let response = server.request("OPTIONS", "/execute", &preflight, b"").await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("*")));
    assert!(response.header("access-control-allow-methods").unwrap().contains("POST"));
    let rejected = server.request("GET", "/kernels/no/such", &preflight[..1], b"").await;
    assert_eq!((rejected.status, rejected.header("access-control-allow-origin")), (404, Some("*")));
    assert!(rejected.header("access-control-expose-headers").unwrap().contains("x-request-id"));
}

#[tokio::test]
async fn a_registry_of_no_kernels_is_served_too() {
    let registry = KernelRegistry::new();
    let router = KernelRouter::with_service(
        KernelService::with_backend(KernelRegistry::new(), tower_kernels::backends::cpu::CpuBackend::new()),
        &RegistryOnly::new(registry),
        RouterConfig::default(),
    );
    let server = Server::serve(router.into_router()).await;
    assert_eq!(server.get("/kernels").await.json(), serde_json::json!({"kernels": [], "total": 0}));
    assert_eq!(server.get("/health").await.json()["status"], "degraded");
    assert_eq!(server.get("/metrics").await.status, 200);
}
