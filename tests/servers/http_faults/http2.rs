//! HTTP/2 without TLS, on the same port.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tower_kernels::hyper::ServerConfig;

use crate::http_faults::server::{RUN_NAP, RUN_SAXPY, SAXPY, Server, Setup};

async fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(server.say("").await);
    let (client, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::post(format!("http://test{path}")).header(header::CONTENT_TYPE, "application/json");
    request.body(Full::from(body)).unwrap()
}

async fn body(response: Response<Incoming>) -> serde_json::Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn many_requests_share_a_connection_until_it_is_idle() {
    let short = Duration::from_millis(200);
    let limits = ServerConfig { head_timeout: short, idle_timeout: short * 10, ..ServerConfig::default() };
    for server in Server::all(&Setup { limits, ..Setup::default() }) {
        let client = connect(&server).await;
        for _ in 0..2 {
            let requests = (0..100).map(|_| client.clone().send_request(post(RUN_SAXPY, SAXPY)));
            for response in futures::future::join_all(requests.collect::<Vec<_>>()).await {
                let response = response.unwrap();
                assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
                assert_eq!(body(response).await["output"]["y"][0], 3.0);
            }
            // Longer than the head of a request of HTTP/1.1 may take.
            tokio::time::sleep(short * 3).await;
        }
        assert_eq!(server.connections.accepted(), 1);
        // The client answers pings, and asks nothing.
        server.until_open(0).await;
        assert_eq!(server.connections.idle(), 1);
    }
}

#[tokio::test]
async fn requests_that_are_dropped_and_clients_that_leave_cancel_their_kernels() {
    for server in Server::all(&Setup::default()) {
        let mut client = connect(&server).await;
        let nap = post(RUN_NAP, r#"{"millis": 600000}"#);
        let dropped = client.send_request(nap.clone());
        server.naps.until(1).await;
        drop(dropped);
        server.naps.until(0).await;
        let left = tokio::spawn(client.send_request(nap));
        server.naps.until(1).await;
        left.abort();
        drop(client);
        server.naps.until(0).await;
        assert_eq!((server.naps.done(), server.connections.requests_in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn when_stopped_it_completes_requests_in_flight_and_accepts_no_more() {
    for server in Server::all(&Setup::default()) {
        let mut client = connect(&server).await;
        let mut idle = connect(&server).await;
        assert_eq!(idle.send_request(post(RUN_SAXPY, SAXPY)).await.unwrap().status(), 200);
        let mut answer = tokio::spawn(client.send_request(post(RUN_NAP, r#"{"millis": 500}"#)));
        server.naps.until(1).await;
        server.stop.send(()).unwrap();
        while !client.is_closed() && !answer.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(idle.send_request(post(RUN_SAXPY, SAXPY)).await.is_err());
        let response = (&mut answer).await.unwrap().unwrap();
        assert_eq!(body(response).await["output"]["millis"][0], 500);
        server.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_that_outlast_the_drain_are_cancelled_and_counted() {
    for server in Server::all(&Setup { drain: Duration::from_millis(200), ..Setup::default() }) {
        let mut client = connect(&server).await;
        let nap = || post(RUN_NAP, r#"{"millis": 600000}"#);
        let responses = [tokio::spawn(client.send_request(nap())), tokio::spawn(client.send_request(nap()))];
        server.naps.until(2).await;
        server.stop.send(()).unwrap();
        let error = server.ended.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("2 requests on 1 connections were cancelled"), "{error}");
        server.naps.until(0).await;
        for response in responses {
            assert!(response.await.unwrap().is_err());
        }
        assert_eq!((server.naps.done(), server.connections.requests_in_flight()), (0, 0));
    }
}
