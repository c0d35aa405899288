//! An HTTP/1.1 client that shows whole responses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::process::PATIENCE;

/// An HTTP/1.1 connection for sequential requests.
pub(crate) struct Connection(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find_map(|(this, value)| this.eq_ignore_ascii_case(name).then_some(value))
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
    }

    /// Sends a part of a body, which the server need not read.
    pub(crate) fn body(&mut self, bytes: &[u8]) {
        // A response that was sent before the server closed is read next.
        let _ = self.0.get_mut().write_all(bytes);
    }

    pub(crate) fn response(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).unwrap_or_else(|error| panic!("{error} after {head:?}"));
            assert!(read > 0, "the connection ended after {head:?}");
        }
        let mut response = Response { status: head[9..12].parse().unwrap(), head, body: String::new() };
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        // Some of the files of the documentation are compressed.
        response.body = String::from_utf8_lossy(&body).into_owned();
        response
    }
    /// Sends a whole request and reads its response.
    pub(crate) fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let length = body.len().to_string();
        self.head(method, path, &[headers, &[("content-length", &length)]].concat());
        self.body(body.as_bytes());
        self.response()
    }

    /// Reads until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest
    }
}
