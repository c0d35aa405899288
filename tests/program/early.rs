//! Requests whose response comes before their body was read.

use std::net::SocketAddr;
use std::time::Duration;

use crate::auth::with_keys;
use crate::connection::Connection;
use crate::frames::Client;
use crate::support::process::{SAXPY, Server};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
/// Longer than a server needs to respond to a head, and shorter than it waits for a body.
const LATER: Duration = Duration::from_millis(200);

type Headers = &'static [(&'static str, &'static str)];

/// Requests that are rejected by their head, with the code of the rejection.
const REJECTED: [(&str, Headers, &str); 5] = [
    ("/nowhere", &[("content-type", "application/json")], "not_found"),
    ("/kernels/none/such/execute", &[("content-type", "application/json")], "not_found"),
    ("/health", &[("content-type", "application/json")], "method_not_allowed"),
    (EXECUTE, &[("content-type", "text/plain")], "unsupported_media_type"),
    (EXECUTE, &[("content-type", "application/json"), ("grpc-timeout", "soon")], "invalid_argument"),
];

/// Asserts that a body which arrives after the server could have responded is read, so that no reset follows.
fn assert_no_reset(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut client = Client::connect(to);
    client.head(1, path, headers);
    std::thread::sleep(LATER);
    let (first, last) = body.split_at(body.len() / 2);
    client.body(1, first, false);
    client.body(1, last, true);
    let sent = client.response(1);
    // Frames of the first stream arrive before the end of the next one.
    for stream in [3, 5] {
        client.head(stream, path, headers);
        client.body(stream, body, true);
        assert_eq!(client.response(stream).resets, [], "{path} {headers:?}: {sent:?}");
    }
    assert_eq!(sent.resets, [], "{path} {headers:?}");
    sent.body()
}

#[test]
fn over_http2_a_rejected_request_with_a_small_body_is_not_reset() {
    let server = Server::start(&[]);
    for (path, headers, code) in REJECTED {
        let body = assert_no_reset(server.rest, path, headers, SAXPY.as_bytes());
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{path} {headers:?}: {body}");
    }
    let server = with_keys(&[]);
    let body = assert_no_reset(server.rest, EXECUTE, &[("content-type", "application/json")], SAXPY.as_bytes());
    assert!(body.contains("unauthenticated"), "{body}");
}

#[test]
fn over_http2_a_rejected_request_with_a_long_body_can_send_it() {
    let server = Server::start(&[]);
    // Less than the initial window.
    let piece = vec![b' '; 16 << 10];
    for (path, headers, code) in REJECTED {
        let mut client = Client::connect(server.rest);
        client.head(1, path, headers);
        let rejected = client.response(1);
        assert!(rejected.body().contains(code), "{path}: {rejected:?}");
        for sent in 1..=24 {
            client.body(1, &piece, sent == 24);
        }
        client.head(3, path, headers);
        client.body(3, b"{}", true);
        assert_eq!((rejected.resets, client.response(3).resets), (vec![], vec![]), "{path} {headers:?}");
    }
}

#[test]
fn over_grpc_a_rejected_call_is_not_reset() {
    let server = with_keys(&[]);
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    for path in ["/tower_kernels.v1.Kernel/Execute", "/tower_kernels.v1.Kernel/ExecuteStream", "/no.such.Service/Call"]
    {
        // An empty message.
        assert_no_reset(server.grpc, path, &headers, &[0; 5]);
    }
    // A client that opens a stream and sends nothing gets a response.
    let mut client = Client::connect(server.grpc);
    client.head(1, "/tower_kernels.v1.Kernel/ExecuteStream", &headers);
    assert_eq!(client.response(1).resets, []);
}

#[test]
fn over_http1_no_request_after_one_with_a_long_body_is_lost() {
    let (open, closed) = (Server::start(&[]), with_keys(&[]));
    let long = vec![b' '; 3_000_000];
    let length = long.len().to_string();
    let rejected = REJECTED.map(|(path, headers, _)| (&open, "POST", path, headers));
    let keyless = (&closed, "POST", EXECUTE, REJECTED[0].1);
    let to_get = (&open, "GET", "/health/live", &[][..]);
    for (server, method, path, headers) in rejected.into_iter().chain([keyless, to_get]) {
        let mut connection = Connection::open(server.rest);
        for _ in 0..30 {
            connection.head(method, path, &[headers, &[("content-length", &length)]].concat());
            connection.body(&long);
            let closes = connection.response().closes();
            if closes {
                connection = Connection::open(server.rest);
            }
            connection.head("GET", "/health/live", &[]);
            assert_eq!(connection.response().status, 200, "{method} {path} {headers:?}");
            // A body this long is not read only to be dropped.
            assert!(closes, "{method} {path} {headers:?}");
        }
    }
}

#[test]
fn over_http1_the_connection_of_a_rejected_request_with_a_small_body_stays_open() {
    let (open, closed) = (Server::start(&[]), with_keys(&[]));
    let length = SAXPY.len().to_string();
    let rejected = REJECTED.map(|(path, headers, _)| (&open, "POST", path, headers));
    let keyless = (&closed, "POST", EXECUTE, REJECTED[0].1);
    for (server, method, path, headers) in rejected.into_iter().chain([keyless, (&open, "GET", "/health/live", &[])]) {
        let mut connection = Connection::open(server.rest);
        let chunked = format!("{:x}\r\n{SAXPY}\r\n0\r\n\r\n", SAXPY.len());
        for (framing, body) in [(("content-length", &*length), SAXPY), (("transfer-encoding", "chunked"), &chunked)] {
            connection.head(method, path, &[headers, &[framing]].concat());
            std::thread::sleep(LATER);
            let (first, last) = body.split_at(body.len() / 2);
            connection.body(first.as_bytes());
            std::thread::sleep(LATER / 10);
            connection.body(last.as_bytes());
            let response = connection.response();
            assert!(!response.closes(), "{method} {path} {headers:?}: {response:?}");
        }
        connection.head("GET", "/health/live", &[]);
        assert_eq!(connection.response().status, 200, "{method} {path} {headers:?}");
    }
}

#[test]
fn over_http1_a_missing_body_closes_the_connection_and_the_response_says_so() {
    let server = Server::start(&[]);
    // A part of the body arrives, or the client waits for `100 Continue`.
    let parts = [(("accept", "*/*"), &b"{"[..]), (("expect", "100-continue"), b"")];
    let requests = REJECTED.into_iter().flat_map(|request| parts.map(|part| (request, part)));
    let sent: Vec<_> = requests
        .map(|((path, headers, code), (more, part))| {
            let mut connection = Connection::open(server.rest);
            connection.head("POST", path, &[headers, &[("content-length", "100"), more]].concat());
            connection.body(part);
            (connection, code, format!("{path} {more:?}"))
        })
        .collect();
    for (mut connection, code, what) in sent {
        let response = connection.response();
        assert!(response.body.contains(code) && response.closes(), "{what}: {response:?}");
        assert_eq!(connection.rest(), b"", "{what}");
    }
}
