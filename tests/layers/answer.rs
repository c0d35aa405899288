use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::layers::ErrorResponseLayer;
use tower_kernels::middleware::error_response::ErrorResponse;

/// Two levels, of which the outer classifies.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the stack refuses")]
struct Refuses(ErrorKind, #[source] Because);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("100 % of it is in use")]
struct Because;

impl Classify for Refuses {
    fn kind(&self) -> ErrorKind {
        self.0
    }
    fn retry_after(&self) -> Option<Duration> {
        (self.0 == ErrorKind::Overloaded).then_some(Duration::from_millis(1200))
    }
}

fn refusing(kind: ErrorKind) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Refuses> {
    service_fn(move |_: Request<()>| std::future::ready(Err(Refuses(kind, Because))))
}

fn of_type(content_type: &'static str) -> Request<()> {
    Request::builder().header(header::CONTENT_TYPE, content_type).body(()).unwrap()
}

async fn document(response: Response<Full<Bytes>>) -> serde_json::Value {
    let Ok(body) = response.into_body().collect().await;
    serde_json::from_slice(&body.to_bytes()).unwrap()
}

#[tokio::test]
async fn every_kind_has_its_status_in_both_protocols() {
    for kind in ErrorKind::ALL {
        let Ok(http) = ErrorResponseLayer::new().layer(refusing(kind)).oneshot(Request::new(())).await;
        assert_eq!(http.status(), kind.http_status());
        assert_eq!(http.headers()[header::CONTENT_TYPE], "application/problem+json");
        let document = document(http).await;
        assert_eq!(document["code"], kind.code());
        assert_eq!(document["status"], kind.http_status());
        let hidden = "an internal error; the server's log says more about this request";
        let is_internal = kind == ErrorKind::Internal;
        assert_eq!(document["detail"], if is_internal { hidden } else { "the stack refuses: 100 % of it is in use" });
        assert!(!document["title"].as_str().unwrap().is_empty());

        let Ok(grpc) = ErrorResponseLayer::new().layer(refusing(kind)).oneshot(of_type("application/grpc+proto")).await;
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers()[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(grpc.headers()["grpc-status"], kind.grpc_code().to_string());
        let told = if is_internal { hidden } else { "the stack refuses: 100 %25 of it is in use" };
        assert_eq!(grpc.headers()["grpc-message"], told);
        assert!(grpc.body().is_end_stream(), "a status in the headers ends the stream");
    }
}

#[tokio::test]
async fn when_to_retry_is_in_the_headers() {
    let Ok(http) = ErrorResponseLayer::http().layer(refusing(ErrorKind::Overloaded)).oneshot(Request::new(())).await;
    assert_eq!(http.headers()[header::RETRY_AFTER], "2", "whole seconds, and not too soon");
    let Ok(unknown) =
        ErrorResponseLayer::http().layer(refusing(ErrorKind::Unavailable)).oneshot(Request::new(())).await;
    assert_eq!(unknown.headers()[header::RETRY_AFTER], "1");
    let Ok(never) = ErrorResponseLayer::http().layer(refusing(ErrorKind::NotFound)).oneshot(Request::new(())).await;
    assert_eq!(never.headers().get(header::RETRY_AFTER), None);
    let Ok(grpc) = ErrorResponseLayer::grpc().layer(refusing(ErrorKind::Overloaded)).oneshot(Request::new(())).await;
    assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "1200");
}

#[tokio::test]
async fn the_content_type_decides_unless_the_protocol_is_fixed() {
    for (content_type, is_grpc) in
        [("application/grpc", true), ("application/grpc-web-text", true), ("application/json", false), ("", false)]
    {
        let Ok(response) =
            ErrorResponseLayer::new().layer(refusing(ErrorKind::Internal)).oneshot(of_type(content_type)).await;
        assert_eq!(response.headers().contains_key("grpc-status"), is_grpc, "{content_type}");
    }
    let Ok(http) =
        ErrorResponseLayer::http().layer(refusing(ErrorKind::Internal)).oneshot(of_type("application/grpc")).await;
    assert_eq!(http.status(), 500);
    let Ok(grpc) = ErrorResponseLayer::grpc().layer(refusing(ErrorKind::Internal)).oneshot(Request::new(())).await;
    assert_eq!(grpc.headers()["grpc-status"], "13");
}

#[tokio::test]
async fn what_is_answered_is_passed_on_as_it_is() {
    let fails = service_fn(|_: Request<()>| {
        let response =
            Response::builder().status(500).header("x-mine", "1").body(Full::<Bytes>::from("its own")).unwrap();
        std::future::ready(Ok::<_, Refuses>(response))
    });
    let Ok(response) = ErrorResponseLayer::new().layer(fails).oneshot(Request::new(())).await;
    assert_eq!((response.status().as_u16(), response.headers().len()), (500, 1));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "its own");
}

