//! Heads that are wrong, too large or old.

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::http_faults::server::{RUN_SAXPY, SAXPY, Server, Setup};
use crate::support::http_client::{HttpResponse, JSON, head, post};

#[tokio::test]
async fn garbage_is_rejected_and_affects_no_other_connection() {
    let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for server in Server::all(&Setup::default()) {
        for bytes in [
            &noise[..],
            b"\0\0\0\0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that wants TLS\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /kernels HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /kernels HTTP/1.1\r\na\0b: c\r\n\r\n",
            b"GET /kernels HTTP/1.1\r\na: b\0c\r\n\r\n",
            b"GET /ker nels HTTP/1.1\r\n\r\n",
        ] {
            let mut stream = server.say(bytes).await;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await.unwrap();
            assert!(text.starts_with(b"HTTP/1.1 400 "), "{}: {}", bytes.escape_ascii(), text.escape_ascii());
        }
        server.assert_serves().await;
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn heads_that_break_off_are_closed_in_silence() {
    for server in Server::all(&Setup::default()) {
        let request = post(RUN_SAXPY, SAXPY);
        let end = request.find("\r\n\r\n").unwrap() + 3;
        for end in 0..=end {
            let mut stream = server.say(&request[..end]).await;
            stream.shutdown().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "", "{:?}", &request[..end]);
        }
        server.until_open(0).await;
        server.assert_serves().await;
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_rejected_as_such() {
    let many: String = (0..1000).map(|i| format!("x-{i}: bomb\r\n")).collect();
    let long = format!("x-long: {}\r\n", "b".repeat(1 << 20));
    for server in Server::all(&Setup::default()) {
        for headers in [&many, &long] {
            let mut stream = server.say("GET /kernels HTTP/1.1\r\nhost: test\r\n").await;
            // It need not read all of it.
            let _ = stream.write_all(format!("{headers}\r\n").as_bytes()).await;
            assert_eq!(HttpResponse::receive(stream).await.status, 431);
        }
        server.assert_serves().await;
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn http_1_0_gets_a_response_and_is_closed() {
    for server in Server::all(&Setup::default()) {
        let length = SAXPY.len();
        let old =
            format!("POST {RUN_SAXPY} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
        let response = HttpResponse::receive(server.say(format!("{old}\r\n{SAXPY}")).await).await;
        assert_eq!(response.status, 200, "{response:?}");

        let mut stream = BufReader::new(server.say(format!("{old}connection: keep-alive\r\n\r\n{SAXPY}")).await);
        for _ in 0..2 {
            assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200);
            stream.write_all(format!("{old}\r\n{SAXPY}").as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn pipelined_requests_get_responses_in_order() {
    for server in Server::all(&Setup::default()) {
        let requests: String =
            (0..50).map(|i| post(RUN_SAXPY, &format!(r#"{{"a": 1.0, "x": [{i}], "y": [0]}}"#))).collect();
        let bad = post(RUN_SAXPY, "{");
        let last = head("GET", "/nowhere", &[JSON], None, false);
        let mut stream = BufReader::new(server.say(requests + &bad + &last).await);
        for i in 0..50 {
            let response = HttpResponse::next(&mut stream).await.unwrap().unwrap();
            assert_eq!(response.json()["output"]["y"][0], f64::from(i));
        }
        HttpResponse::next(&mut stream).await.unwrap().unwrap().problem(400, "invalid_argument");
        HttpResponse::next(&mut stream).await.unwrap().unwrap().problem(404, "not_found");
        assert!(HttpResponse::next(&mut stream).await.unwrap().is_none());
    }
}
