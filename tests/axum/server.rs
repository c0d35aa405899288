//! A server on a port of its own, a client that says exactly what it is told to, and kernels that misbehave.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tower_kernels::axum::{DrainHandle, KernelRouter, RouterConfig};
use tower_kernels::service::{Context, Cost, Invalid, Kernel, KernelError, KernelInfo, KernelRegistry};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: DrainHandle,
}

impl Server {
    /// The catalogue and the kernels below, behind the default configuration.
    pub(crate) async fn start() -> Self {
        Self::with_config(RouterConfig::default()).await
    }

    pub(crate) async fn with_config(config: RouterConfig) -> Self {
        let router = KernelRouter::new(registry(), config);
        let drain = router.drain_handle();
        Self { drain, ..Self::serve(router.into_router()).await }
    }

    pub(crate) async fn serve(router: axum::Router) -> Self {
        // Hundreds of clients connect in the same moment, more than wait in the backlog that `TcpListener::bind` asks for.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, drain: DrainHandle::default() }
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused an over-long body need not read the rest of it.
        let _ = stream.write_all(body).await;
        stream
    }

    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Answer::receive(self.send(method, path, headers, body).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
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
            assert!(begun.elapsed() < Duration::from_secs(10), "{line} is {:?}", self.metric(line).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn receive(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // The server may reset a connection whose body it did not read; what it said before that counts.
        let read = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP response: {read:?}, {text:?}"));
        Self { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
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

pub(crate) fn registry() -> KernelRegistry {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Nap).unwrap();
    registry.register(Panics).unwrap();
    registry
}

/// Runs for as long as it is told to, or until its caller has left.
struct Nap;

#[derive(Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

#[derive(Serialize, JsonSchema)]
struct Slept {
    millis: u64,
}

impl Kernel for Nap {
    type Input = Millis;
    type Output = Slept;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/nap", "1.0.0", "Sleeps.").alias("rest/nap")
    }

    fn validate(&self, _: &Millis) -> Result<(), Invalid> {
        Ok(())
    }

    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &Context<'_>) -> Result<Slept, KernelError> {
        let end = Instant::now() + Duration::from_millis(input.millis);
        while Instant::now() < end {
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Slept { millis: input.millis })
    }
}

struct Panics;

impl Kernel for Panics {
    type Input = bool;
    type Output = bool;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/panics", "1.0.0", "Panics.")
    }

    fn validate(&self, _: &bool) -> Result<(), Invalid> {
        Ok(())
    }

    fn cost(&self, _: &bool) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &bool, _: &Context<'_>) -> Result<bool, KernelError> {
        assert!(!input, "told to");
        Ok(false)
    }
}