/// Fails to become ready as often as it says, and answers after that.
#[derive(Clone, Debug)]
struct Recovers {
    failures: usize,
    ready: bool,
}

impl Service<Request<()>> for Recovers {
    type Response = Response<Full<Bytes>>;
    type Error = Refuses;
    type Future = std::future::Ready<Result<Self::Response, Refuses>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refuses>> {
        if self.failures > 0 {
            self.failures -= 1;
            return Poll::Ready(Err(Refuses(ErrorKind::Unavailable, Because)));
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        std::future::ready(Ok(Response::new(Full::default())))
    }
}

async fn status<S>(service: &mut ErrorResponse<S>) -> u16
where
    ErrorResponse<S>: Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible>,
{
    let Ok(service) = service.ready().await;
    let Ok(response) = service.call(Request::new(())).await;
    response.status().as_u16()
}

#[tokio::test]
async fn a_failure_to_become_ready_is_the_answer_to_the_next_call() {
    let mut service = ErrorResponseLayer::new().layer(Recovers { failures: 2, ready: false });
    // Asked twice before the call, it is one failure and one answer.
    service.ready().await.unwrap();
    assert_eq!(status(&mut service).await, 503);
    assert_eq!(service.get_ref().failures, 1);
    assert_eq!(status(&mut service).await, 503);
    assert_eq!(status(&mut service).await, 200);

    let mut service = ErrorResponseLayer::new().layer(Recovers { failures: 1, ready: false });
    service.ready().await.unwrap();
    assert_eq!(status(&mut service.clone()).await, 200, "a clone asks for itself");
    assert_eq!(status(&mut service).await, 503);
}

/// Refuses with what it is given, and would answer with a body of type `B`.
fn refusing_with_body<B>() -> impl Service<Request<()>, Response = Response<B>, Error = Refuses> {
    service_fn(|_: Request<()>| std::future::ready(Err(Refuses(ErrorKind::Overloaded, Because))))
}

async fn answers_with_body<B>(layered: impl Service<Request<()>, Response = Response<B>, Error = Infallible>)
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let Ok(response) = layered.oneshot(Request::new(())).await;
    assert_eq!(response.status(), 503);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["code"], "overloaded");
}

#[tokio::test]
async fn every_body_of_a_server_can_hold_an_answer() {
    use http_body_util::StreamBody;
    use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
    use tower_kernels::middleware::error_response::any_body;

    answers_with_body(ErrorResponseLayer::new().layer(refusing_with_body::<axum::body::Body>())).await;
    let boxed = refusing_with_body::<BoxBody<Bytes, std::io::Error>>().map_response(any_body);
    answers_with_body(ErrorResponseLayer::new().layer(boxed)).await;
    let unsync = refusing_with_body::<UnsyncBoxBody<Bytes, Infallible>>().map_response(any_body);
    answers_with_body(ErrorResponseLayer::http().layer(unsync)).await;
    let tonic = refusing_with_body::<tonic::body::Body>().map_response(any_body);
    answers_with_body(ErrorResponseLayer::new().layer(tonic)).await;
    type Frames = futures::stream::Empty<Result<http_body::Frame<Bytes>, std::io::Error>>;
    let stream = refusing_with_body::<StreamBody<Frames>>().map_response(any_body);
    answers_with_body(ErrorResponseLayer::new().layer(stream)).await;
}

#[tokio::test]
async fn a_body_of_another_type_is_passed_on_as_it_is() {
    use http_body_util::combinators::BoxBody;
    use tower_kernels::middleware::error_response::any_body;

    let says = |text: &'static str| {
        service_fn(move |_: Request<()>| {
            std::future::ready(Ok::<_, Refuses>(Response::new(BoxBody::new(Full::new(Bytes::from(text))))))
        })
    };
    let Ok(response) =
        ErrorResponseLayer::new().layer(says("its own").map_response(any_body)).oneshot(Request::new(())).await;
    assert_eq!(response.body().size_hint().exact(), Some(7));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "its own");
    let Ok(response) = ErrorResponseLayer::new().layer(says("").map_response(any_body)).oneshot(Request::new(())).await;
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn a_status_of_grpc_has_no_body_whatever_its_type() {
    use http_body_util::combinators::BoxBody;
    use tower_kernels::middleware::error_response::any_body;

    let boxed = || refusing_with_body::<BoxBody<Bytes, Infallible>>();
    let Ok(grpc) =
        ErrorResponseLayer::new().layer(boxed().map_response(any_body)).oneshot(of_type("application/grpc")).await;
    assert!(grpc.body().is_end_stream(), "a status in the headers ends the stream");
    let Ok(grpc) = ErrorResponseLayer::grpc().layer(boxed()).oneshot(Request::new(())).await;
    assert!(grpc.body().is_end_stream(), "a status in the headers ends the stream");
}
