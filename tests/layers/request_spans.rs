//! Requests of a server have one span, whichever layers are below.

use std::convert::Infallible;

use http_body::Body;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::layers::TracingLayer;
use tower_kernels::requests::{RequestBody, RequestMetrics, Transport};
use tracing::Level;

use crate::support::logs::{Log, capture};
use crate::tracing::Notes;

#[tokio::test]
async fn a_request_of_a_server_has_one_span_with_its_id() {
    let log = Log::default();
    let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(Level::WARN);
    let guard = capture(lines.with_writer(log.clone()).finish());
    let handler = service_fn(|_: http::Request<RequestBody<String>>| async move {
        tracing::warn!(target: "handler", "inside");
        Ok::<_, Infallible>(http::Response::new(String::new()))
    });
    // Below the level of the layer, whose own span nobody would see.
    let traced = TracingLayer::new().layer(handler);
    let mut server = RequestMetrics::new().layer(Transport::Rest).layer(traced);
    let request = http::Request::get("/").header("x-request-id", "job-7").body(String::new()).unwrap();
    drop(server.ready().await.unwrap().call(request).await.unwrap());
    drop(guard);
    let span = r#"request{request_id="job-7" otel.kind="server" otel.name="GET" priority="normal"}"#;
    assert_eq!(log.text(), format!(" WARN {span}: handler: inside\n"));
}

#[tokio::test]
async fn a_name_that_is_none_is_replaced_and_an_internal_layer_has_a_span_of_its_own() {
    let notes = Notes::new(Level::INFO);
    let guard = capture(notes.clone());
    let handler = service_fn(|request: http::Request<RequestBody<String>>| async move {
        let ids = request.headers().get_all("x-request-id").iter();
        let ids: Vec<_> = ids.map(|id| id.to_str().unwrap().to_owned()).collect();
        Ok::<_, Infallible>(http::Response::new(ids.join(" ")))
    });
    let traced = TracingLayer::new().internal().layer(handler);
    let mut server = RequestMetrics::new().layer(Transport::Rest).layer(traced);
    let request = http::Request::get("/").header("x-request-id", "not a name").body(String::new()).unwrap();
    let response = server.ready().await.unwrap().call(request).await.unwrap();
    let mut body = std::pin::pin!(response.into_body());
    let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
    let id = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    drop(guard);
    assert!(id.starts_with("req-") && !id.contains(' '), "{id}");
    assert_eq!(notes.spans.lock().unwrap().len(), 2);
}
