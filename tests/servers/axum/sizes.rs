//! Registries of no kernels and of very many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

use crate::axum::server::Server;
use crate::support::http_client::HttpResponse;

const MANY: usize = 10_000;

/// Adds its number to what it is given. Every tenth is a ring kernel.
struct Add(u64);

impl Add {
    fn id(&self) -> String {
        format!("domain{}/add-{:05}", self.0 % 7, self.0)
    }
}

impl Kernel for Add {
    type Input = u64;
    type Output = u64;

    fn info(&self) -> KernelInfo {
        let info = KernelInfo::new(self.id(), "1.0.0", "Adds its number.").alias(format!("alias/{}", self.0));
        if self.0 % 10 == 9 { info.ring() } else { info }
    }

    fn validate(&self, _: &u64) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &u64) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &u64, _: &RunContext<'_>) -> Result<u64, KernelError> {
        Ok(input.wrapping_add(self.0))
    }
}

fn many() -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    (0..MANY as u64).for_each(|number| registry.register(Add(number)).unwrap());
    Arc::new(registry)
}

async fn serve(registry: Arc<KernelRegistry>) -> Server {
    Server::serve(KernelRouter::new(registry, RouterConfig::default()).into_router()).await
}

/// The ids of all pages of a list, each checked to be no longer than asked for.
async fn walk(server: &Server, query: &str, limit: usize) -> (Vec<String>, u64) {
    let (mut seen, mut after, mut total) = (Vec::new(), String::new(), 0);
    loop {
        let page = server.get(&format!("/kernels?limit={limit}{query}{after}")).await.json();
        let ids: Vec<_> = page["kernels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kernel| kernel["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(ids.len() <= limit);
        seen.extend(ids);
        total = page["total"].as_u64().unwrap().max(total);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return (seen, total),
        }
    }
}

#[tokio::test]
async fn of_ten_thousand_kernels_each_is_found_described_and_run() {
    let server = serve(many()).await;
    let (all, total) = walk(&server, "", 1000).await;
    assert_eq!((all.len(), total), (MANY, MANY as u64));
    assert!(all.is_sorted() && all.iter().collect::<BTreeSet<_>>().len() == MANY);
    let (domain, total) = walk(&server, "&domain=domain3", 333).await;
    let expected = (0..MANY as u64).filter(|number| number % 7 == 3).count();
    assert_eq!((domain.len(), total), (expected, expected as u64));
    let (rings, _) = walk(&server, "&mode=ring&domain=domain3", 100).await;
    assert_eq!(rings.len(), (0..MANY as u64).filter(|number| number % 70 == 59).count());

    let last = Add(MANY as u64 - 2);
    for path in [format!("/kernels/{}", last.id()), "/kernels/alias/9998".to_owned()] {
        assert_eq!(server.get(&path).await.json()["id"], last.id());
        let response = server.post(&format!("{path}/execute"), &json!(1)).await;
        assert_eq!(response.json()["output"], 9999);
    }
    let document = json!({"kernel_id": last.id(), "input": 2});
    assert_eq!(server.post("/execute", &document).await.json()["output"], 10_000);
    let health = server.get("/health").await.json();
    assert_eq!(
        (&health["status"], &health["components"]["registry"]["kernel_count"]),
        (&"healthy".into(), &MANY.into())
    );
    let openapi = server.get("/openapi.json").await.json();
    let executed = openapi["paths"].as_object().unwrap().keys().filter(|path| path.ends_with("/execute")).count();
    assert_eq!(executed, MANY * 9 / 10 + 1);
}

