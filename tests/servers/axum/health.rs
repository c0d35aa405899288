//! What probes and scrapers are told.

use serde_json::json;

use crate::axum::server::Server;

#[tokio::test]
async fn health_tells_of_its_components() {
    let server = Server::start().await;
    let health = server.get("/health").await;
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")));
    let health = health.json();
    let components = &health["components"];
    assert_eq!((&health["status"], &health["draining"]), (&"healthy".into(), &false.into()));
    assert_eq!(components["registry"]["status"], "healthy");
    let listed = server.get("/kernels").await.json();
    assert_eq!(components["registry"]["kernel_count"], listed["total"]);
    assert_eq!(
        (&components["execution"]["status"], &components["execution"]["error_rate"]),
        (&"healthy".into(), &0.0.into())
    );
    assert!(components["cpu"]["processors"].as_u64().unwrap() > 0);
    // A device or the reason why there is none.
    let cuda = &components["cuda"];
    assert!(
        cuda["status"] == "healthy" && cuda["name"].is_string()
            || cuda["status"] == "off" && cuda["reason"].is_string()
    );
    assert_eq!(server.get("/health/live").await.status, 200);
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn faults_show_in_the_error_rate_and_rejections_do_not() {
    let server = Server::start().await;
    for _ in 0..15 {
        server.post("/kernels/test/panics/execute", &json!(true)).await.problem(500, "internal");
        server.post("/kernels/test/panics/execute", &json!("yes")).await.problem(400, "invalid_argument");
    }
    let health = server.get("/health").await.json();
    let execution = &health["components"]["execution"];
    assert_eq!((&execution["error_rate"], &execution["executions"]), (&0.5.into(), &30.into()));
    assert_eq!((&health["status"], &execution["status"]), (&"degraded".into(), &"degraded".into()));
    server.post("/kernels/test/panics/execute", &json!(true)).await.problem(500, "internal");
    let health = server.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &"unhealthy".into()));
    // One client's bad kernel does not take the server away from all others.
    assert_eq!(server.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn once_it_drains_it_is_not_ready_and_continues_to_serve() {
    let server = Server::start().await;
    server.drain.drain();
    let ready = server.get("/health/ready").await;
    assert!(ready.problem(503, "unavailable").contains("draining"));
    assert!(ready.header("retry-after").is_some());
    assert_eq!(server.get("/health/live").await.status, 200);
    assert_eq!(server.get("/health").await.json()["draining"], true);
    assert_eq!(server.post("/kernels/test/nap/execute", &json!({"millis": 1})).await.status, 200);
}

#[tokio::test]
async fn metrics_are_broken_down_by_domain() {
    let server = Server::start().await;
    for _ in 0..2 {
        server.post("/kernels/linalg/saxpy/execute", &json!({"a": 1.0, "x": [1.0], "y": [1.0]})).await;
        server.post("/kernels/rest/nap/execute", &json!({"millis": 1})).await;
    }
    server.post("/kernels/test/panics/execute", &json!(true)).await;
    server.post("/execute", &json!({"kernel_id": "no/such", "input": 1})).await;
    let page = server.get("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        r#"kernel_domain_requests_total{domain="linalg",outcome="ok"} 2"#,
        // By an alias whose first word is another.
        r#"kernel_domain_requests_total{domain="test",outcome="ok"} 2"#,
        r#"kernel_domain_requests_total{domain="test",outcome="internal"} 1"#,
        r#"kernel_domain_requests_total{domain="unknown",outcome="not_found"} 1"#,
        r#"kernel_registered{domain="test",mode="batch"} 2"#,
        r#"kernel_registered{domain="orderbook",mode="ring"} 1"#,
        r#"kernel_http_responses_total{code="ok"} 4"#,
        r#"kernel_http_responses_total{code="not_found"} 1"#,
    ] {
        assert!(page.body.lines().any(|this| this == line), "{line} is not in\n{}", page.body);
    }
    let slept = server.metric(r#"kernel_domain_request_duration_seconds_total{domain="test",outcome="ok"}"#).await;
    assert!(slept.is_some_and(|seconds| (0.002..10.0).contains(&seconds)), "{slept:?}");
}
