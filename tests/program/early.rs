//! Requests that are answered before their body was read.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::File;
use crate::frames::Client;
use crate::process::{SAXPY, Server};

// Of `correct-horse-battery-staple`.
const SHA256: &str = "87cbebfeebc05f7c54ac9336c4b4bbec831227a641951a4bde7edd56020f8590";
const EXECUTE: &str = "/kernels/linalg/saxpy/execute";
/// Longer than a server needs to answer a head, and shorter than it waits for a body.
const LATER: Duration = Duration::from_millis(200);

fn with_keys(args: &[&str]) -> Server {
    let keys = File::new(&format!("[[api_keys]]\ntenant = \"acme\"\nkey_sha256 = \"{SHA256}\"\n"));
    Server::start(&[&["--auth-api-keys-file", keys.path()], args].concat())
}

/// Requests that are refused by their head, with the code of the refusal.
const REFUSED: [(&str, &[(&str, &str)], &str); 5] = [
    ("/nowhere", &[("content-type", "application/json")], "not_found"),
    ("/kernels/none/such/execute", &[("content-type", "application/json")], "not_found"),
    ("/health", &[("content-type", "application/json")], "method_not_allowed"),
    (EXECUTE, &[("content-type", "text/plain")], "unsupported_media_type"),
    (EXECUTE, &[("content-type", "application/json"), ("grpc-timeout", "soon")], "invalid_argument"),
];

/// A body that comes after the server could have answered is read before the response ends, so that no reset follows.
fn assert_no_reset(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut client = Client::connect(to);
    client.head(1, path, headers);
    std::thread::sleep(LATER);
    let (first, last) = body.split_at(body.len() / 2);
    client.body(1, first, false);
    client.body(1, last, true);
    let sent = client.response(1);
    // What the server has to say of the first stream comes before the end of the next one.
    for stream in [3, 5] {
        client.head(stream, path, headers);
        client.body(stream, body, true);
        assert_eq!(client.response(stream).resets, [], "{path} {headers:?}: {sent:?}");
    }
    assert_eq!(sent.resets, [], "{path} {headers:?}");
    sent.body()
}

#[test]
fn over_http2_a_refused_request_with_a_small_body_is_not_reset() {
    let server = Server::start(&[]);
    for (path, headers, code) in REFUSED {
        let body = assert_no_reset(server.rest, path, headers, SAXPY.as_bytes());
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{path} {headers:?}: {body}");
    }
    let server = with_keys(&[]);
    let body = assert_no_reset(server.rest, EXECUTE, &[("content-type", "application/json")], SAXPY.as_bytes());
    assert!(body.contains("unauthenticated"), "{body}");
}
