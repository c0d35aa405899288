//! `/metrics`, of the crate's own router and of a router of somebody's own: its formats, and that they are well formed.

use std::collections::BTreeSet;
use std::io::Read;

use axum::Router;
use axum::routing::get;
use tokio::io::AsyncReadExt;
use tower_kernels::layers::MetricsLayer;

use crate::axum::server::Server;
use crate::support::http_client::{HttpResponse, Wire};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What Prometheus 3 sends.
const PROMETHEUS: (&str, &str) = (
    "accept",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
     text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
);

async fn page(server: &Wire, headers: &[(&str, &str)]) -> HttpResponse {
    server.request("GET", "/metrics", headers, b"").await
}

/// The families of a page with their types. Panics where one comes twice or is empty, or where a sample is of none or of
/// another.
#[track_caller]
fn families(page: &str) -> BTreeSet<(String, String)> {
    let (mut families, mut current, mut samples) = (BTreeSet::new(), "", 1);
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(description) = line.strip_prefix("# ") {
            let [keyword, name, rest] = description.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            match keyword {
                "HELP" => {
                    assert!(samples > 0, "{current} is empty");
                    (current, samples) = (name, 0);
                }
                "TYPE" => assert!(families.insert((name.to_owned(), rest.to_owned())), "{name} comes twice"),
                "UNIT" => assert!(name.ends_with(rest), "{line}"),
                _ => panic!("{line}"),
            }
            assert_eq!((name, samples), (current, 0), "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            assert!(["", "_total", "_sum", "_count", "_bucket", "_info"].contains(&suffix), "{line}");
            samples += 1;
        }
    }
    assert!(samples > 0, "{current} is empty");
    families
}

/// The lines of the samples.
fn samples(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with('#')).collect()
}

#[tokio::test]
async fn the_routers_page_is_in_the_format_that_is_asked_for() {
    let server = Server::start().await;
    server.post("/kernels/linalg/saxpy/execute", &serde_json::json!({"a": 1.0, "x": [1.0], "y": [1.0]})).await;
    server.post("/execute", &serde_json::json!({"kernel_id": "no/such", "input": {}})).await;

    let text = page(&server, &[]).await;
    assert_eq!(text.header("content-type"), Some(TEXT));
    assert!(text.header("vary").is_some_and(|vary| vary.contains("accept, accept-encoding")), "{}", text.head);
    assert!(text.header("x-request-id").is_some(), "{}", text.head);
    let open_metrics = page(&server, &[PROMETHEUS]).await;
    assert_eq!(open_metrics.header("content-type"), Some(OPEN_METRICS));
    assert!(open_metrics.body.ends_with("\n# EOF\n") && !text.body.contains("# EOF"));

    let (in_text, in_open_metrics) = (families(&text.body), families(&open_metrics.body));
    let counters = |families: &BTreeSet<(String, String)>| {
        families.iter().filter(|(_, kind)| kind == "counter").map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let total = |name: String| name + "_total";
    assert_eq!(counters(&in_text), counters(&in_open_metrics).into_iter().map(total).collect::<Vec<_>>());
    assert_eq!(in_text.len(), in_open_metrics.len());
    for line in [
        r#"kernel_requests_total{operation="linalg/saxpy",backend="CPU",outcome="ok"} 1"#,
        r#"kernel_requests_total{operation="unknown",outcome="not_found"} 1"#,
    ] {
        assert!(samples(&text.body).contains(&line) && samples(&open_metrics.body).contains(&line), "{}", text.body);
    }
    assert!(!text.body.contains("kernel_panics"), "nothing has panicked:\n{}", text.body);
}

#[tokio::test]
async fn a_router_of_somebodys_own_shows_its_metrics_with_one_line() {
    let metrics = MetricsLayer::new().prefix("shop");
    let app = Router::new()
        .route("/users/{id}", get(async || "a user"))
        .layer(metrics.clone())
        .route("/metrics", metrics.handle().into_route());
    let server = Server::serve(app).await;
    for user in 0..3 {
        assert_eq!(server.get(&format!("/users/{user}")).await.status, 200);
    }
    let text = page(&server, &[]).await;
    assert_eq!((text.status, text.header("content-type")), (200, Some(TEXT)));
    let counted = r#"shop_requests_total{operation="GET /users/{id}",outcome="ok"} 3"#;
    assert!(samples(&text.body).contains(&counted), "{}", text.body);
    families(&text.body);

    let open_metrics = page(&server, &[PROMETHEUS]).await;
    assert_eq!(open_metrics.header("content-type"), Some(OPEN_METRICS));
    assert_eq!(samples(&open_metrics.body), samples(&text.body), "the page has counted itself");

    let head = server.request("HEAD", "/metrics", &[PROMETHEUS], b"").await;
    assert_eq!((head.status, head.header("content-type"), &*head.body), (200, Some(OPEN_METRICS), ""));
    assert_eq!(head.header("content-length"), open_metrics.header("content-length"));
    assert_eq!(server.request("POST", "/metrics", &[], b"").await.status, 405);
}

#[tokio::test]
async fn the_page_is_compressed_for_those_who_take_that() {
    let server = Server::start().await;
    for (accept_encoding, compressed) in
        [("gzip", true), ("gzip, deflate, br", true), ("identity", false), ("gzip;q=0", false), ("br", false)]
    {
        let headers = [PROMETHEUS, ("accept-encoding", accept_encoding)];
        let mut bytes = Vec::new();
        server.send("GET", "/metrics", &headers, b"").await.read_to_end(&mut bytes).await.unwrap();
        let body = 4 + bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let (head, mut body) = (String::from_utf8_lossy(&bytes[..body]).to_lowercase(), bytes[body..].to_vec());
        assert_eq!(head.contains("content-encoding: gzip"), compressed, "{accept_encoding}: {head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        if compressed {
            let mut page = Vec::new();
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut page).unwrap();
            assert!(page.len() > 3 * body.len(), "{} of {} bytes", body.len(), page.len());
            body = page;
        }
        assert!(body.ends_with(b"# EOF\n"), "{accept_encoding}");
        families(std::str::from_utf8(&body).unwrap());
    }
}
