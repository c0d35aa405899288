//! A client of the protocol over HTTP/1.1, which sends exactly what it is given.

use std::ops::Deref;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::axum::server::Server;

pub(super) const HEAD_LENGTH: &str = "inference-header-content-length";

pub(super) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An input in binary form.
pub(super) fn binary(name: &str, datatype: &str, shape: &[usize], bytes: usize) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": bytes}})
}

/// A request for `2 x + y`, of two elements.
pub(super) fn saxpy() -> Value {
    json!({"inputs": [
        {"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
        {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]},
        {"name": "y", "datatype": "FP32", "shape": [2], "data": [10.0, 20.0]},
    ]})
}

pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Whatever comes until the connection ends.
    pub(super) async fn receive(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // The server may reset a connection whose body it did not read; what it sent before counts.
        let _ = stream.read_to_end(&mut bytes).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a response") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        Self { status: head[9..12].parse().unwrap(), head, body: bytes[end..].to_vec() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The JSON of a success.
    #[track_caller]
    pub(super) fn ok(&self) -> Value {
        assert_eq!((self.status, self.header("content-type")), (200, Some("application/json")), "{}", self.text());
        assert!(self.header(HEAD_LENGTH).is_none() && self.header("x-request-id").is_some());
        self.json()
    }

    /// The JSON and the bytes after it.
    #[track_caller]
    pub(super) fn binary(&self) -> (Value, &[u8]) {
        let found = (self.status, self.header("content-type"));
        assert_eq!(found, (200, Some("application/octet-stream")), "{}", self.text());
        let (json, data) = self.body.split_at(self.header(HEAD_LENGTH).unwrap().parse().unwrap());
        (serde_json::from_slice(json).unwrap(), data)
    }

    /// Checks that it is an error of the protocol, and returns its text.
    #[track_caller]
    pub(super) fn error(&self, status: u16) -> String {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/json")), "{}", self.text());
        let document = self.json();
        assert_eq!(document.as_object().unwrap().len(), 1, "{document}");
        document["error"].as_str().unwrap().to_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(super) struct Client(pub(super) Server);

impl Deref for Client {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Client {
    pub(super) async fn start() -> Self {
        Self(Server::start().await)
    }

    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Answer::receive(self.0.send(method, path, headers, body).await).await
    }

    pub(super) async fn read(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// As curl sends it: JSON of the type of a form.
    pub(super) async fn infer(&self, model: &str, request: &Value) -> Answer {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", &format!("/v2/models/{model}/infer"), &headers, request.to_string().as_bytes()).await
    }

    /// As tritonclient sends it: JSON and binary data, of no type.
    pub(super) async fn infer_binary(&self, model: &str, request: &Value, data: &[u8]) -> Answer {
        let json = request.to_string();
        self.infer_raw(model, &[(HEAD_LENGTH, &json.len().to_string())], &[json.as_bytes(), data].concat()).await
    }

    pub(super) async fn infer_raw(&self, model: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send("POST", &format!("/v2/models/{model}/infer"), headers, body).await
    }
}
