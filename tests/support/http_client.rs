//! A client of HTTP/1.1 that says exactly what it is told to, and what it is answered.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Asks the server at this address, each time on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
}

impl Wire {
    /// A connection on which these bytes have been sent.
    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// Sends a request and asks for the connection to be closed after it.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = self.say(head(method, path, headers, Some(body.len()), false)).await;
        // A server that has refused an over-long body need not read the rest of it.
        let _ = stream.write_all(body).await;
        stream
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpResponse {
        HttpResponse::receive(self.send(method, path, headers, body).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> HttpResponse {
        self.request("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.request("POST", path, &[JSON], body.to_string().as_bytes()).await
    }

    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        let page = self.get("/metrics").await.body;
        page.lines().find_map(|this| this.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()))
    }

    /// Waits until a line of `/metrics` has this value.
    pub(crate) async fn until(&self, line: &str, value: f64) {
        let begun = Instant::now();
        while self.metric(line).await != Some(value) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{line} is {:?}", self.metric(line).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The head of a request of HTTP/1.1, with these headers and, unless they say one, this length.
pub(crate) fn head(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
    keep_alive: bool,
) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    if !keep_alive {
        head.push_str("connection: close\r\n");
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    if let Some(length) = length
        && !headers.iter().any(|(name, _)| *name == "content-length")
    {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head + "\r\n"
}

/// A request whose connection is to be kept.
pub(crate) fn post(path: &str, body: &str) -> String {
    head("POST", path, &[JSON], Some(body.len()), true) + body
}

#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl HttpResponse {
    /// Whatever comes until the connection ends.
    pub(crate) async fn receive(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // The server may reset a connection whose body it did not read; what it said before that counts.
        let read = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP response: {read:?}, {text:?}"));
        Self::new(head, body.to_owned())
    }

    /// One answer, of those that come on a connection; `None` where it ends before the first byte of it.
    ///
    /// # Errors
    /// What the connection broke off with within an answer.
    pub(crate) async fn next(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        if !matches!(stream.fill_buf().await, Ok(bytes) if !bytes.is_empty()) {
            return Ok(None);
        }
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut response = Self::new(head.trim_end(), String::new());
        if response.status >= 200 {
            let length = response.header("content-length").expect("an answer of known length").parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            response.body = String::from_utf8(body).unwrap();
        }
        Ok(Some(response))
    }

    fn new(head: &str, body: String) -> Self {
        Self { status: head[9..12].parse().unwrap(), head: head.to_owned(), body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (this, value) = line.split_once(": ")?;
            this.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Checks that it is a problem document of this status and code, and gives its `detail`.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!((&document["code"], &document["status"]), (&code.into(), &status.into()), "{document}");
        assert_eq!(document["request_id"].as_str(), self.header("x-request-id"));
        assert!(document["title"].is_string());
        document["detail"].as_str().unwrap().to_owned()
    }
}