fn figure(page: &HttpResponse, line: &str) -> Option<f64> {
    page.body.lines().find_map(|this| this.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test]
async fn metrics_of_ten_thousand_kernels_are_bounded_and_exact() {
    let registry = many();
    let server = serve(Arc::clone(&registry)).await;
    let before = server.get("/metrics").await;
    // No ring kernels among them.
    let called: Vec<_> = (0..MANY as u64).step_by(8).collect();
    for number in &called {
        let path = format!("/kernels/{}/execute", Add(*number).id());
        assert_eq!(server.post(&path, &json!(1)).await.status, 200);
    }
    for _ in 0..100 {
        server.post("/execute", &json!({"kernel_id": "no/such", "input": 1})).await.problem(404, "not_found");
    }
    let page = server.get("/metrics").await;
    assert_eq!(figure(&page, "kernel_http_responses_total{code=\"ok\"}"), Some(called.len() as f64));
    let sum = |prefix: &str, suffix: &str| -> (usize, f64) {
        let lines = page.body.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once(suffix));
        let figures: Vec<f64> = lines.map(|(_, figure)| figure.trim().parse().unwrap()).collect();
        (figures.len(), figures.iter().sum())
    };
    // Nothing is lost: those that are too many for series of their own share one, and so do their domains.
    let (series, calls) = sum("kernel_requests_total{", "outcome=\"ok\"}");
    assert_eq!((series, calls), (1024 + 1, called.len() as f64));
    let (domains, calls) = sum("kernel_domain_requests_total{", "outcome=\"ok\"}");
    assert_eq!((domains, calls), (7 + 1, called.len() as f64));
    assert_eq!(figure(&page, "kernel_domain_requests_total{domain=\"unknown\",outcome=\"not_found\"}"), Some(100.0));
    assert_eq!(sum("kernel_registered{", "mode=\"batch\"}"), (7, 9000.0));
    assert!(before.body.len() < 100_000, "{} bytes before any call", before.body.len());

    // With fewer series than kernels the others share one, and nothing is lost.
    use tower::Layer as _;
    use tower_kernels::layers::MetricsLayer;
    use tower_kernels::service::KernelService;
    let layer = MetricsLayer::new().max_operations(16);
    let kernels = KernelService::new(registry);
    let router = KernelRouter::with_service(layer.layer(kernels.clone()), &kernels, RouterConfig::default());
    let server = Server::serve(router.into_router()).await;
    for number in (0..MANY as u64).step_by(100) {
        assert_eq!(server.post(&format!("/kernels/alias/{number}/execute"), &json!(1)).await.status, 200);
    }
    let page = layer.handle().render();
    let totals: Vec<_> = page.lines().filter(|line| line.starts_with("kernel_requests_total{")).collect();
    let sum: f64 = totals.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!(totals.len() <= 18, "{totals:?}");
    assert_eq!(sum, 100.0);
}

#[tokio::test]
async fn an_empty_registry_is_served() {
    let server = serve(Arc::new(KernelRegistry::new())).await;
    assert_eq!(server.get("/kernels").await.json(), json!({"kernels": [], "total": 0}));
    assert_eq!(server.get("/kernels?domain=a&mode=ring&after=b").await.json()["total"], 0);
    server.get("/kernels/a/b").await.problem(404, "not_found");
    server.post("/kernels/a/b/execute", &json!(1)).await.problem(404, "not_found");
    server.post("/execute", &json!({"kernel_id": "a/b", "input": 1})).await.problem(404, "not_found");
    let health = server.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &"degraded".into()));
    let page = server.request("GET", "/metrics", &[("accept", "application/openmetrics-text")], b"").await;
    assert!(page.body.ends_with("# EOF\n"), "{}", page.body);
    let openapi: Value = server.get("/openapi.json").await.json();
    assert!(
        openapi["paths"]["/execute"]["post"]["requestBody"]["content"]["application/json"].get("example").is_none()
    );
    assert_eq!(openapi["tags"].as_array().unwrap().len(), 4);
}

/// `cargo test --release --features full --test servers -- --ignored --nocapture figures`
#[tokio::test]
#[ignore = "prints figures"]
async fn figures_of_ten_thousand_kernels() {
    let begun = Instant::now();
    let registry = many();
    println!("register {MANY}: {:?}", begun.elapsed());
    let ids: Vec<_> = registry.list().iter().map(|kernel| kernel.info().id.clone()).collect();
    let begun = Instant::now();
    let found = (0..100).flat_map(|_| &ids).filter(|id| registry.get(id).is_some()).count();
    println!("look up one of {MANY}: {:?}", begun.elapsed() / found as u32);
    let small = KernelRegistry::new();
    tower_kernels::kernels::register_all(&small).unwrap();
    let begun = Instant::now();
    let found = (0..1_000_000).filter(|_| small.get("linalg/saxpy").is_some()).count();
    println!("look up one of 4: {:?}", begun.elapsed() / found as u32);
    let begun = Instant::now();
    let router = KernelRouter::new(Arc::clone(&registry), RouterConfig::default()).into_router();
    println!("make the router of {MANY}: {:?}", begun.elapsed());
    for (what, server) in [("4", serve(Arc::new(small)).await), ("10 000", Server::serve(router).await)] {
        for time in ["made", "cached"] {
            let begun = Instant::now();
            let bytes = server.get("/openapi.json").await.body.len();
            println!("/openapi.json of {what}, {time}: {:?}, {bytes} bytes", begun.elapsed());
        }
        for path in ["/kernels?limit=1000", "/metrics", "/health"] {
            let begun = Instant::now();
            let bytes = server.get(path).await.body.len();
            println!("{path} of {what}: {:?}, {bytes} bytes", begun.elapsed());
        }
    }
}
