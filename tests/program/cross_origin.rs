//! CORS headers of all responses, whichever layer writes them.

use crate::auth::with_keys;
use crate::connection::{Connection, Response};
use crate::support::process::{SAXPY, Server};

const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
const ORIGIN: (&str, &str) = ("origin", "https://app.example");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Asserts that a script can read the rejection and its request id.
#[track_caller]
fn assert_readable(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{response:?}");
    let exposed = response.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    let id = response.header("x-request-id");
    assert!(id.is_some() && response.json()["request_id"].as_str() == id, "{response:?}");
}

#[track_caller]
fn assert_allowed(preflight: &Response, asked: &str) {
    assert_eq!(preflight.status, 200, "{preflight:?}");
    let allowed = preflight.header("access-control-allow-headers").unwrap().to_lowercase();
    let allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
    assert!(asked.split(',').all(|header| allowed.contains(&header)), "{asked}: {preflight:?}");
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"), "{preflight:?}");
    assert!(preflight.header("access-control-max-age").is_some(), "{preflight:?}");
}

fn preflight(connection: &mut Connection, asked: &str) -> Response {
    let headers = [ORIGIN, ("access-control-request-method", "POST"), ("access-control-request-headers", asked)];
    connection.head("OPTIONS", EXECUTE, &headers);
    connection.response()
}

#[test]
fn a_preflight_needs_no_credentials_and_allows_them() {
    let server = with_keys(&["--rest-cors"]);
    let mut connection = Connection::open(server.rest);
    for asked in ["authorization", "authorization,content-type,x-request-id,traceparent,grpc-timeout", "x-api-key"] {
        assert_allowed(&preflight(&mut connection, asked), asked);
    }
    let key = ("x-api-key", crate::auth::KEY);
    let response = connection.call("POST", EXECUTE, &[ORIGIN, JSON, key], SAXPY);
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("*")));
}

#[test]
fn every_rejection_is_readable_by_scripts_and_has_its_request_id() {
    let server = Server::start(&["--rest-cors", "--rest-max-request-size=64"]);
    let mut connection = Connection::open(server.rest);
    for (method, path, headers, body, status) in [
        ("POST", "/nowhere", &[JSON][..], SAXPY, 404),
        ("POST", "/health", &[JSON], SAXPY, 405),
        ("PUT", EXECUTE, &[JSON], SAXPY, 405),
        ("POST", EXECUTE, &[("content-type", "text/plain")], SAXPY, 415),
        ("POST", EXECUTE, &[JSON, ("grpc-timeout", "soon")], SAXPY, 400),
        ("POST", EXECUTE, &[JSON], "{}", 400),
        ("POST", EXECUTE, &[JSON], &SAXPY.repeat(2), 413),
    ] {
        let response = connection.call(method, path, &[&[ORIGIN], headers].concat(), body);
        assert_readable(&response, status);
        if response.closes() {
            connection = Connection::open(server.rest);
        }
    }

    let server = with_keys(&["--rest-cors"]);
    let mut connection = Connection::open(server.rest);
    for path in [EXECUTE, "/nowhere", "/metrics"] {
        assert_readable(&connection.call("POST", path, &[ORIGIN, JSON], SAXPY), 401);
        let named = connection.call("POST", path, &[ORIGIN, JSON, ("x-request-id", "job-7")], SAXPY);
        assert_readable(&named, 401);
        assert_eq!(named.header("x-request-id"), Some("job-7"));
        assert!(named.header("www-authenticate").is_some());
    }
}

#[test]
fn a_401_has_its_request_id_without_cors_too() {
    let server = with_keys(&[]);
    let response = Connection::open(server.rest).call("POST", EXECUTE, &[ORIGIN, JSON], SAXPY);
    assert_eq!((response.status, response.header("access-control-allow-origin")), (401, None));
    assert_eq!(response.json()["request_id"].as_str(), response.header("x-request-id"));
}

#[test]
fn the_rejection_of_a_full_server_is_readable_by_scripts() {
    let server = Server::start(&["--rest-cors", "--connections-max=1", "--connections-health-reserve=2"]);
    let mut only = Connection::open(server.rest);
    assert_eq!(only.call("GET", "/health/live", &[], "").status, 200);
    let mut reserved = Connection::open(server.rest);
    assert_allowed(&preflight(&mut reserved, "authorization"), "authorization");
    let response = reserved.call("POST", EXECUTE, &[ORIGIN, JSON, ("x-request-id", "job-8")], SAXPY);
    assert_readable(&response, 503);
    assert_eq!(response.header("x-request-id"), Some("job-8"));
    assert!(response.closes());
    assert_eq!(only.call("GET", "/health/live", &[], "").status, 200);
}
