//! Bodies that are wrong, too long, too late or do not end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::http_faults::server::{RUN_SAXPY, SAXPY, Server, Setup};
use crate::support::http_client::{HttpResponse, JSON, head, post};

fn document() -> String {
    format!(r#"{{"kernel_id": "linalg/saxpy", "input": {SAXPY}}}"#)
}

/// That limits are a hundred bytes and a little.
fn small() -> Setup {
    Setup { max_request_size: 1000, ..Setup::default() }
}

#[tokio::test]
async fn malformed_and_truncated_documents_are_rejected_and_the_connection_continues() {
    for server in Server::all(&Setup::default()) {
        let document = document();
        let mut stream = BufReader::new(server.say("").await);
        let truncated = (0..document.len()).map(|end| document.as_bytes()[..end].to_vec());
        let malformed = [&b"\xff\xfe"[..], b"{\"kernel_id\": \"\xc3\x28\", \"input\": 1}", b"nul", &[b'['; 100_000]];
        for body in truncated.chain(malformed.map(<[u8]>::to_vec)) {
            let head = head("POST", "/execute", &[JSON], Some(body.len()), true);
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            HttpResponse::next(&mut stream).await.unwrap().unwrap().problem(400, "invalid_argument");
        }
        stream.write_all(post("/execute", &document).as_bytes()).await.unwrap();
        let response = HttpResponse::next(&mut stream).await.unwrap().unwrap();
        assert_eq!((response.status, &response.json()["output"]), (200, &json!({"y": [3.0]})));
        server.until_open(1).await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_plain_json_is_rejected_by_its_type() {
    for server in Server::all(&Setup::default()) {
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[JSON, ("content-encoding", "gzip")],
        ] {
            let response = server.request("POST", "/execute", headers, document().as_bytes()).await;
            response.problem(415, "unsupported_media_type");
        }
        for content_type in ["application/json; charset=utf-8", "application/vnd.acme+json"] {
            let headers = [("content-type", content_type)];
            let response = server.request("POST", "/execute", &headers, document().as_bytes()).await;
            assert_eq!(response.status, 200, "{content_type}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_announced_or_not() {
    for server in Server::all(&small()) {
        let fits = format!("{:1000}", document());
        assert_eq!(server.request("POST", "/execute", &[JSON], fits.as_bytes()).await.status, 200);
        let over = format!("{:1001}", document());
        server.request("POST", "/execute", &[JSON], over.as_bytes()).await.problem(413, "too_large");

        let chunked = head("POST", "/execute", &[JSON, ("transfer-encoding", "chunked")], None, false);
        let stream = server.say(format!("{chunked}3E9\r\n{over}\r\n0\r\n\r\n")).await;
        HttpResponse::receive(stream).await.problem(413, "too_large");
    }
}

#[tokio::test]
async fn a_client_that_expects_continue_gets_100_or_a_rejection() {
    for server in Server::all(&small()) {
        let expects = |length| {
            let length = format!("{length}");
            head("POST", RUN_SAXPY, &[JSON, ("content-length", &length), ("expect", "100-continue")], None, true)
        };
        let mut stream = BufReader::new(server.say(expects(SAXPY.len())).await);
        assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 100);
        stream.write_all(SAXPY.as_bytes()).await.unwrap();
        assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200);

        let response = HttpResponse::receive(server.say(expects(1001)).await).await;
        assert!(response.problem(413, "too_large").contains("1000 bytes"));
        assert_eq!(
            response.header("connection"),
            Some("close"),
            "what is not read would be taken for the next request"
        );
    }
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_gets_its_rejection_and_no_reset() {
    const BODY: usize = 8 << 20;
    for server in Server::all(&small()) {
        let head = head("POST", RUN_SAXPY, &[JSON], Some(BODY), true);
        let mut stream = server.say(head).await;
        stream.write_all(&vec![b' '; BODY]).await.expect("it is read for as long as it comes");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("the connection is closed and not reset");
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn a_body_without_end_is_neither_read_to_it_nor_for_long() {
    for server in Server::all(&small()) {
        let chunked = head("POST", RUN_SAXPY, &[JSON, ("transfer-encoding", "chunked")], None, true);
        let (mut response, mut sender) = server.say(chunked).await.into_split();
        let chunk = format!("400\r\n{}\r\n", " ".repeat(1024)).repeat(16);
        let sending = tokio::spawn(async move { while sender.write_all(chunk.as_bytes()).await.is_ok() {} });
        let mut text = Vec::new();
        // It may be reset, for it does not stop; but only once it has been told.
        let _ = response.read_to_end(&mut text).await;
        assert!(text.starts_with(b"HTTP/1.1 413 "), "{}", text.escape_ascii());
        server.assert_serves().await;
        server.until_open(0).await;
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_waited_for_no_longer_than_the_deadline() {
    for server in Server::all(&Setup { timeout: Duration::from_millis(300), ..Setup::default() }) {
        let begun = Instant::now();
        let slow = server.say(head("POST", RUN_SAXPY, &[JSON], Some(1000), true) + "{").await;
        // In less time where the client says so.
        let headers = [JSON, ("connect-timeout-ms", "50")];
        let slower = server.say(head("POST", RUN_SAXPY, &headers, Some(1000), true) + "{").await;
        server.assert_serves().await;
        for stream in [slower, slow] {
            // All that comes until the connection is closed.
            let response = HttpResponse::receive(stream).await;
            response.problem(408, "request_timeout");
            assert_eq!(response.header("connection"), Some("close"));
        }
        assert!((Duration::from_millis(300)..Duration::from_secs(60)).contains(&begun.elapsed()));
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn clients_that_break_off_their_bodies_leave_nothing_behind() {
    for server in Server::all(&Setup::default()) {
        for half in [head("POST", RUN_SAXPY, &[JSON], Some(1000), true), post(RUN_SAXPY, SAXPY)] {
            for _ in 0..20 {
                drop(server.say(&half[..half.len() - 1]).await);
            }
        }
        server.until_open(0).await;
        assert_eq!(server.connections.requests_in_flight(), 0);
        server.assert_serves().await;
    }
}

/// Where two readers of a request disagree on its end, what one takes for a body the other takes for a request.
#[tokio::test]
async fn ambiguous_lengths_are_rejected_and_nothing_is_read_after_them() {
    const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
    let smuggled = "GET /kernels HTTP/1.1\r\nhost: test\r\n\r\n";
    for server in Server::all(&Setup::default()) {
        for headers in [
            &[("content-length", "99999999999999999999999999")][..],
            &[("content-length", "-1")],
            &[("content-length", "+5")],
            &[("content-length", "0x10")],
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "5, 6")],
            &[("transfer-encoding", "chunked, identity")],
            &[("transfer-encoding", "gzip")],
            &[("content-length", "5"), CHUNKED],
            &[CHUNKED, ("content-length", "5")],
        ] {
            let head = head("POST", RUN_SAXPY, &[&[JSON], headers].concat(), None, true);
            let mut stream = server.say(format!("{head}0\r\n\r\n{smuggled}")).await;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 400 "), "{headers:?}: {text}");
            assert_eq!(text.matches("HTTP/1.1").count(), 1, "{headers:?}: {text}");
        }
        // As long as a number can say, and so too long for anybody.
        let absurd = [JSON, ("content-length", "9223372036854775807")];
        server.request("POST", RUN_SAXPY, &absurd, b"{").await.problem(413, "too_large");
    }
}

#[tokio::test]
async fn malformed_chunks_are_rejected() {
    for server in Server::all(&Setup::default()) {
        for chunks in
            ["zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "2\r\n{}no line's end", "-2\r\n{}\r\n0\r\n\r\n"]
        {
            let head = head("POST", RUN_SAXPY, &[JSON, ("transfer-encoding", "chunked")], None, true);
            let response = HttpResponse::receive(server.say(head + chunks).await).await;
            assert!(response.problem(400, "invalid_argument").contains("broke off"), "{chunks}: {response:?}");
        }
        let _: Value = server.post(RUN_SAXPY, &json!({"a": 1.0, "x": [1.0], "y": [1.0]})).await.json();
    }
}
